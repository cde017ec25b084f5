"""Waits for runs to end: one listening connection per client as the hint, one query for all as the truth."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from uuid import UUID

from kairos.errors import RunNotFound
from kairos.store.listener import listen
from kairos.store.reader import Reader, RunInfo

LOOK_EVERY = 0.5
"""Longest pause in seconds between looks at what is waited for."""


class Waiter:
    """Resolves futures when runs end."""

    def __init__(self, dsn: str, reader: Reader) -> None:
        self._dsn, self._reader = dsn, reader
        self._waiting: dict[UUID, list[asyncio.Future[RunInfo]]] = defaultdict(list)
        self._hints: set[UUID] = set()
        self._look = asyncio.Event()
        self._listening = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def wait(self, run_id: UUID) -> RunInfo:
        """The run once it has ended. Raises RunNotFound."""
        if not self._tasks:
            on_ready = self._on_ready
            self._tasks = [
                asyncio.create_task(listen(self._dsn, "kairos waiter", ["kairos_run"], self._on_notice, on_ready)),
                asyncio.create_task(self._watch()),
            ]
        future: asyncio.Future[RunInfo] = asyncio.get_running_loop().create_future()
        self._waiting[run_id].append(future)
        self._hints.add(run_id)
        self._look.set()
        try:
            return await future
        finally:
            if future in self._waiting.get(run_id, []):
                self._waiting[run_id].remove(future)
            if not self._waiting.get(run_id):
                self._waiting.pop(run_id, None)

    async def close(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def _on_ready(self) -> None:
        self._hints |= self._waiting.keys()
        self._look.set()

    def _on_notice(self, channel: str, payload: str) -> None:
        ids = set(self._waiting) if payload == "*" else {UUID(h) for h in payload.split(",") if h}
        found = ids & self._waiting.keys()
        if found:
            self._hints |= found
            self._look.set()

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY * random.uniform(0.6, 1.0)):
                    await self._look.wait()
            except TimeoutError:
                self._hints |= self._waiting.keys()
            self._look.clear()
            hints, self._hints = self._hints & self._waiting.keys(), set()
            if hints:
                try:
                    await self._check(hints)
                except Exception as exc:
                    self._fail(exc)

    async def _check(self, ids: set[UUID]) -> None:
        found = await self._reader.runs(ids)
        for run_id in ids:
            info = found.get(run_id)
            if info is not None and not info.status.is_terminal:
                continue
            for future in self._waiting.pop(run_id, []):
                if future.done():
                    continue
                if info is None:
                    future.set_exception(RunNotFound(f"there is no run {run_id}"))
                else:
                    future.set_result(info)

    def _fail(self, exc: Exception) -> None:
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(exc)
        self._waiting.clear()
