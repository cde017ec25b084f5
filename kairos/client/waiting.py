"""Waits for runs to end: one listening connection per client as the hint, one query for all as the truth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID

from kairos.errors import RunNotFound
from kairos.store.listener import listen
from kairos.store.reader import Ended, Reader

LOOK_EVERY = 0.5
"""Longest pause in seconds between looks at what is waited for."""
REMEMBERED = 10_000
"""Ends that are remembered in case somebody will wait for them."""


@dataclass(slots=True)
class _Awaited:
    """A run that somebody waits for; `outputs`: whether any of them wants these too."""

    run_id: UUID
    outputs: bool = False
    futures: list[asyncio.Future[Ended]] = field(default_factory=list)


class Waiter:
    """Resolves futures when runs end.

    A run that was started while LISTEN was in force needs no look before its end is told. Should that get
    lost, the next look at everything finds it.
    """

    def __init__(self, dsn: str, reader: Reader) -> None:
        self._dsn, self._reader = dsn, reader
        self._awaited: dict[str, _Awaited] = {}
        self._hints: set[str] = set()
        self._look = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._heard: set[str] = set()
        self._heard_all_since = float("inf")

    async def wait(
        self, run_id: UUID, *, seconds: float | None = None, outputs: bool = False, since: float | None = None
    ) -> Ended:
        """The run once it has ended.

        Args:
            seconds: how long to wait.
            outputs: read what it returned as well, in the same round trip.
            since: `loop.time()` at which it did certainly not exist yet; None if that is not known.

        Raises:
            RunNotFound: it does not exist.
            TimeoutError: it has not ended in time.
        """
        loop = asyncio.get_running_loop()
        self._begin()
        name = run_id.hex
        future: asyncio.Future[Ended] = loop.create_future()
        awaited = self._awaited.setdefault(name, _Awaited(run_id))
        awaited.outputs |= outputs
        awaited.futures.append(future)
        if since is None or since < self._heard_all_since or name in self._heard:
            self._hint({name})
        timer = None if seconds is None else loop.call_later(seconds, _give_up, future)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            if self._awaited.get(name) is awaited:
                awaited.futures.remove(future)
                if not awaited.futures:
                    del self._awaited[name]

    async def close(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def _begin(self) -> None:
        if not self._tasks:
            listening = listen(self._dsn, "kairos waiter", ["kairos_run"], self._on_notice, self._look_at_all)
            self._tasks = [asyncio.create_task(listening), asyncio.create_task(self._watch())]

    def _hint(self, names: Collection[str]) -> None:
        self._hints.update(names)
        self._look.set()

    def _look_at_all(self) -> None:
        """Whatever ended until now may have been missed."""
        self._heard.clear()
        self._heard_all_since = asyncio.get_running_loop().time()
        self._hint(self._awaited)

    def _on_notice(self, channel: str, payload: str) -> None:
        names = set(payload.split(","))
        if "*" in names or len(self._heard) > REMEMBERED:
            self._look_at_all()
            return
        found = names & self._awaited.keys()
        self._heard |= names - found
        if found:
            self._hint(found)

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY * random.uniform(0.6, 1.0)):
                    await self._look.wait()
            except TimeoutError:
                self._hints |= self._awaited.keys()
            self._look.clear()
            hints, self._hints = self._hints, set()
            hinted = [self._awaited[name] for name in hints & self._awaited.keys()]
            try:
                for outputs in (True, False):
                    if run_ids := [awaited.run_id for awaited in hinted if awaited.outputs is outputs]:
                        self._resolve(await self._reader.ended(run_ids, outputs=outputs))
            except Exception as exc:
                self._fail(exc)

    def _resolve(self, found: dict[UUID, Ended | None]) -> None:
        for run_id, ended in found.items():
            awaited = self._awaited.pop(run_id.hex, None)
            for future in awaited.futures if awaited else ():
                if future.done():
                    continue
                if ended is None:
                    future.set_exception(RunNotFound(f"there is no run {run_id}", run_id=str(run_id)))
                else:
                    future.set_result(ended)

    def _fail(self, exc: Exception) -> None:
        for awaited in self._awaited.values():
            for future in awaited.futures:
                if not future.done():
                    future.set_exception(exc)
        self._awaited.clear()


def _give_up(future: asyncio.Future[Ended]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
