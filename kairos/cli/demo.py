"""`kairos demo`: a real workflow on a real Postgres, its worker killed in the middle, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from kairos import settings
from kairos.authoring.loading import load_app
from kairos.cli import words
from kairos.cli.live import draw, follow, print_fresh
from kairos.cli.moral import Crash, conclude, example, obituary
from kairos.cli.story import Story, begin_story
from kairos.cli.terminal import is_live, out
from kairos.cli.waiting import read_ending
from kairos.client import AsyncClient
from kairos.database import Database
from kairos.domain.states import StepStatus
from kairos.engine import logs
from kairos.engine.processes import Plan, Supervisor
from kairos.errors import KairosError
from kairos.settings import WorkerOptions
from kairos.store.connect import Session
from kairos.store.reader import Reader

PATIENCE: Final = 120.0
SLOTS: Final = 4
"""Fewer than there are shards, so that at the moment of the kill some are done and some are not."""


def run_demo(*, url: str | None) -> int:
    """Play it. 0 when the run ended well and its history is whole."""
    console = out()
    spec = f"{example('census.py')}:app"
    what = "  a survey of Python's standard library, as a DAG of steps"
    console.print(Text.assemble(("kairos demo", "bold"), (what, "dim")))
    console.print()
    began = time.monotonic()
    with Database(url).require_schema() as database:
        _tell_database(console, database, time.monotonic() - began)
        return asyncio.run(_play(console, database, spec))


def _tell_database(console: Console, database: Database, seconds: float) -> None:
    from kairos import embedded

    if not database.is_embedded:
        console.print("  database  the one of KAIROS_DATABASE_URL")
        return
    folder: Path = settings.read("data_dir")
    version = embedded.status(folder.resolve()).version
    ready = (f"  ready in {seconds:.1f}s", "dim")
    console.print(Text.assemble(("  database  ", "dim"), f"PostgreSQL {version} in {folder}", ready))


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
        return await conclude(console, reader, story, ending, crash, PATIENCE)
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


class Executioner:
    """Kills the worker once, as soon as some shards are done while others are running."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.crash: Crash | None = None

    def look(self, story: Story) -> Text | None:
        """Strike if it is time; the words for it, at that moment only."""
        if self.crash is not None:
            if self.crash.healed is None and story.lost():
                self.crash.healed = time.monotonic()
            return None
        running = story.state.steps_in(StepStatus.RUNNING)
        done = story.state.steps_in(StepStatus.DONE)
        child = next(iter(self._supervisor.children.values()), None)
        if child is None or len(running) < 2 or sum(name.startswith("parse") for name in done) < 2:
            return None
        os.kill(child.pid, signal.SIGKILL)
        self.crash = Crash(child.pid, running, len(done), time.monotonic())
        return obituary(self.crash)


async def _follow_and_kill(console: Console, reader: Reader, story: Story, supervisor: Supervisor) -> Crash | None:
    """Show the run as it goes, and have its worker killed in the middle."""
    executioner = Executioner(supervisor)

    def show_lines(story: Story, fresh: int) -> None:
        print_fresh(console, story, fresh)
        if words_of := executioner.look(story):
            console.print(words_of)

    if not is_live():
        await follow(reader, story, PATIENCE, show_lines)
        return executioner.crash
    with Live(console=console, auto_refresh=False) as live:

        def show(story: Story, fresh: int) -> None:
            words_of = executioner.look(story)
            live.update(draw(story, console, words.now()), refresh=words_of is None)
            if words_of is not None:
                live.console.print(words_of, Text(""), sep="\n")

        await follow(reader, story, PATIENCE, show)
    return executioner.crash
