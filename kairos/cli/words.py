"""How moments, lengths of time, ids, sizes and statuses are written. One place, so that all pages agree."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from rich.text import Text

from kairos.domain.duration import format_duration
from kairos.domain.states import RunStatus, StepStatus

# Each status has a shape and a word; colour comes third, for those who see it.
_RUNS: Final = {
    RunStatus.SCHEDULED: ("○", "blue"),
    RunStatus.RUNNING: ("●", "cyan"),
    RunStatus.PAUSED: ("‖", "yellow"),
    RunStatus.DONE: ("✓", "green"),
    RunStatus.FAILED: ("✗", "red"),
    RunStatus.CANCELLED: ("⊘", "magenta"),
    RunStatus.EXPIRED: ("◇", "yellow"),
}
_STEPS: Final = {
    StepStatus.PENDING: ("·", "dim"),
    StepStatus.SCHEDULED: ("○", "blue"),
    StepStatus.RUNNING: ("●", "cyan"),
    StepStatus.WAITING: ("◔", "blue"),
    StepStatus.DONE: ("✓", "green"),
    StepStatus.FAILED: ("↻", "yellow"),
    StepStatus.DEAD: ("✗", "red"),
    StepStatus.EXPIRED: ("◇", "yellow"),
    StepStatus.SKIPPED: ("-", "dim"),
    StepStatus.CANCELLED: ("⊘", "magenta"),
}


def status_text(status: RunStatus | StepStatus) -> Text:
    """`✓ DONE`, coloured."""
    shape, style = _RUNS[status] if isinstance(status, RunStatus) else _STEPS[status]
    return Text(f"{shape} {status}" if has_shapes() else str(status), style)


def style_of(status: RunStatus | StepStatus) -> str:
    """The colour of a status."""
    return (_RUNS[status] if isinstance(status, RunStatus) else _STEPS[status])[1]


def has_shapes() -> bool:
    """Whether standard output can show more than ASCII."""
    return (sys.stdout.encoding or "utf-8").lower().startswith("utf")


def short_id(run_id: UUID | str) -> str:
    """The last 8 digits: ids made in the same second begin alike, but they do not end alike."""
    return str(run_id)[-8:]


def clock(at: datetime) -> str:
    """`2026-07-17 12:03:27`, in the time zone of the machine."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def time_of_day(at: datetime, now: datetime) -> str:
    """`12:03:27`, with the date if that is another day."""
    local = at.astimezone()
    is_today = local.date() == now.astimezone().date()
    return local.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S")


def ago(at: datetime, now: datetime) -> str:
    """`3m ago`, `in 12s`, `now`; coarse, for people."""
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    text = coarse(timedelta(seconds=abs(seconds)))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def coarse(length: timedelta) -> str:
    """A length of time in one unit: `12s`, `5m`, `3h`, `2d`."""
    seconds = length.total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def took(length: timedelta | None) -> str:
    """A length of time to three digits, or a dash."""
    return "-" if length is None else format_duration(max(length, timedelta()))


def span(begin: datetime | None, end: datetime | None) -> timedelta | None:
    """From `begin` to `end`, if both are known."""
    return None if begin is None or end is None else end - begin


def size(count: int) -> str:
    """`812 B`, `14.2 kB`, `3.1 MB`."""
    value, unit = float(count), "B"
    for bigger in ("kB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, bigger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def plural(count: int, noun: str) -> str:
    """`1 run`, `2 runs`, `1,204 events`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def now() -> datetime:
    """The time of this machine, for ages; what matters is decided by the clock of the database."""
    return datetime.now(UTC)
