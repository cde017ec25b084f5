"""`kairos dev`: database, worker and debugger in one terminal; a changed Python file replaces the worker."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final
from uuid import UUID

from rich.console import Console
from rich.text import Text
from watchfiles import awatch

from debugger_ui.serving import STOP_WITHIN, Address, Server, open_socket, url_of
from kairos import settings
from kairos.cli import words
from kairos.cli.apps import AppChoice, find_source, require_app
from kairos.cli.configuration import mask
from kairos.cli.failures import short_path
from kairos.cli.reloading import Sources, left_behind
from kairos.cli.terminal import err, one_line
from kairos.cli.workers import worker_options
from kairos.database import Database
from kairos.engine import logs
from kairos.engine.processes import Child, Plan, Supervisor
from kairos.store.connect import Session
from kairos.store.listener import listen
from kairos.store.reader import Reader, RunInfo

DRAIN: Final = 3.0
"""Seconds that running steps get at a reload: nobody wants to wait for them, and nothing is lost."""
MAX_NAMED: Final = 4


def develop(
    *, app: str | None, concurrency: int | None, queues: str | None, url: str | None, with_ui: bool = True
) -> int:
    """Run until Ctrl-C."""
    choice = require_app(app)
    options = worker_options(concurrency=concurrency, queues=queues)
    if queues is None and "KAIROS_QUEUES" not in os.environ:
        options = replace(options, queues=())
    if "KAIROS_DRAIN_TIMEOUT" not in os.environ:
        options = replace(options, drain_timeout=DRAIN)
    level = settings.read("log_level")
    # At `info` workers tell of their own comings and goings, which here are announced by this process.
    shown = "WARNING" if level == "INFO" else level
    logs.configure("text", shown)
    console = err()
    sources = Sources(find_source(choice))
    with _alone_in(Path.cwd()) as is_alone, Database(url).require_schema() as database:
        listening = open_socket(Address()) if with_ui else None
        _greet(console, choice, database, sources, None if listening is None else url_of(listening))
        if not is_alone:
            text = "another `kairos dev` runs in this folder: on one database, either may take a run"
            say(console, "notice", text, "yellow")
        plan = Plan(choice.spec, database.dsn, options, log_level=shown, hold_fd=database.hold_fd)
        return asyncio.run(_develop(plan, sources, console, listening))


async def _develop(plan: Plan, sources: Sources, console: Console, listening: socket.socket | None) -> int:
    session = Session(plan.dsn, "kairos dev", patience=None)
    reader = Reader(session)
    names: set[str] = set()
    beside: set[asyncio.Task[None]] = set()

    def on_ready(child: Child) -> None:
        listed = ", ".join(one_line(name) for name in child.workflows) or "no workflow yet"
        say(console, "ready", f"{listed}  (queues: {', '.join(child.queues)})", "green")
        sources.learn(child.sources)
        names.update(child.workflows)
        beside.add(asyncio.create_task(_tell_left_behind(reader, names, console)))

    def on_drain(child: Child) -> None:
        if child.draining:
            steps = [one_line(step) for step in child.draining]
            more = f" and {len(steps) - MAX_NAMED} more" if len(steps) > MAX_NAMED else ""
            say(console, "waits", f"for {', '.join(steps[:MAX_NAMED])}{more}", "yellow")

    supervisor = Supervisor(plan, waits_for_change=True, on_ready=on_ready, on_drain=on_drain)
    beside |= {
        asyncio.create_task(_reload_on_change(supervisor, sources, console)),
        asyncio.create_task(_announce_endings(reader, console, None if listening is None else url_of(listening))),
        asyncio.create_task(_announce_drain(supervisor, console)),
    }
    try:
        async with _debugger(plan.dsn, listening):
            return await supervisor.run()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await session.close()


@asynccontextmanager
async def _debugger(dsn: str, listening: socket.socket | None) -> AsyncIterator[None]:
    """The debugger, for the length of the block."""
    if listening is None:
        yield
        return
    server = Server(Address(), dsn, listening)
    serving = asyncio.create_task(server.run_until_told())
    try:
        yield
    finally:
        server.stop()
        await asyncio.wait([serving], timeout=STOP_WITHIN + 2)
        listening.close()


async def _announce_drain(supervisor: Supervisor, console: Console) -> None:
    await supervisor.stopping.wait()
    seconds = f"{supervisor.plan.options.drain_timeout:g}s"
    text = f"running steps get {seconds} to end, then go back to the queue; Ctrl-C again stops at once"
    say(console, "stopping", text, "cyan")


async def _tell_left_behind(reader: Reader, names: Iterable[str], console: Console) -> None:
    for left in await left_behind(reader, names):
        text = f"{words.plural(left.runs, 'run')} of {one_line(left.workflow)} for version {left.fingerprint[:8]}"
        say(console, "waiting", f"{text}, which this source is not: undo the change, or `kairos cancel` them", "yellow")


@contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Whether no other `kairos dev` was started in this folder and still runs."""
    fd = os.open(folder, os.O_RDONLY)
    is_alone = True
    try:
        # A lock on the folder itself leaves no file behind, and goes with the process.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        is_alone = False
    except OSError:
        pass  # a file system without locks: nothing can be said
    try:
        yield is_alone
    finally:
        os.close(fd)


def _greet(console: Console, choice: AppChoice, database: Database, sources: Sources, debugger: str | None) -> None:
    where = (
        f"embedded PostgreSQL in {short_path(str(settings.read('data_dir')))}"
        if database.is_embedded
        else mask(database.dsn)
    )
    console.print(Text.assemble(("kairos dev", "bold"), ("   Ctrl-C stops", "dim")))
    console.print(Text.assemble(("  app       ", "dim"), short_path(choice.spec), (f"  from {choice.source}", "dim")))
    console.print(Text.assemble(("  database  ", "dim"), where))
    what = "the package's modules" if sources.is_package else "the modules that the app has loaded"
    console.print(Text.assemble(("  watching  ", "dim"), short_path(str(sources.folder)), (f"  {what}", "dim")))
    if debugger is not None:
        console.print(Text.assemble(("  debugger  ", "dim"), (debugger, "cyan")))
    console.print(Text.assemble(("  try       ", "dim"), "kairos run WORKFLOW --wait   (in another terminal)"))
    console.print()


def say(console: Console, what: str, text: str | Text, style: str = "") -> None:
    """`12:03:27  ready     ...`."""
    at = words.now().astimezone().strftime("%H:%M:%S")
    console.print(Text.assemble((f"{at}  ", "dim"), (f"{what:<9} ", style), text), soft_wrap=True)


async def _reload_on_change(supervisor: Supervisor, sources: Sources, console: Console) -> None:
    async for changes in awatch(sources.folder, watch_filter=sources, stop_event=supervisor.stopping, debounce=400):
        names = sorted({short_path(path) for _, path in changes})
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        say(console, "changed", f"{', '.join(names[:3])}{more}: reloading", "cyan")
        sources.forget()
        supervisor.restart()


async def _announce_endings(reader: Reader, console: Console, debugger: str | None) -> None:
    """One line for every run that ends, whoever started it."""
    dsn = reader.session.dsn
    ended: asyncio.Queue[str] = asyncio.Queue()
    listener = asyncio.create_task(
        listen(dsn, "kairos dev", ["kairos_run"], lambda channel, payload: ended.put_nowait(payload), lambda: None)
    )
    try:
        while True:
            payload = await ended.get()
            if payload == "*":
                say(console, "runs", "many runs have ended", "dim")
                continue
            found = await reader.runs(UUID(text) for text in payload.split(",") if text)
            for info in found.values():
                _announce(console, info, debugger)
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


def _announce(console: Console, info: RunInfo, debugger: str | None) -> None:
    short = words.short_id(info.id)
    text = Text(f"{one_line(info.workflow)} {short} in {words.took(words.span(info.created_at, info.ended_at))}")
    if info.reason:
        look = f"kairos show {short}" if debugger is None else f"{debugger}/runs/{info.id}"
        text.append(f"  {one_line(info.reason)}").append(f"   {look}", "dim")
    say(console, info.status.lower(), text, words.style_of(info.status))
