"""A run as one file: what `kairos export` writes, sent to the browser."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Final
from uuid import UUID

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from debugger_ui import words
from debugger_ui.histories import History
from debugger_ui.pages.acting import must_be_stored
from debugger_ui.pages.run import load
from debugger_ui.reads import PATIENCE
from kairos.domain.payload import Payload
from kairos.errors import InvalidArgument
from kairos.replay.bundle import SUFFIX, export_bundle
from kairos.store.connect import Session
from kairos.store.proof import payloads_of
from kairos.store.reader import Reader

MAX_BYTES: Final = 500_000_000
"""Bytes of values up to which a run is sent from here."""


async def bundle(request: Request) -> Response:
    """The bundle. It is written to a private folder first, which is removed when it has been sent."""
    ui, history = await load(request)
    must_be_stored(ui)
    size = await asyncio.to_thread(_size, history)
    if size > MAX_BYTES:
        raise InvalidArgument(
            f"the values of this run are {words.size(size)} long: too long to be sent from here",
            hint=f"`kairos export {history.run_id}` writes them to a file.",
        )
    folder = Path(tempfile.mkdtemp(prefix="kairos-bundle-"))
    path = folder / f"run{SUFFIX}"
    try:
        async with ui.packing:
            # Packing is work for the processor: in a thread, with a connection of its own, others go on.
            await asyncio.to_thread(lambda: asyncio.run(_write(ui.reads.dsn, history.run_id, path)))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    name = f"{history.definition.workflow}-{words.short_id(history.run_id)}{SUFFIX}"
    return FileResponse(
        path,
        media_type="application/octet-stream",
        filename=name,
        background=BackgroundTask(shutil.rmtree, folder, ignore_errors=True),
    )


async def _write(dsn: str, run_id: UUID, path: Path) -> None:
    session = Session(dsn, "kairos ui", patience=PATIENCE, default_transaction_read_only="on")
    try:
        await export_bundle(Reader(session), run_id, path)
    finally:
        await session.close()


def _size(history: History) -> int:
    found: dict[str, Payload] = {}
    for entry in history.entries:
        if entry.recorded is not None:
            found |= {payload.digest: payload for payload in payloads_of(entry.recorded.event)}
    return sum(payload.size for payload in found.values())
