"""Answers the effects of a replayed step from the record, and keeps account of what did not fit."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import TYPE_CHECKING

from kairos.authoring.effects import SETTLED, Effect, done, is_same
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import EffectRecorded
from kairos.domain.payload import Payload
from kairos.replay.facts import Attempt, EffectKey, StepFacts
from kairos.replay.messages import EffectUse

if TYPE_CHECKING:
    from kairos.authoring.context import StepContext

_SERVED = "served from the record, which holds the type and the message of an error, and no other attribute"


class ReplayJournal:
    """The effects of one replayed attempt.

    They are answered with what that attempt was answered: successes of earlier attempts, then its own, errors too.
    What is asked for beyond that happens, under the guards, and is counted.

    Args:
        bytes_of: gives the bytes of a recorded value.
        is_live: nothing is answered, everything happens.
        on_extra: is told of an effect that the record does not have, before it happens.
    """

    def __init__(
        self,
        facts: StepFacts,
        attempt: Attempt | None,
        bytes_of: Callable[[Payload], bytes],
        *,
        is_live: bool = False,
        on_extra: Callable[[str], None] | None = None,
    ) -> None:
        self.ctx: StepContext | None = None
        self._bytes_of = bytes_of
        self._answers: dict[EffectKey, deque[EffectRecorded]] = {}
        self._own: dict[EffectKey, int] = {}
        self._served = 0
        self._extra: list[str] = []
        self._raising = False
        self._on_extra = on_extra
        if attempt is not None and not is_live:
            for recorded in facts.effects_before(attempt):
                self._answers[recorded.name, recorded.ordinal] = deque([recorded])
            for recorded in attempt.effects:
                key = recorded.name, recorded.ordinal
                self._own[key] = self._own.get(key, 0) + 1
                if self._own[key] == 1:
                    self._answers[key] = deque()
                self._answers[key].append(recorded)

    def recall(self, asked: Effect) -> EffectRecorded | None:
        """The next answer to this effect. Raises what the effect raised then."""
        answers = self._answers.get((asked.name, asked.ordinal))
        if not answers:
            if self._on_extra is not None:
                self._on_extra(f"{asked.name} #{asked.ordinal}")
            return None
        recorded = answers.popleft()
        self._served += 1
        key = recorded.name, recorded.ordinal
        if self._own.get(key):
            self._own[key] -= 1
        if recorded.error is None:
            return recorded
        assert self.ctx is not None
        if not is_same(asked, recorded):
            arguments = recorded.arguments
            self.ctx.effects.refuse(asked, recorded, b"" if arguments is None else self._bytes_of(arguments))
        error = rebuild(recorded.error)
        self._raising = True
        self.ctx.effects.failed(asked, error, time.perf_counter_ns())  # so that a repeated call keeps its ordinal
        self._raising = False
        raise error

    def recorded(self) -> Collection[EffectRecorded]:
        """Everything that is left to be recalled."""
        return [e for answers in self._answers.values() for e in answers if e.error is None]

    def fetch(self, payload: Payload) -> Future[bytes]:
        """The bytes of a recorded value."""
        return done(self._bytes_of(payload))

    def record(self, effect: Effect) -> None:
        """Count what happened just now."""
        if not self._raising:
            self._extra.append(f"{effect.name} #{effect.ordinal}")

    def settle(self) -> Future[None]:
        """At once: nothing is kept."""
        return SETTLED

    def use(self) -> EffectUse:
        """What came of it."""
        missing = [f"{name} #{ordinal}" for (name, ordinal), left in self._own.items() if left]
        mismatch = self.ctx.mismatch if self.ctx is not None else None
        return EffectUse(
            served=self._served,
            missing=tuple(missing),
            extra=tuple(self._extra),
            mismatch="" if mismatch is None else mismatch.message,
        )


def rebuild(error: ErrorInfo) -> Exception:
    """An exception of the recorded type and message; of a class made for the purpose if the type is not at hand."""
    kind = _find(error.type)
    found: Exception | None = None
    if kind is not None:
        try:
            found = kind.__new__(kind)
            found.args = (error.message,)
            if str(found) != error.message:
                found = kind(error.message)
        except Exception:
            found = None
    if found is None:
        module, _, name = error.type.rpartition(".")
        found = type(name, (Exception,), {"__module__": module, "__qualname__": name})(error.message)
    found.add_note(_SERVED)
    return found


def _find(name: str) -> type[Exception] | None:
    module, _, rest = name.rpartition(".")
    path = [rest]
    while module and module not in sys.modules:
        module, _, rest = module.rpartition(".")
        path.insert(0, rest)
    found: object = sys.modules.get(module)
    for part in path:
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None
