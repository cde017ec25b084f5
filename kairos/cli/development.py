"""`kairos dev`: database and worker in one terminal; a changed Python file replaces the worker."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Final
from uuid import UUID

from rich.console import Console
from rich.text import Text
from watchfiles import Change, DefaultFilter, awatch

from kairos import settings
from kairos.cli import words
from kairos.cli.apps import AppChoice, require_app
from kairos.cli.configuration import mask
from kairos.cli.failures import short_path
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


class SourceFilter(DefaultFilter):
    """Python files, outside virtual environments, caches and our own data."""

    ignore_dirs = (*DefaultFilter.ignore_dirs, ".kairos", "venv", "dist", "build")

    def __call__(self, change: Change, path: str) -> bool:
        """Whether a change of this file matters."""
        return path.endswith(".py") and super().__call__(change, path)


def develop(*, app: str | None, concurrency: int | None, queues: str | None, url: str | None) -> int:
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
    with Database(url).require_schema() as database:
        _greet(console, choice, database)
        plan = Plan(choice.spec, database.dsn, options, log_level=shown, hold_fd=database.hold_fd)
        return asyncio.run(_develop(plan, console))


async def _develop(plan: Plan, console: Console) -> int:
    def on_ready(child: Child) -> None:
        names = ", ".join(one_line(name) for name in child.workflows) or "no workflow yet"
        say(console, "ready", f"{names}  (queues: {', '.join(child.queues)})", "green")

    supervisor = Supervisor(plan, waits_for_change=True, on_ready=on_ready)
    beside = [
        asyncio.create_task(_reload_on_change(supervisor, console)),
        asyncio.create_task(_announce_endings(plan.dsn, console)),
    ]
    try:
        return await supervisor.run()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


def _greet(console: Console, choice: AppChoice, database: Database) -> None:
    where = (
        f"embedded PostgreSQL in {short_path(str(settings.read('data_dir')))}"
        if database.is_embedded
        else mask(database.dsn)
    )
    console.print(Text.assemble(("kairos dev", "bold"), ("   Ctrl-C stops", "dim")))
    console.print(Text.assemble(("  app       ", "dim"), short_path(choice.spec), (f"  from {choice.source}", "dim")))
    console.print(Text.assemble(("  database  ", "dim"), where))
    console.print(Text.assemble(("  watching  ", "dim"), "Python files in this folder"))
    console.print(Text.assemble(("  try       ", "dim"), "kairos run WORKFLOW --wait   (in another terminal)"))
    console.print()


def say(console: Console, what: str, text: str | Text, style: str = "") -> None:
    """`12:03:27  ready     ...`."""
    at = words.now().astimezone().strftime("%H:%M:%S")
    console.print(Text.assemble((f"{at}  ", "dim"), (f"{what:<9} ", style), text), soft_wrap=True)


async def _reload_on_change(supervisor: Supervisor, console: Console) -> None:
    async for changes in awatch(Path.cwd(), watch_filter=SourceFilter(), stop_event=supervisor.stopping, debounce=400):
        names = sorted({short_path(path) for _, path in changes})
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        say(console, "changed", f"{', '.join(names[:3])}{more}: reloading", "cyan")
        supervisor.restart()


async def _announce_endings(dsn: str, console: Console) -> None:
    """One line for every run that ends, whoever started it."""
    session = Session(dsn, "kairos dev", patience=None)
    reader = Reader(session)
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
                _announce(console, info)
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        await session.close()


def _announce(console: Console, info: RunInfo) -> None:
    short = words.short_id(info.id)
    text = Text(f"{one_line(info.workflow)} {short} in {words.took(words.span(info.created_at, info.ended_at))}")
    if info.reason:
        text.append(f"  {one_line(info.reason)}").append(f"   kairos show {short}", "dim")
    say(console, info.status.lower(), text, words.style_of(info.status))
