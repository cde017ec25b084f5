"""The options of `kairos replay`, read and checked. Loads little: the child starts as soon as they are known."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kairos.cli.apps import require_app
from kairos.cli.repeating import command
from kairos.cli.stopping import Stopping
from kairos.cli.usage import UsageError
from kairos.domain.duration import parse_duration
from kairos.errors import DefinitionError
from kairos.replay import guard
from kairos.replay.compare import Ignore
from kairos.replay.plan import Choice, Mode
from kairos.replay.replayer import Settings
from kairos.replay.stopping.breakpoints import DEBUGPY_FLAGS

if TYPE_CHECKING:
    from kairos.cli.tracing import LookingBack


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was typed. `stops` and `trace` are for the child, who stops in a step, or records it."""

    run: str
    mode: str = "verify"
    serve: tuple[str, ...] = ()
    until: str | None = None
    only: str | None = None
    attempt: int | None = None
    fork_from: str | None = None
    set: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    submit: bool = False
    reason: str = ""
    allow_network: tuple[str, ...] = ()
    allow_writes: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    timeout: str | None = None
    show_code: bool = False
    isolation: str | None = None
    yes: bool = False
    app: str | None = None
    url: str | None = None
    as_json: bool = False
    stops: Stopping = field(default_factory=Stopping)
    trace: Mapping[str, Any] = field(default_factory=dict)
    looking_back: LookingBack | None = None

    def again(self, *options: str) -> str:
        """The command that replays the same run in the same surroundings with these options."""
        return command(
            "replay", self.run, *options, app=self.app, url=self.url, env=self.env, ignore=self.ignore,
            allow_network=self.allow_network, allow_writes=self.allow_writes,
        )  # fmt: skip


def choice_of(request: Request) -> Choice:
    """What is to be done with each step. Raises UsageError, InvalidArgument."""
    try:
        mode = Mode(request.mode)
    except ValueError:
        valid = ", ".join(Mode)
        raise UsageError(f"--mode {request.mode!r} is not a mode", hint=f"There are: {valid}.") from None
    if request.fork_from is None and (request.set or request.output):
        raise UsageError("--set and --output edit a fork", hint="Say from which step: --fork-from STEP.")
    if request.submit and request.fork_from is None:
        raise UsageError("--submit starts a fork", hint="Say from which step: --fork-from STEP.")
    Ignore(request.ignore)  # raises where one cannot be read
    if request.only is not None and (request.until or request.fork_from):
        raise UsageError("--only runs one step alone", hint="Leave out --until and --fork-from, or --only.")
    return Choice(
        mode=mode,
        serve=frozenset(request.serve),
        until=request.until,
        only=request.only,
        attempt=request.attempt,
        fork_from=request.fork_from,
    )


def settings_of(request: Request, choice: Choice) -> Settings:
    """How the child is set up. Raises UsageError, InvalidArgument."""
    if request.isolation not in (None, "strict"):
        raise UsageError(f"--require-isolation {request.isolation!r} means nothing", hint="There is: strict.")
    for folder in request.allow_writes:
        if not Path(folder).exists():
            raise UsageError(f"--allow-writes {folder}: there is no such file or folder")
    app = require_app(request.app)
    timeout = None if request.timeout is None else _seconds(request.timeout)
    stops = request.stops.options(request.ignore)
    if stops and timeout is not None:
        raise UsageError("--timeout would end a step while you look at it", hint="Leave it out; Ctrl-C interrupts.")
    if stops and request.trace and sys.version_info < (3, 12):
        raise UsageError(
            "Python 3.11 has one tracing hook, for a debugger or for --trace",
            hint="Leave out one, or use 3.12 or later.",
        )
    is_debugged = bool(stops or request.trace)
    return Settings(
        app=app.spec,
        live=choice.mode is Mode.LIVE,
        network=tuple(guard.parse_destination(text) for text in request.allow_network),
        writes=tuple(str(Path(folder).resolve()) for folder in request.allow_writes),
        environment=request.env,
        strict=request.isolation == "strict",
        timeout=timeout,
        probe=not is_debugged,
        paced=not request.as_json,
        quiet=request.as_json,
        interactive=bool(stops) or sys.stdin.isatty(),
        debugger=stops.to_json() if stops else {},
        python=DEBUGPY_FLAGS if stops.debugger == "debugpy" else (),
        trace=request.trace,
    )


def _seconds(text: str) -> float:
    try:
        return parse_duration(text, what="--timeout").total_seconds()
    except DefinitionError as exc:
        raise UsageError(exc.message, hint=exc.hint) from None
