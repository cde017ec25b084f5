"""Reads what narrows a list: labels, statuses, moments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kairos.cli.usage import UsageError
from kairos.domain.duration import parse_duration
from kairos.domain.states import RunStatus, read_run_status
from kairos.errors import DefinitionError, InvalidArgument


def read_labels(given: tuple[str, ...]) -> dict[str, str]:
    """`--label name=value` as a dict. Raises UsageError."""
    labels: dict[str, str] = {}
    for item in given:
        name, sep, value = item.partition("=")
        if not sep or not name or not value:
            raise UsageError(f"--label {item!r} is not NAME=VALUE", hint="For example --label customer=42.")
        labels[name] = value
    return labels


def read_status(text: str) -> RunStatus:
    """A status in any letter case. Raises UsageError, proposing the nearest."""
    try:
        return read_run_status(text)
    except InvalidArgument as exc:
        raise UsageError(f"--{exc.message}", hint=exc.hint) from None


def read_duration(text: str, option: str) -> timedelta:
    """`30s`, `5m`, or a number of seconds. Raises UsageError."""
    try:
        return parse_duration(float(text) if text.replace(".", "", 1).isdigit() else text, what=option)
    except DefinitionError as exc:
        raise UsageError(exc.message, hint="Write 500ms, 30s, 5m, 2h, 1d, or a number of seconds.") from None


def read_moment(text: str | None, option: str) -> datetime | None:
    """`2h` (ago), or a date or time in ISO 8601; without a zone it is local time. Raises UsageError."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.now(UTC) - parse_duration(text.removesuffix("ago").strip(), what=option)
    except (DefinitionError, OverflowError):
        hint = 'Write 30m, 2h, 7d, 2026-07-17, or "2026-07-17 12:00".'
        raise UsageError(f"{option} {text!r} is not a time", hint=hint) from None
