"""Reads many runs out of the database into files, a few ahead of who replays them, in a thread of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from kairos.errors import DatabaseUnavailable, KairosError
from kairos.replay.bundle import export_bundle, open_bundle
from kairos.replay.record import RunRecord
from kairos.store.connect import Session
from kairos.store.reader import Reader

AHEAD: Final = 8
"""Runs that are read before they are wanted: enough to hide the database, few enough for the disk."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """One run: its file and what is in it, or why it cannot be read."""

    run_id: UUID
    path: Path
    record: RunRecord | None = None
    problem: str = ""


def fetch(session: Callable[[], Session], ids: Sequence[UUID], folder: Path) -> Generator[Fetched]:
    """Each run in turn. Its file is removed when the next is asked for.

    Args:
        session: makes one, for the thread that reads.
        folder: where the files are written.

    Raises:
        DatabaseUnavailable: the database went away.
    """
    ready: queue.Queue[Fetched | BaseException | None] = queue.Queue(AHEAD)
    stop = threading.Event()

    def put(item: Fetched | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            asyncio.run(_fetch(session, ids, folder, lambda item: asyncio.to_thread(put, item), stop))
        except BaseException as exc:
            put(exc)
        else:
            put(None)

    thread = threading.Thread(target=work, name="kairos-fetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            item.path.unlink(missing_ok=True)
    finally:
        stop.set()
        thread.join()


async def _fetch(
    make_session: Callable[[], Session], ids: Sequence[UUID], folder: Path,
    put: Callable[[Fetched], Awaitable[None]], stop: threading.Event,
) -> None:  # fmt: skip
    session = make_session()
    try:
        reader = Reader(session)
        for run_id in ids:
            if stop.is_set():
                return
            await put(await _one(reader, run_id, folder / f"{run_id}.kairos"))
    finally:
        await session.close()


async def _one(reader: Reader, run_id: UUID, path: Path) -> Fetched:
    try:
        await export_bundle(reader, run_id, path)
        record = open_bundle(path)
        _ = record.history  # decoded here, so that the thread that replays does not wait for it
    except DatabaseUnavailable:
        raise
    except KairosError as exc:
        return Fetched(run_id, path, problem=exc.message)
    return Fetched(run_id, path, record)
