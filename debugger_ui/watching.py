"""One look at the database for all live pages of this process.

While somebody watches, the heads of all watched runs are read in one statement, every `EVERY` seconds or at once when
a NOTIFY tells that runs have moved. Who watches gets no events pushed: it is woken, and takes what is new from the
history that all viewers of a run share. So a slow or vanished viewer costs a position and nothing more, and a lost
NOTIFY costs a fraction of a second and never an event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from debugger_ui.reads import Reads
from kairos.store.connect import backoff
from kairos.store.listener import listen

log = logging.getLogger("kairos.ui")

EVERY: Final = 0.15
PAUSE: Final = 0.03
"""Seconds between two looks at least, however many hints come."""
MAX_VIEWERS: Final = 1_000
CHANNELS: Final = ("kairos_run", "kairos_task")


class Watcher:
    """Wakes viewers when their run has moved."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._viewers: dict[UUID, dict[asyncio.Event, int]] = {}
        self._hint = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_open = True
        self.trouble: str | None = None

    @property
    def viewers(self) -> int:
        """How many watch."""
        return sum(len(events) for events in self._viewers.values())

    @property
    def is_open(self) -> bool:
        """Whether streams may go on."""
        return self._is_open

    @contextmanager
    def watch(self, run_id: UUID, seq: int) -> Iterator[asyncio.Event]:
        """An event that is set whenever the run has come further than `seq` was when the watching began."""
        wake = asyncio.Event()
        self._viewers.setdefault(run_id, {})[wake] = seq
        self._start()
        try:
            yield wake
        finally:
            left = self._viewers.get(run_id, {})
            left.pop(wake, None)
            if not left:
                self._viewers.pop(run_id, None)

    def seen(self, run_id: UUID, wake: asyncio.Event, seq: int) -> None:
        """A viewer has everything up to `seq`."""
        if wake in self._viewers.get(run_id, {}):
            self._viewers[run_id][wake] = seq

    async def close(self) -> None:
        """Wake everybody for the last time, and end."""
        self._is_open = False
        self._wake_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self) -> None:
        """Tell the streams to end."""
        self._is_open = False
        self._wake_all()

    def _wake_all(self) -> None:
        for events in self._viewers.values():
            for wake in events:
                wake.set()

    def _start(self) -> None:
        if not self._tasks and self._is_open:
            self._tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._listen())]

    async def _listen(self) -> None:
        while True:
            try:
                await listen(self._reads.dsn, "kairos ui", CHANNELS, lambda *_: self._hint.set(), self._hint.set)
            except Exception as exc:
                log.warning("the debugger does without NOTIFY: %s", str(exc).splitlines()[0] if str(exc) else exc)
                await asyncio.sleep(30)

    async def _look(self) -> None:
        tries = 0
        while True:
            try:
                async with asyncio.timeout(EVERY):
                    await self._hint.wait()
            except TimeoutError:
                pass
            self._hint.clear()
            if not self._viewers:
                continue
            try:
                async with self._reads.reader() as reader:
                    heads = await reader.heads(self._viewers)
            except Exception as exc:
                # Whatever it is, it must not end the watching: viewers would wait for ever, and look alive.
                self.trouble, tries = str(exc), tries + 1
                log.info("the debugger cannot look for news, try %s: %r", tries, exc)
                await asyncio.sleep(backoff(tries))
                continue
            self.trouble, tries = None, 0
            for run_id, events in self._viewers.items():
                last = heads.get(run_id, (None, None))[0]
                for wake, seq in events.items():
                    # A run that is gone wakes its viewers too: they find out, and end.
                    if last is None or last > seq:
                        wake.set()
            await asyncio.sleep(PAUSE)
