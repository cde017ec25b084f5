"""What many runs come to: counted aside, kept for some seconds, shared by all who look.

No page waits long for a count. A part that is not there in time is shown as it was last, or as being counted; the
work goes on, and the next look finds it. A statement that takes too long is ended by the database, and said so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from debugger_ui.reads import ASIDE_SECONDS, Reads, is_too_slow
from kairos.errors import DatabaseUnavailable, KairosError
from kairos.store.reader import Reader

PATIENCE: Final = 0.6
"""Seconds for which a page waits for its counts."""
AGAIN: Final = 60.0
"""Seconds after which a count that failed is tried again."""
MAX_PARTS: Final = 500


@dataclass(frozen=True, slots=True)
class Part:
    """One count. `at`: when it was done (`time.monotonic`); `problem`: why there is none."""

    value: Any
    at: float
    problem: str | None = None

    @property
    def age(self) -> float:
        """Seconds."""
        return time.monotonic() - self.at


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be counted: a name that says it all, how, and for how many seconds the answer is good."""

    name: str
    load: Callable[[Reader], Awaitable[Any]]
    good_for: float


class Board:
    """Counts, each under way at most once."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._parts: dict[str, Part] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def look(self, wishes: Mapping[str, Wish], patience: float = PATIENCE) -> dict[str, Part | None]:
        """The parts by name; None for one that is being counted for the first time.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        waiting = []
        for wish in wishes.values():
            part = self._parts.get(wish.name)
            if part is None or part.age >= (wish.good_for if part.problem is None else AGAIN):
                if wish.name not in self._tasks:
                    task = self._tasks[wish.name] = asyncio.create_task(self._count(wish))
                    # What fails when nobody waits any more is found by whoever looks next.
                    task.add_done_callback(lambda done: done.cancelled() or done.exception())
                waiting.append(self._tasks[wish.name])
        if waiting:
            done, _ = await asyncio.wait(waiting, timeout=patience)
            for task in done:
                task.result()
        return {key: self._parts.get(wish.name) for key, wish in wishes.items()}

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _count(self, wish: Wish) -> None:
        try:
            async with self._reads.aside() as reader:
                value = await wish.load(reader)
            self._keep(wish.name, Part(value, time.monotonic()))
        except DatabaseUnavailable as exc:
            if not is_too_slow(exc):
                raise
            self._keep(wish.name, Part(None, time.monotonic(), f"Counting took longer than {ASIDE_SECONDS} seconds."))
        except KairosError as exc:
            self._keep(wish.name, Part(None, time.monotonic(), exc.message))
        finally:
            self._tasks.pop(wish.name, None)

    def _keep(self, name: str, part: Part) -> None:
        self._parts.pop(name, None)
        self._parts[name] = part
        while len(self._parts) > MAX_PARTS:
            self._parts.pop(next(iter(self._parts)))
