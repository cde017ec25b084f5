"""Reads and writes durations: "250ms", "30s", "5m", "2h", "1d", numbers of seconds, timedeltas."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from kairos.errors import DefinitionError

Duration = str | int | float | timedelta
"""What the public API takes wherever it says duration. Plain numbers are seconds."""

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")
_LONGEST = timedelta(days=36500)


def parse_duration(value: Duration, *, what: str = "duration") -> timedelta:
    """Turn `value` into a timedelta.

    Raises:
        DefinitionError: not a duration, negative, or longer than a hundred years. `what` names it.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _bad(value, what)
    elif isinstance(value, str):
        seconds = _parse_text(value, what)
    else:
        seconds = float(value) if abs(value) <= _LONGEST.total_seconds() else math.inf
    if not math.isfinite(seconds) or seconds < 0 or seconds > _LONGEST.total_seconds():
        raise _bad(value, what)
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Write a timedelta for people: `850us`, `12ms`, `3.4s`, `5m 10s`, `2h 5m`, `3d 4h`."""
    seconds = value.total_seconds()
    if seconds < 0:
        return "-" + format_duration(-value)
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f}us"
    # Not at 1 and 60: what would be rounded up to them is shown in the next unit.
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.3g}s"
    whole = round(seconds)
    for big, big_unit, small, small_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= big:
            rest = whole % big // small
            return f"{whole // big}{big_unit} {rest}{small_unit}" if rest else f"{whole // big}{big_unit}"
    return f"{whole}s"


def _parse_text(text: str, what: str) -> float:
    compact = text.strip().lower().replace(" ", "")
    parts = _PART.findall(compact)
    if not parts or "".join(n + u for n, u in parts) != compact:
        raise _bad(text, what)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _bad(value: object, what: str) -> DefinitionError:
    return DefinitionError(
        f"{what} {value!r} is not a duration",
        hint='Write "250ms", "30s", "5m", "2h", "1d", "1h 30m", a number of seconds, or a timedelta.',
        value=value,
    )
