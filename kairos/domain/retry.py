"""When a failed attempt is tried again. Pure arithmetic: no clock, no dice; the roll is an argument."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any

from kairos.domain.duration import Duration, format_duration, parse_duration
from kairos.domain.keywords import checks_keywords
from kairos.errors import DefinitionError

ExceptionTypes = type[BaseException] | Iterable[type[BaseException]]


@checks_keywords
@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how soon a failed step is tried again.

    Attributes:
        attempts: how many attempts may *fail* before the step is DEAD; 1 means no retry. At least 1.
            Attempts lost to a dead or drained worker do not count.
        base: delay after the first failure; not longer than `cap`.
        factor: each further delay is this many times the one before. At least 1.
        cap: no delay is longer, jitter included.
        jitter: the delay is multiplied by a factor drawn evenly from [1 - jitter, 1 + jitter). 0 to 1.
        retry_on: only these exception types are retried (default: all).
        never_retry: these are never retried; it wins over `retry_on`.

    Raises:
        DefinitionError: a value outside its range, or `base` longer than `cap`.
    """

    attempts: int = 3
    base: Duration = "1s"
    factor: float = 2.0
    cap: Duration = "5m"
    jitter: float = 0.2
    retry_on: ExceptionTypes | None = field(default=None, compare=False)
    never_retry: ExceptionTypes | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise DefinitionError(
                f"Retry(attempts={self.attempts!r}): must be a whole number of at least 1",
                hint="attempts counts the first try too: attempts=3 retries twice, attempts=1 never.",
            )
        if not (isinstance(self.factor, int | float) and 1 <= self.factor < math.inf):
            raise DefinitionError(f"Retry(factor={self.factor!r}): must be a finite number, 1 or more")
        if not (isinstance(self.jitter, int | float) and 0 <= self.jitter <= 1):
            raise DefinitionError(f"Retry(jitter={self.jitter!r}): must be a number between 0 and 1")
        object.__setattr__(self, "base", parse_duration(self.base, what="Retry(base=...)"))
        object.__setattr__(self, "cap", parse_duration(self.cap, what="Retry(cap=...)"))
        if self.base_delay > self.cap_delay:
            base, cap = format_duration(self.base_delay), format_duration(self.cap_delay)
            raise DefinitionError(
                f"Retry(base={base!r}, cap={cap!r}): the first delay is longer than the longest one allowed",
                hint=f"Give a cap of at least the base: Retry(base={base!r}, cap={base!r}). The usual cap is 5m.",
            )
        for name in ("retry_on", "never_retry"):
            object.__setattr__(self, name, _exception_types(getattr(self, name), name))

    @property
    def base_delay(self) -> timedelta:
        """`base` as a timedelta."""
        return parse_duration(self.base)

    @property
    def cap_delay(self) -> timedelta:
        """`cap` as a timedelta."""
        return parse_duration(self.cap)

    def is_retryable(self, error: BaseException) -> bool:
        """Whether this exception may be tried again, attempts permitting."""
        if _matches(error, _types(self.never_retry)):
            return False
        only = _types(self.retry_on)
        return not only or _matches(error, only)

    def to_json(self) -> dict[str, Any]:
        """The policy as plain JSON, for the definition that is pinned to a run."""
        return {
            "attempts": self.attempts,
            "base_us": _micros(self.base_delay),
            "factor": float(self.factor),
            "cap_us": _micros(self.cap_delay),
            "jitter": float(self.jitter),
            "retry_on": [_name(t) for t in _types(self.retry_on)] or None,
            "never_retry": [_name(t) for t in _types(self.never_retry)] or None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Retry:
        """Rebuild a pinned policy. Exception types stay names: they live in code."""
        numbers = (data[key] for key in ("attempts", "base_us", "factor", "cap_us", "jitter"))
        return _pinned(*numbers, *(tuple(data.get(key) or ()) for key in ("retry_on", "never_retry")))

    def __str__(self) -> str:
        if self.attempts == 1:
            return "no retry"
        base, cap = format_duration(self.base_delay), format_duration(self.cap_delay)
        return f"{self.attempts} attempts, {base} x{self.factor:g} up to {cap}"


@lru_cache(maxsize=256)
def _pinned(
    attempts: int,
    base_us: int,
    factor: float,
    cap_us: int,
    jitter: float,
    only: tuple[str, ...],
    never: tuple[str, ...],
) -> Retry:
    """Thousands of steps of one workflow have the same policy: it is put together once."""
    base, cap = timedelta(microseconds=base_us), timedelta(microseconds=cap_us)
    policy = Retry(attempts, min(base, cap), factor, cap, jitter)
    # What a definition was stored with stays readable, whatever would be refused in a new one.
    object.__setattr__(policy, "base", base)
    object.__setattr__(policy, "retry_on", only or None)
    object.__setattr__(policy, "never_retry", never or None)
    return policy


def may_retry(policy: Retry, failures: int) -> bool:
    """Whether another attempt is allowed after `failures` failed ones (half-open: failures < attempts)."""
    return 0 <= failures < policy.attempts


def retry_delay(policy: Retry, failures: int, roll: float) -> timedelta:
    """The pause after the `failures`-th failure (counted from 1).

    Exponential backoff `base * factor**(failures - 1)`, times the jitter factor, capped last, so that
    `cap` is a true upper bound. `roll` is an even draw from [0, 1).
    """
    if failures < 1:
        raise ValueError("failures counts from 1")
    base, cap = policy.base_delay.total_seconds(), policy.cap_delay.total_seconds()
    try:
        raw = base * policy.factor ** (failures - 1)
    except OverflowError:
        raw = sys.float_info.max if base else 0.0
    return timedelta(seconds=min(cap, raw * (1 - policy.jitter + 2 * policy.jitter * roll)))


def within_retry_window(jobs: Sequence[int] | int, high: int) -> list[int]:
    """The slots of `jobs` that lie in the half-open window [0, high).

    `jobs` is a sequence of slot numbers, or a count n for the slots 0..n-1. The last slot of the window
    is high-1 and belongs to it; `high` itself does not.
    """
    slots = range(jobs) if isinstance(jobs, int) else jobs
    return [slot for slot in slots if 0 <= slot < high]


def _types(value: Any) -> tuple[type[BaseException] | str, ...]:
    return value if isinstance(value, tuple) else ()


def _matches(error: BaseException, kinds: tuple[type[BaseException] | str, ...]) -> bool:
    names = {_name(kind) for kind in type(error).__mro__} if kinds else set()
    return any(kind in names if isinstance(kind, str) else isinstance(error, kind) for kind in kinds)


def _exception_types(value: Any, name: str) -> tuple[type[BaseException], ...] | None:
    if value is None:
        return None
    many = isinstance(value, Iterable) and not isinstance(value, str | bytes | type)
    types = tuple(value) if many else (value,)
    for item in types:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise DefinitionError(
                f"Retry({name}=...) takes exception types, not {item!r}",
                hint=f"Write the class itself, without quotes: {name}=ValueError, or {name}=(OSError, KeyError).",
            )
    return types


def _name(kind: type | str) -> str:
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def _micros(value: timedelta) -> int:
    return value // timedelta(microseconds=1)


NO_RETRY = Retry(attempts=1)
"""One attempt, no more."""
