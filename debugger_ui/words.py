"""How moments, lengths, sizes, ids and statuses are written on pages. One place, so that all pages agree."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kairos.domain.duration import format_duration

_UNIX: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

LOST: Final[Mapping[str, str]] = {
    "worker_lost": "the worker fell silent",
    "crashed": "the process crashed",
    "released": "given back by the worker",
}
STEP_MEANS: Final[Mapping[str, str]] = {
    "PENDING": "waits for the steps before it",
    "SCHEDULED": "ready: waits for a free slot of a worker",
    "RUNNING": "an attempt is under way",
    "WAITING": "parked inside the step",
    "DONE": "its output is committed",
    "FAILED": "the last attempt failed; the next one waits for its backoff",
    "DEAD": "no further attempt is made",
    "EXPIRED": "its time to live closed before a worker took it",
    "SKIPPED": "left out on purpose",
    "CANCELLED": "its run was cancelled",
}
EXAMPLE: Final = """\
cat > hello.py <<'END'
import kairos

app = kairos.App("hello")
greet = app.workflow("greet", input=dict)

@greet.step
def look_up(input: dict) -> str:
    return input["name"].title()

@greet.step
def say(look_up: str) -> str:
    return f"Hello, {look_up}!"
END
kairos run greet --app hello:app --input '{"name": "ada"}'
kairos worker --app hello:app
"""
"""What can be pasted into a terminal where there are no runs yet."""


def micros(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - _UNIX) // _MICROSECOND


def one_line(text: str, limit: int = 200) -> str:
    """Text without line breaks and control characters, cut at `limit`."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text[: limit * 4]).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def clock(at: datetime | None) -> str:
    """`2026-07-17 12:03:27.204`, UTC."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}"


def day_time(at: datetime) -> str:
    """`17 Jul 12:03`, UTC: for lists."""
    return f"{at.astimezone(UTC):%d %b %H:%M:%S}"


def iso(at: datetime) -> str:
    """For `<time datetime>`."""
    return at.astimezone(UTC).isoformat()


def took(length: timedelta | None) -> str:
    """A length of time to three digits, or nothing."""
    return "" if length is None else format_duration(max(length, timedelta())).replace("us", "µs")


def took_us(length: int | None) -> str:
    """As `took`, of microseconds."""
    return "" if length is None else took(timedelta(microseconds=length))


def offset(at: datetime, begin: datetime) -> str:
    """`+3.217s`, `+4:07.1`, `+2:04:07`: how far into the run."""
    seconds = max((at - begin).total_seconds(), 0.0)
    if seconds < 59.9995:
        return f"+{seconds:.3f}s"
    tenths = int(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    if minutes < 60:
        return f"+{minutes}:{rest // 10:02d}.{rest % 10}"
    return f"+{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}"


def ago(at: datetime | None, now: datetime) -> str:
    """`3m ago`, coarse."""
    if at is None:
        return ""
    seconds = (now - at).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if abs(seconds) >= 2 * size:
            text = f"{int(abs(seconds) // size)}{unit}"
            break
    else:
        text = f"{int(abs(seconds))}s"
    if abs(seconds) < 1:
        return "now"
    return f"{text} ago" if seconds > 0 else f"in {text}"


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


def share(part: float) -> str:
    """`97.5%`; never 100% or 0% of what is not all or nothing."""
    if part in (0.0, 1.0):
        return f"{part:.0%}"
    return f"{min(max(part * 100, 0.1), 99.9):.1f}%"


def by_value(counts: Mapping[Any, int]) -> dict[str, int]:
    """Counts by the names of statuses."""
    return {status.value: count for status, count in counts.items()}


def short_id(run_id: object) -> str:
    """The last 8 digits: ids made in the same second begin alike, but they do not end alike."""
    return str(run_id)[-8:]


def kind_words(kind: str) -> str:
    """`step_done` as `step done`."""
    return kind.replace("_", " ")


def now() -> datetime:
    """The time of this machine, for ages."""
    return datetime.now(UTC)
