"""The effects of one attempt that this worker runs: each goes to the run's inbox, as log lines do, and whoever waits
for it is woken when the flush that holds it has committed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from kairos.authoring.context import StepCancelled
from kairos.authoring.effects import SETTLED, BasicJournal, Effect
from kairos.domain.commands import RecordEffect
from kairos.domain.events import EffectRecorded, StepStarted
from kairos.domain.payload import Payload

if TYPE_CHECKING:
    from kairos.errors import KairosError


class Desk(Protocol):
    """Where a journal hands in what it has. All of it may be called from any thread."""

    def put(self, command: RecordEffect) -> None:
        """Add to what the next append of the run holds."""

    def urge(self) -> None:
        """Somebody waits for what was put: append it now."""

    def fetch(self, payload: Payload) -> Future[bytes]:
        """Read a blob."""


class Journal(BasicJournal):
    """Counts what is recorded and what of it is durable: both happen in the same order."""

    def __init__(self, desk: Desk, event: StepStarted, earlier: Mapping[tuple[str, int], EffectRecorded] | None):
        super().__init__(earlier)
        self._desk, self._event = desk, event
        # Held while an effect is put, so that what counts first is put first; a desk that is closed says so at once.
        self._lock = threading.RLock()
        self._recorded = self._durable = 0
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._failure: Callable[[], BaseException] | None = None

    def fetch(self, payload: Payload) -> Future[bytes]:
        """The bytes of a blob, from the database."""
        return self._desk.fetch(payload)

    def record(self, effect: Effect) -> None:
        """Put it where the next flush finds it."""
        event, e = self._event, effect
        facts = e.name, e.ordinal, e.via, e.arguments, e.result, e.error, e.duration_us
        with self._lock:
            if self._failure is None:
                self._recorded += 1
                self._desk.put(RecordEffect(event.step, event.attempt, event.token, *facts))

    def settle(self) -> Future[None]:
        """Done when all that was recorded is committed."""
        future: Future[None] = Future()
        with self._lock:
            if self._failure is not None:
                future.set_exception(self._failure())
                return future
            if self._durable == self._recorded:
                return SETTLED
            self._waiting.append((self._recorded, future))
        self._desk.urge()
        return future

    def committed(self) -> None:
        """The next effect is durable."""
        ready = []
        with self._lock:
            self._durable += 1
            while self._waiting and self._waiting[0][0] <= self._durable:
                ready.append(self._waiting.popleft()[1])
        for future in ready:
            future.set_result(None)

    def close(self, reason: str) -> None:
        """The attempt is over, or its fence void: nothing more is taken, and who waits is stopped."""
        self._fail(lambda: StepCancelled(reason))

    def refuse(self, error: KairosError) -> None:
        """What was recorded cannot be stored: who waits gets `error`."""
        self._fail(lambda: type(error)(error.message, hint=error.hint))

    def _fail(self, failure: Callable[[], BaseException]) -> None:
        with self._lock:
            self._failure = self._failure or failure
            waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            future.set_exception(self._failure())
