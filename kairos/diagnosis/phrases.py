"""How a diagnosis writes names, moments and lengths of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from kairos.diagnosis.facts import WorkerFact
from kairos.domain.duration import format_duration

MAX_NAMES: Final = 4


def listed(names: Sequence[str], most: int = MAX_NAMES) -> str:
    """`a`, `a and b`, `a, b, c and 4 more`."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1] if names else "nothing")))


def named(workers: Sequence[WorkerFact]) -> str:
    """`worker a`, or `one of 3 workers`."""
    if len(workers) == 1:
        return f"worker {workers[0].name}"
    return f"one of {len(workers)} workers"


def until(at: datetime, now: datetime) -> str:
    """`12:03:27 (in 12s)`."""
    return f"{clock(at, now)} (in {format_duration(at - now)})" if at > now else clock(at, now)


def clock(at: datetime, now: datetime) -> str:
    """`12:03:27`, with the date if that is another day, in local time."""
    local = at.astimezone()
    return local.strftime("%H:%M:%S" if local.date() == now.astimezone().date() else "%Y-%m-%d %H:%M:%S")


def ago(at: datetime | None, now: datetime) -> str:
    """`12s ago`."""
    return "at an unknown time" if at is None else f"{format_duration(max(now - at, timedelta()))} ago"


def span(begin: datetime | None, end: datetime | None) -> str:
    """`4.2s`, or nothing when an end is not known."""
    return "" if begin is None or end is None else format_duration(end - begin)
