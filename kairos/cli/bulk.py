"""`kairos fork --where ...`: many runs, first a plan, then a canary, then the rest, and a stop.

A run that has a fork already stands for itself no longer: its fork does. It is left out, so that the same command
given twice forks nothing twice; a fork that failed is forked itself if the conditions find it.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from rich.console import Console, Group, RenderableType
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.database import connected
from kairos.cli.forking import (
    Edits,
    as_usage,
    given_version,
    load_app_of,
    note_refusal,
    print_plan,
    unannounced,
    workflow_of,
)
from kairos.cli.grid import Column, grid, print_grid
from kairos.cli.repeating import command
from kairos.cli.terminal import columns, err, is_live, one_line, out, print_json, print_wrapped, safe
from kairos.cli.usage import UsageError
from kairos.cli.where import Where, read_where
from kairos.domain.states import RunStatus
from kairos.errors import KairosError
from kairos.store.forks import read_forks_of
from kairos.store.reader import Reader, RunInfo

if TYPE_CHECKING:
    from kairos.authoring import App
    from kairos.client import AsyncClient

FAILED: Final = "failed"
"""As `--from`: each run from the step at which it failed."""
SHOWN: Final = 20
LOOK_EVERY: Final = 0.25
TELL_EVERY: Final = 2.0
"""Seconds between looks at how the forks go, and between lines about it where nothing can be redrawn."""


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """What was typed; nothing of it is checked yet."""

    run: str | None
    where: str
    canary: int
    rate: str | None
    stop_if_failed: str
    limit: int | None
    yes: bool
    is_dry: bool
    key: str | None
    waits: bool


@dataclass(slots=True)
class Item:
    """One run of the list: what is to be done, and what became of it."""

    info: RunInfo
    from_step: str
    fork_id: UUID | None = None
    status: RunStatus | None = None
    problem: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing more will be heard of it."""
        return self.problem is not None or (self.status is not None and self.status.is_terminal)

    @property
    def has_failed(self) -> bool:
        """Whether its fork was refused, or ended other than DONE."""
        return self.problem is not None or (self.is_settled and self.status is not RunStatus.DONE)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "parent": str(self.info.id),
            "from_step": self.from_step,
            "run": None if self.fork_id is None else str(self.fork_id),
            "status": None if self.status is None else self.status.value,
            "problem": self.problem,
        }


@dataclass(slots=True)
class Bulk:
    """The whole of it, as it stands."""

    items: list[Item]
    skipped: Counter[str]
    canary: int
    limit: float
    stopped: str | None = None

    @property
    def begun(self) -> list[Item]:
        """Those that were forked or refused."""
        return [item for item in self.items if item.fork_id is not None or item.problem is not None]

    def count(self) -> tuple[int, int, int, int]:
        """Begun, still going on, done, failed."""
        begun = self.begun
        failed = sum(item.has_failed for item in begun)
        settled = sum(item.is_settled for item in begun)
        return len(begun), len(begun) - settled, settled - failed, failed

    def check(self) -> None:
        """Decide to stop when too many have failed."""
        _, _, done, failed = self.count()
        if self.stopped is None and failed and failed / (failed + done) > self.limit:
            self.stopped = f"{failed} of {failed + done} forks that have ended failed; the limit is {self.limit:.0%}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        begun, going, done, failed = self.count()
        return {
            "planned": len(self.items),
            "skipped": dict(self.skipped),
            "started": begun,
            "going_on": going,
            "done": done,
            "failed": failed,
            "stopped": self.stopped,
            "forks": [item.to_json() for item in self.items],
        }


def fork_many(given: BulkRequest, edits: Edits, *, app: str | None, url: str | None, as_json: bool) -> int:
    """Plan, ask, fork."""
    if given.run is not None:
        raise UsageError(f"give a run ({given.run}) or --where, not both")
    if given.key is not None or given.waits:
        raise UsageError("--key, --wait and --timeout are for the fork of one run", hint="Many are always waited for.")
    where, arguments = read_where(given.where), edits.arguments()
    pause, limit = read_rate(given.rate), read_share(given.stop_if_failed)
    if not (given.yes or given.is_dry) and (as_json or not sys.stdin.isatty()):
        raise UsageError("nobody can be asked here whether to go on", hint="Add --yes, or --dry-run to look first.")
    loaded = load_app_of(app)

    async def work() -> int:
        async with connected(url) as (client, reader):
            bulk = await plan_bulk(reader, where, edits.from_step, given.limit, given.canary, limit)
            forking = Forking(client, reader, bulk, arguments, pause, loaded, app)
            if not as_json:
                await _print_plan(out(), forking, edits, given.is_dry)
            if bulk.items and not given.is_dry:
                with as_usage():
                    first = await forking.plan(bulk.items[0])
                if not given_version(edits, first):
                    raise unannounced(first)
            if given.is_dry or not bulk.items:
                if as_json:
                    print_json(bulk.to_json())
                return exits.OK
            if not given.yes and not _agrees(len(bulk.items)):
                return exits.OK
            try:
                await forking.run(quietly=as_json)
            except asyncio.CancelledError:
                bulk.stopped = "interrupted"
                raise
            finally:
                _print_end(bulk, as_json, url)
            return exits.FAILED if bulk.stopped or bulk.count()[3] else exits.OK

    return asyncio.run(work())


async def plan_bulk(reader: Reader, where: Where, from_step: str, limit: int | None, canary: int, share: float) -> Bulk:
    """Which runs are to be forked, and how many are left out for what reason."""
    skipped: Counter[str] = Counter()
    items: list[Item] = []
    infos = await where.find(reader, None)
    forked = {fork.parent_id for fork in await read_forks_of(reader.session, [info.id for info in infos])}
    for info in infos:
        step = from_step if from_step != FAILED else next(iter(info.failed_steps), None)
        if info.id in forked:
            skipped["with a fork already"] += 1
        elif step is None:
            skipped["without a failed step"] += 1
        elif limit is not None and len(items) >= limit:
            skipped["beyond --limit"] += 1
        else:
            items.append(Item(info, step))
    return Bulk(items, skipped, canary, share)


class Forking:
    """Starts the forks one by one and looks how they go."""

    def __init__(
        self, client: AsyncClient, reader: Reader, bulk: Bulk, arguments: dict[str, Any], pause: float,
        app: App | None, app_given: str | None,
    ) -> None:  # fmt: skip
        self.client, self.reader, self.bulk = client, reader, bulk
        self.arguments, self.pause = arguments, pause
        self.app, self.app_given = app, app_given
        self._looked = self._told = 0.0

    async def plan(self, item: Item, key: str | None = None) -> Any:
        """The plan of one. Raises what `AsyncClient.plan_fork` raises."""
        return await self.client.plan_fork(
            item.info.id, from_step=item.from_step, key=key, workflow=workflow_of(self.app, item.info, self.app_given),
            **self.arguments,
        )  # fmt: skip

    async def run(self, *, quietly: bool) -> None:
        """The canary, then the rest, then to the end; or until too many have failed."""
        if quietly or not is_live():
            await self._run(None if quietly else err(), None)
            return
        from rich.live import Live

        console = out()
        with Live(console=console, auto_refresh=False, transient=True) as live:
            await self._run(console, live)

    async def _run(self, console: Console | None, live: Any) -> None:
        bulk = self.bulk

        def show(stage: str, *, is_last: bool = False) -> None:
            if live is not None:
                live.update(draw(bulk, stage), refresh=True)
            elif console is not None and (is_last or time.monotonic() - self._told >= TELL_EVERY):
                self._told = time.monotonic()
                console.print(f"{stage}: {summary(bulk)}")

        canary, rest = bulk.items[: bulk.canary], bulk.items[bulk.canary :]
        for item in canary:
            await self._start(item)
        stage = "canary"
        await self._follow(canary, lambda: show(stage))
        if canary:
            show(stage, is_last=True)
        if any(item.has_failed for item in canary):
            bulk.stopped = bulk.stopped or "the canary failed"
        stage = "forking"
        for item in rest:
            began = time.monotonic()
            if await self._look():
                bulk.check()
                show(stage)
            if bulk.stopped:
                break
            await self._start(item)
            await asyncio.sleep(max(self.pause - (time.monotonic() - began), 0))
        stage = "waiting"
        await self._follow(bulk.begun, lambda: show(stage))
        bulk.check()
        show(stage, is_last=True)

    async def _start(self, item: Item) -> None:
        # An interruption waits for the fork that is under way: what is said at the end must be true.
        task = asyncio.create_task(self._fork(item))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await task
            raise

    async def _fork(self, item: Item) -> None:
        # One key per run: two who give the same command at the same moment start one fork.
        key = f"bulk fork of {item.info.id}"
        try:
            run = await self.client.start_fork(await self.plan(item, key))
        except KairosError as exc:
            item.problem = exc.message
        else:
            item.fork_id, item.status = run.info.id, run.status

    async def _follow(self, items: list[Item], show: Any) -> None:
        """Until all of them are settled."""
        while True:
            await self._look(now=True)
            show()
            if all(item.is_settled for item in items):
                return
            await asyncio.sleep(LOOK_EVERY)

    async def _look(self, *, now: bool = False) -> bool:
        """See how the forks go, unless that was done just now. Whether it was."""
        if not now and time.monotonic() - self._looked < LOOK_EVERY:
            return False
        self._looked = time.monotonic()
        open_items = {
            item.fork_id: item for item in self.bulk.begun if item.fork_id is not None and not item.is_settled
        }
        for run_id, info in (await self.reader.runs(open_items)).items() if open_items else ():
            item = open_items[run_id]
            item.status = info.status
        return True


def read_rate(text: str | None) -> float:
    """`10/s`, `30/m`: seconds between two forks; 0 for no limit. Raises UsageError."""
    if text is None:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/([smh]))?", text.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"--rate {text!r} is not a rate", hint="Write 10/s, 30/m or 100/h.")
    return {"s": 1, "m": 60, "h": 3600}[match[2] or "s"] / float(match[1])


def read_share(text: str) -> float:
    """`5%` or `0.05`. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--stop-if-failed {text!r} is not a share", hint="Write 5% or 0.05; 0% stops at the first.")
    return share


def summary(bulk: Bulk) -> str:
    """`12 of 40 forked, 3 going on, 9 done, 0 failed`."""
    begun, going, done, failed = bulk.count()
    return f"{begun:,} of {len(bulk.items):,} forked, {going:,} going on, {done:,} done, {failed:,} failed"


def draw(bulk: Bulk, stage: str) -> RenderableType:
    """The last forks and a count of all."""
    rows = [_row(item) for item in bulk.begun[-SHOWN:]]
    table = grid(_COLUMNS, rows, None)
    return Group(
        *table, Text(""), Text(f"{stage}: {summary(bulk)}"), Text("Ctrl-C stops; what is forked goes on", "dim")
    )


_COLUMNS: Final = [Column("RUN"), Column("FROM", most=24), Column("FORK"), Column("STATUS"), Column("")]


def _row(item: Item) -> list[Text]:
    return [
        Text(words.short_id(item.info.id), "bold"),
        Text(one_line(item.from_step)),
        Text("" if item.fork_id is None else words.short_id(item.fork_id), "bold"),
        Text("REFUSED", "red") if item.problem else words.status_text(item.status) if item.status else Text(""),
        Text(one_line(item.problem or "", 120)),
    ]


async def _print_plan(console: Console, forking: Forking, edits: Edits, is_dry: bool) -> None:
    bulk = forking.bulk
    if bulk.items:
        first = bulk.items[0]
        # The first one in full: what is true of it is true of most, and mistakes in the edits show here.
        with as_usage():
            planned = await forking.plan(first)
        print_plan(console, planned, first.info)
        if is_dry and not given_version(edits, planned):
            note_refusal(console, unannounced(planned))
        console.print()
        now = words.now()
        heads = [Column("RUN"), Column("WORKFLOW", most=24), Column("STATUS"), Column("CREATED", is_right=True),
                 Column("FROM", most=24), Column("")]  # fmt: skip
        is_whole = columns(console) is None
        rows = [
            [
                Text(str(item.info.id) if is_whole else words.short_id(item.info.id), "bold"),
                Text(one_line(item.info.workflow)),
                words.status_text(item.info.status),
                Text(words.ago(item.info.created_at, now)),
                Text(one_line(item.from_step)),
                Text(one_line(item.info.reason or "", 120)),
            ]
            for item in bulk.items[:SHOWN]
        ]
        print_grid(console, heads, rows)
        if len(bulk.items) > SHOWN:
            console.print(f"and {len(bulk.items) - SHOWN:,} more; --json shows all", style="dim")
        verb = "would be forked" if is_dry else "to fork"
        how = f", {min(bulk.canary, len(bulk.items))} of them first as canary" if bulk.canary else ""
        console.print(Text(f"{words.plural(len(bulk.items), 'run')} {verb}{how}", "bold"))
    else:
        console.print("No runs to fork.")
    for why, count in bulk.skipped.items():
        console.print(Text(f"left out: {count:,} {why}", "dim"))


def _agrees(count: int) -> bool:
    import typer

    return typer.confirm(f"Fork {words.plural(count, 'run')}?")


def _print_end(bulk: Bulk, as_json: bool, url: str | None) -> None:
    if as_json:
        print_json(bulk.to_json())
        return
    console = out()
    print_grid(console, _COLUMNS, [_row(item) for item in bulk.begun[-SHOWN:]])
    console.print(summary(bulk))
    if bulk.stopped:
        left = len(bulk.items) - len(bulk.begun)
        text = f"stopped: {bulk.stopped}. {words.plural(left, 'run')} not forked; what is forked goes on. "
        print_wrapped(console, Text(text + "The same command goes on with the rest.", "yellow"))
    failed = next((item for item in bulk.begun if item.has_failed and item.fork_id is not None), None)
    if failed is not None and failed.fork_id is not None:
        console.print(safe(command("show", words.short_id(failed.fork_id), url=url)), style="dim", soft_wrap=True)
