"""`kairos backtest`: replays many recorded runs with the code at hand, and says what would come out differently."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from kairos.cli import exits, words
from kairos.cli.apps import require_app
from kairos.cli.backtest_lines import Lines, document
from kairos.cli.database import PATIENCE, open_existing
from kairos.cli.ending import orderly
from kairos.cli.filters import read_duration, read_moment, read_status
from kairos.cli.repeating import command
from kairos.cli.terminal import err, out, print_error, print_json, safe
from kairos.cli.usage import UsageError
from kairos.database import Database
from kairos.domain.states import RunStatus
from kairos.errors import (
    AppUnavailable,
    DatabaseUnavailable,
    GuardUnavailable,
    HistoryError,
    InvalidArgument,
    KairosError,
    ReplayError,
    WorkflowNotFound,
)
from kairos.replay import guard
from kairos.replay.compare import Ignore
from kairos.replay.fetching import Fetched, fetch
from kairos.replay.junit import junit
from kairos.replay.plan import Choice, Mode
from kairos.replay.replayer import Replayer, Settings
from kairos.replay.tally import Tally
from kairos.replay.verdicts import STOPPED, UNREADABLE, USAGE
from kairos.store.connect import Session
from kairos.store.reader import Reader, RunInfo

DEFAULT_LAST = 100
_PAGE = 1_000
_ENDED = (RunStatus.DONE, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.EXPIRED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was typed."""

    workflow: str
    last: int | None = None
    since: str | None = None
    status: tuple[str, ...] = ()
    mode: str = "verify"
    ignore: tuple[str, ...] = ()
    junit: str | None = None
    timeout: str = "60s"
    allow_network: tuple[str, ...] = ()
    allow_writes: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    isolation: str | None = None
    app: str | None = None
    url: str | None = None
    as_json: bool = False

    def again(self, run_id: str, step: str | None) -> str:
        """The command that replays one of the runs as it was replayed here, that step alone if it can be."""
        how = ["--mode", self.mode] if self.mode != Mode.VERIFY else ["--only", step] if step is not None else []
        return command(
            "replay", run_id, *how, app=self.app, url=self.url, env=self.env, ignore=self.ignore,
            allow_network=self.allow_network, allow_writes=self.allow_writes,
        )  # fmt: skip


def run_backtest(request: Request) -> int:
    """Replay the runs, and print what comes of it. The exit codes are those of `verdicts`."""
    try:
        with orderly():
            return _Backtest(request).run()
    except (InvalidArgument, WorkflowNotFound, ReplayError) as exc:
        leaks = getattr(exc, "leaks", ())
        if isinstance(exc, AppUnavailable) and not request.as_json:
            sys.stderr.write(safe(getattr(exc, "trace", "")))
            Lines(err(), err(), "").leaks(leaks, "the import of the app")
        return _refuse(exc, request, STOPPED if leaks else USAGE)
    except GuardUnavailable as exc:
        return _refuse(exc, request, STOPPED)
    except (HistoryError, DatabaseUnavailable) as exc:
        return _refuse(exc, request, UNREADABLE)


def _refuse(exc: KairosError, request: Request, code: int) -> int:
    print_error(exc.message, exc.hint, as_json=request.as_json, kind=type(exc).__name__)
    return code


class _Backtest:
    """One call of the command. All options are looked at before anything is started."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.interrupted = False
        self.replay_seconds = 0.0
        self.choice = Choice(mode=_mode(request.mode))
        Ignore(request.ignore)  # complains of what cannot be read
        self.statuses = [read_status(text) for text in request.status] or list(_ENDED)
        self.since = read_moment(request.since, "--since")
        self.settings = _settings(request)
        self.lines = Lines(err() if request.as_json else out(), err(), self.settings.app)
        if request.junit is not None:
            _check_writable(Path(request.junit))

    def run(self) -> int:
        """From the first line to the exit code."""
        began, clock = words.now(), time.monotonic()
        tally = Tally(self.request.workflow)
        with Replayer(self.settings, self.lines) as replayer:
            replayer.launch()  # it imports the app while the database is asked
            with open_existing(self.request.url) as database:
                infos = asyncio.run(self._list(database))
                replayer.start()
                replayer.describe(self.request.workflow)
                if not infos:
                    return self._nothing()
                self.lines.introduce(self.request.workflow, infos, self.choice)
                self._replay(replayer, database, [info.id for info in infos], tally)
        seconds = time.monotonic() - clock
        if self.request.junit is not None:
            _write(Path(self.request.junit), junit(tally, began, seconds))
        code = exits.INTERRUPTED if self.interrupted else tally.exit_code
        self.lines.finish(tally, code, seconds, self.request.again)
        if self.request.as_json:
            print_json(document(tally, replayer, self.choice, code, seconds, self.replay_seconds))
        return code

    def _replay(self, replayer: Replayer, database: Database, ids: list[UUID], tally: Tally) -> None:
        def session() -> Session:
            return Session(database.dsn, "kairos-replay", patience=PATIENCE, default_transaction_read_only="on")

        began = time.monotonic()
        with contextlib.closing(fetch(session, ids, replayer.folder)) as runs, self.lines.progress(len(ids)) as advance:
            try:
                for fetched in runs:
                    _replay_one(replayer, fetched, self.choice, self.request.ignore, tally)
                    advance(tally)
            except KeyboardInterrupt:
                self.interrupted = True
                replayer.end_child(at_once=True)
        self.replay_seconds = time.monotonic() - began

    async def _list(self, database: Database) -> list[RunInfo]:
        """The runs that were asked for, newest first."""
        most = self.request.last or (None if self.since is not None else DEFAULT_LAST)
        session = Session(database.dsn, "kairos-replay", patience=PATIENCE, default_transaction_read_only="on")
        try:
            reader, found = Reader(session), list[RunInfo]()
            while most is None or len(found) < most:
                page = await reader.list_runs(
                    workflow=self.request.workflow,
                    statuses=[status.value for status in self.statuses],
                    since=self.since,
                    before=found[-1].id if found else None,
                    limit=_PAGE if most is None else min(_PAGE, most - len(found)),
                )
                found += page
                if not page:
                    break
            return found
        finally:
            await session.close()

    def _nothing(self) -> int:
        wanted = ", ".join(status.value.lower() for status in self.statuses)
        print_error(
            f"no run of workflow {self.request.workflow!r} is recorded that matches",
            f"Looked for: {wanted}{f', since {self.request.since}' if self.request.since else ''}. "
            f"`kairos runs --workflow {self.request.workflow}` lists what there is.",
            as_json=self.request.as_json,
            kind="RunNotFound",
        )
        return UNREADABLE


def _replay_one(replayer: Replayer, fetched: Fetched, choice: Choice, ignore: tuple[str, ...], tally: Tally) -> None:
    began = time.monotonic()
    if fetched.record is None:
        tally.add_unreadable(str(fetched.run_id), fetched.problem)
        return
    try:
        result = replayer.replay(fetched.record, fetched.path, choice, ignore=ignore)
    except HistoryError as exc:
        tally.add_unreadable(str(fetched.run_id), exc.message)
        return
    tally.add(result, time.monotonic() - began)


def _mode(text: str) -> Mode:
    if text not in (Mode.VERIFY, Mode.PROPAGATE):
        raise UsageError(f"--mode {text!r} is not a mode of a backtest", hint="There are: verify, propagate.")
    return Mode(text)


def _settings(request: Request) -> Settings:
    if request.isolation not in (None, "strict"):
        raise UsageError(f"--require-isolation {request.isolation!r} means nothing", hint="There is: strict.")
    for folder in request.allow_writes:
        if not Path(folder).exists():
            raise UsageError(f"--allow-writes {folder}: there is no such file or folder")
    return Settings(
        app=require_app(request.app).spec,
        network=tuple(guard.parse_destination(text) for text in request.allow_network),
        writes=tuple(str(Path(folder).resolve()) for folder in request.allow_writes),
        environment=request.env,
        strict=request.isolation == "strict",
        timeout=read_duration(request.timeout, "--timeout").total_seconds(),
        mute=True,
    )


def _check_writable(path: Path) -> None:
    """Better before an hour of replaying than after."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"--junit {path} cannot be written", hint="Name a file in a folder that is there.")


def _write(path: Path, content: bytes) -> None:
    """Whole, or not at all."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(draft, 0o666 & ~_umask())
    os.replace(draft, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
