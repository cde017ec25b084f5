"""`kairos import`: the run of a bundle into the database of this place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.database import PATIENCE
from kairos.cli.terminal import out, print_json, print_wrapped, safe
from kairos.database import Database
from kairos.domain.states import RunStatus
from kairos.replay.importing import Imported, import_bundle
from kairos.store.connect import Session

_SAID: Final = {
    "imported": "imported",
    "extended": "imported further: a shorter part of it was here",
    "known": "here already, with the same history; nothing was changed",
}


def import_file(name: str, *, url: str | None, as_json: bool) -> int:
    """Take the run in and say what that means."""

    async def work(dsn: str) -> Imported:
        session = Session(dsn, "kairos cli", patience=PATIENCE)
        try:
            return await import_bundle(session, Path(name))
        finally:
            await session.close()

    with Database(url).require_schema() as database:
        done = asyncio.run(work(database.dsn))
    if as_json:
        print_json(document(done))
    else:
        _print(done)
    return exits.OK


def document(done: Imported) -> dict[str, Any]:
    """What was done, as JSON."""
    return {
        "run_id": str(done.run_id),
        "workflow": done.workflow,
        "status": done.status,
        "events": done.events,
        "outcome": done.outcome,
    }


def _print(done: Imported) -> None:
    console = out()
    mark = "✓ " if words.has_shapes() else ""
    head = Text.assemble(
        (f"{mark}{_SAID[done.outcome]}", "green"), "  ", safe(done.workflow), " ", (str(done.run_id), "cyan")
    )
    console.print(head, soft_wrap=True)
    facts = f"{done.status}, {words.plural(done.events, 'event')}; history checked"
    console.print(facts, style="dim")
    if not RunStatus(done.status).is_terminal and done.outcome != "known":
        print_wrapped(
            console, Text("It had not ended. Here it is evidence: no worker takes it up, and it never ends.", "yellow")
        )
