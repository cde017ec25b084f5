"""`kairos demo`: a real workflow on a real Postgres, its worker killed in the middle, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from kairos import settings
from kairos.authoring.loading import load_app
from kairos.cli import exits, words
from kairos.cli.failures import short_path
from kairos.cli.live import draw, follow, print_fresh
from kairos.cli.showing import print_steps
from kairos.cli.story import Story, begin_story
from kairos.cli.terminal import is_live, one_line, out
from kairos.cli.waiting import Ending, print_trouble, read_ending
from kairos.client import AsyncClient
from kairos.database import Database
from kairos.domain.states import RunStatus, StepStatus
from kairos.engine import logs
from kairos.engine.processes import Plan, Supervisor
from kairos.errors import KairosError
from kairos.settings import WorkerOptions
from kairos.store.connect import Session
from kairos.store.reader import Reader
from kairos.store.verify import Verifier

PATIENCE: Final = 120.0
SLOTS: Final = 4
"""Fewer than there are shards, so that at the moment of the kill some are done and some are not."""


@dataclass(slots=True)
class Crash:
    """The kill, for the telling afterwards; `healed`: when another worker had taken over."""

    pid: int
    running: list[str]
    done: int
    at: float
    healed: float | None = None


def run_demo(*, url: str | None) -> int:
    """Play it. 0 when the run ended well and its history is whole."""
    console = out()
    spec = f"{example('census.py')}:app"
    console.print(
        Text.assemble(("kairos demo", "bold"), ("  a survey of Python's standard library, as a DAG of steps", "dim"))
    )
    console.print()
    began = time.monotonic()
    with Database(url).require_schema() as database:
        _tell_database(console, database, time.monotonic() - began)
        return asyncio.run(_play(console, database, spec))


def example(name: str) -> Path:
    """An example's file: in a wheel it lies inside the package, in a checkout beside it.

    Raises:
        KairosError: neither place has it.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / name).is_file():
            return folder / name
    raise KairosError(f"the example {name} is missing", hint="Reinstall Kairos: the package is incomplete.")


def _tell_database(console: Console, database: Database, seconds: float) -> None:
    from kairos import embedded

    if not database.is_embedded:
        console.print("  database  the one of KAIROS_DATABASE_URL")
        return
    folder: Path = settings.read("data_dir")
    version = embedded.status(folder.resolve()).version
    line = Text.assemble(
        ("  database  ", "dim"), f"PostgreSQL {version} in {folder}", (f"  ready in {seconds:.1f}s", "dim")
    )
    console.print(line)


async def _play(console: Console, database: Database, spec: str) -> int:
    session = Session(database.dsn, "kairos demo", patience=10)
    reader = Reader(session)
    try:
        async with AsyncClient(database.dsn) as client, _worker(database, spec) as supervisor:
            pid = next(iter(supervisor.children.values())).pid
            console.print(Text.assemble(("  worker    ", "dim"), f"process {pid}"))
            run = await client.start(load_app(spec).get("census"), {})
            console.print(Text.assemble(("  run       ", "dim"), run.id))
            console.print()
            story = await begin_story(reader, run.info.id)
            crash = await _follow_and_kill(console, reader, story, supervisor)
            ending = await read_ending(reader, await reader.run(run.info.id))
        return await _conclude(console, reader, story, ending, crash)
    finally:
        await session.close()


@asynccontextmanager
async def _worker(database: Database, spec: str) -> AsyncIterator[Supervisor]:
    """A supervised worker for the length of the block; what it logs goes to a file beside the data."""
    ready = asyncio.Event()
    log = _log_file()
    logs.configure("text", "INFO", os.fdopen(os.dup(log), "w", buffering=1))
    try:
        options = WorkerOptions.from_settings(concurrency=SLOTS, queues=("default",), drain_timeout=5.0)
        plan = Plan(spec, database.dsn, options, log_file=log, hold_fd=database.hold_fd)
        supervisor = Supervisor(plan, takes_signals=False, on_ready=lambda child: ready.set())
        task = asyncio.create_task(supervisor.run())
        waiter = asyncio.create_task(ready.wait())
        await asyncio.wait((task, waiter), timeout=30, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if not ready.is_set():
            supervisor.kill(1)
            await task
            raise KairosError("the worker did not start", hint="`kairos worker --app examples/census.py:app` says why.")
        try:
            yield supervisor
        finally:
            supervisor.stop()
            await task
    finally:
        os.close(log)


def _log_file() -> int:
    folder: Path = settings.read("data_dir")
    place = str(folder / "demo.log") if folder.is_dir() else os.devnull
    with contextlib.suppress(OSError):
        return os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return os.open(os.devnull, os.O_WRONLY)


async def _follow_and_kill(console: Console, reader: Reader, story: Story, supervisor: Supervisor) -> Crash | None:
    """Show the run as it goes; kill its worker as soon as some steps are done and others are running."""
    crash: Crash | None = None

    def strike() -> None:
        nonlocal crash
        state = story.state
        running = state.steps_in(StepStatus.RUNNING)
        shards_done = [name for name in state.steps_in(StepStatus.DONE) if name.startswith("parse")]
        child = next(iter(supervisor.children.values()), None)
        if crash is None and child is not None and len(running) >= 2 and len(shards_done) >= 2:
            os.kill(child.pid, signal.SIGKILL)
            crash = Crash(child.pid, running, len(state.steps_in(StepStatus.DONE)), time.monotonic())
        elif crash is not None and crash.healed is None and story.lost():
            crash.healed = time.monotonic()

    if not is_live():

        def show_lines(story: Story, fresh: int) -> None:
            print_fresh(console, story, fresh)
            was = crash
            strike()
            if crash is not was and crash is not None:
                console.print(_obituary(crash))

        await follow(reader, story, PATIENCE, show_lines)
        return crash

    with Live(console=console, auto_refresh=False) as live:

        def show(story: Story, fresh: int) -> None:
            was = crash
            strike()
            if crash is not was and crash is not None:
                live.console.print(_obituary(crash))
                live.console.print()
            live.update(draw(story, console, words.now()), refresh=True)

        await follow(reader, story, PATIENCE, show)
    return crash


def _obituary(crash: Crash) -> Text:
    names = ", ".join(crash.running)
    return Text.assemble(("  kill -9   ", "bold red"), f"worker {crash.pid}, while it was running {names}")


async def _conclude(console: Console, reader: Reader, story: Story, ending: Ending, crash: Crash | None) -> int:
    console.print()
    if ending.info.status is not RunStatus.DONE:
        print_trouble(ending, f"{PATIENCE:.0f}s")
        return exits.ERROR
    console.print(Text.assemble("What happened, attempt by attempt:"), style="bold")
    print_steps(console, story, None)
    console.print()
    _tell_recovery(console, story, crash)
    report = await Verifier(reader.session).one(story.info.id)
    whole = ("whole", "green") if report.is_clean else ("NOT WHOLE", "bold red")
    console.print(
        Text.assemble(("  history   ", "dim"), f"{report.events} events, hash chain and stored state: ", whole)
    )
    console.print(Text.assemble(("  result    ", "dim"), one_line(ending.output["summary"])))
    longest = ending.output["longest"][0]
    what = f"{longest['name']} in {longest['file']}, {longest['lines']} lines"
    console.print(Text.assemble(("  longest   ", "dim"), one_line(what)))
    _tell_next(console, story)
    return exits.OK if report.is_clean and crash is not None else exits.ERROR


def _tell_recovery(console: Console, story: Story, crash: Crash | None) -> None:
    if crash is None:
        console.print("  The run was over before its worker could be killed; try again.", style="yellow")
        return
    lost = story.lost()
    again = [tries[-1] for tries in story.attempts.values() if any(a.outcome == "lost" for a in tries)]
    console.print(Text.assemble(("  killed    ", "dim"), f"one worker; {crash.done} steps were done and stayed done"))
    names = ", ".join(sorted({attempt.step for attempt in lost}))
    console.print(Text.assemble(("  lost      ", "dim"), f"{words.plural(len(lost), 'attempt')}: {names}"))
    after = f"{crash.healed - crash.at:.1f}s later" if crash.healed else "later"
    alone = ", each alone in a process" if again and all(a.isolated for a in again) else ""
    text = f"{after} a new worker took over; {words.plural(len(again), 'step')} ran again{alone}"
    console.print(Text.assemble(("  recovered ", "dim"), text))
    failed = [a for tries in story.attempts.values() for a in tries if a.outcome == "failed"]
    if failed:
        text = f"{failed[0].step} failed once, on purpose, and was retried"
        console.print(Text.assemble(("  retried   ", "dim"), text))


def _tell_next(console: Console, story: Story) -> None:
    short = words.short_id(story.info.id)
    lost = story.lost()
    seq = next((r.seq for r in story.events if r.event.kind == "lease_lost"), 2) if lost else 2
    steps = (
        (f"kairos show {short}", "the run on one page"),
        (f"kairos events {short}", "every fact, in order"),
        (f"kairos state {short} --at {seq - 1}", "the moment before the crash was noticed"),
        (f"kairos dev --app {short_path(str(example('orders.py')))}:app", "your own: start from this example"),
    )
    console.print()
    console.print("Try next", style="bold")
    width = max(len(command) for command, _ in steps)
    for command, what in steps:
        console.print(Text.assemble("  ", (command.ljust(width), "cyan"), (f"  {what}", "dim")))
