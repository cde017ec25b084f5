"""Checks the options of workflows, steps and jobs, so that a wrong one fails on the line that has it.

Knows types and ranges. Knows nothing of functions and their parameters.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import Any, Final, Literal

from kairos.domain.duration import Duration, parse_duration
from kairos.domain.ignoring import Ignore
from kairos.domain.names import check_name
from kairos.domain.retry import Retry
from kairos.errors import DefinitionError, InvalidArgument

LOWEST_PRIORITY, HIGHEST_PRIORITY = 1, 10


class _Unset(Enum):
    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset.UNSET
"""Not given, where None has a meaning of its own: `timeout=None` is "no limit"."""
MaybeDuration = Duration | None | Literal[_Unset.UNSET]


def check_queue(value: object, owner: str) -> str:
    """A queue name."""
    return check_name(value, f"{owner}: queue")


def check_priority(value: object, owner: str) -> int:
    """A whole number from 1 to 10; higher goes first."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise DefinitionError(f"{owner}: priority={_show(value)} is not a whole number")
    if not LOWEST_PRIORITY <= value <= HIGHEST_PRIORITY:
        raise DefinitionError(
            f"{owner}: priority={value} is out of range",
            hint=f"From {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, higher goes first; 5 is the usual one.",
        )
    return value


def check_retry(value: object, owner: str) -> Retry:
    """A `Retry`."""
    if not isinstance(value, Retry):
        raise DefinitionError(
            f"{owner}: retry={_show(value)} is not a kairos.Retry",
            hint="Write retry=kairos.Retry(attempts=5, base='1s'); attempts=1 means no retry.",
        )
    return value


def check_duration(value: Any, what: str, owner: str) -> timedelta:
    """A duration longer than nothing."""
    duration = parse_duration(value, what=f"{owner}: {what}")
    if not duration:
        raise DefinitionError(f"{owner}: {what}={_show(value)} leaves no time at all", hint="Leave it out instead.")
    return duration


def check_count(value: object, what: str, owner: str) -> int:
    """A whole number, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DefinitionError(f"{owner}: {what}={_show(value)} is not a whole number of at least 1")
    return value


def check_ignore(value: Any, owner: str) -> tuple[str, ...]:
    """Paths to leave out when outputs are compared."""
    try:
        return Ignore(value).rules
    except (InvalidArgument, TypeError) as exc:
        message, hint = (
            (exc.message, exc.hint) if isinstance(exc, InvalidArgument) else (f"{_show(value)} is no list", None)
        )
        raise DefinitionError(f"{owner}: replay_ignore: {message}", hint=hint) from None


def check_flag(value: object, what: str, owner: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise DefinitionError(f"{owner}: {what}={_show(value)} is neither True nor False")
    return value


def _show(value: object) -> str:
    try:
        return repr(value)[:80]
    except Exception:
        return f"<{type(value).__name__}>"
