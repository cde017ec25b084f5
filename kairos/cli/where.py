"""Which runs are meant by `workflow=fulfil status=failed step=charge since=2h`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from kairos.cli.filters import read_moment, read_status
from kairos.cli.usage import UsageError
from kairos.domain.names import nearest
from kairos.store.reader import Reader, RunInfo

NAMES: Final = ("workflow", "status", "step", "error", "since", "until", "key", "label")
_EXAMPLE: Final = "For example 'workflow=fulfil status=failed step=charge since=2h'."
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions that all hold.

    Attributes:
        statuses: any of these; `since`, `until`: created in [since, until).
        step: the run failed at this step.
        error: part of the reason why it ended badly, in any letter case.
    """

    workflow: str | None = None
    statuses: tuple[str, ...] = ()
    step: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    key: str | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def takes(self, info: RunInfo) -> bool:
        """Whether a run fits in what the query does not ask for."""
        if self.step is not None and self.step not in info.failed_steps:
            return False
        return self.error is None or self.error.lower() in (info.reason or "").lower()

    async def find(self, reader: Reader, limit: int | None) -> list[RunInfo]:
        """The runs, newest first."""
        found: list[RunInfo] = []
        before: UUID | None = None
        while limit is None or len(found) < limit:
            page = await reader.list_runs(
                workflow=self.workflow, statuses=self.statuses or None, key=self.key, labels=self.labels or None,
                since=self.since, until=self.until, before=before, limit=PAGE,
            )  # fmt: skip
            found += [info for info in page if self.takes(info)]
            if len(page) < PAGE:
                break
            before = page[-1].id
        return found[:limit]


def read_where(text: str) -> Where:
    """Read the conditions. Raises UsageError."""
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise UsageError(f"--where {text!r} cannot be read: {exc}", hint=_EXAMPLE) from None
    if not words:
        raise UsageError("--where is empty: it would mean every run", hint=_EXAMPLE)
    given: dict[str, str] = {}
    labels: dict[str, str] = {}
    for word in words:
        name, sep, value = word.partition("=")
        if not sep or not value:
            raise UsageError(f"--where: {word!r} is not NAME=VALUE", hint=_EXAMPLE)
        if name == "label" or name.startswith("label."):
            label, sep, inner = (name.removeprefix("label."), sep, value) if "." in name else value.partition("=")
            if not sep or not label or not inner:
                raise UsageError(f"--where: {word!r} is not label.NAME=VALUE", hint="For example label.customer=42.")
            labels[label] = inner
        elif name not in NAMES:
            raise UsageError(f"--where: there is no condition {name!r}", hint=f"{nearest(name, NAMES)} {_EXAMPLE}")
        elif name in given:
            raise UsageError(f"--where gives {name!r} twice", hint="Several statuses: status=failed,cancelled.")
        else:
            given[name] = value
    return Where(
        workflow=given.get("workflow"),
        statuses=tuple(_status(part) for part in given["status"].split(",")) if "status" in given else (),
        step=given.get("step"),
        error=given.get("error"),
        since=read_moment(given.get("since"), "--where: since"),
        until=read_moment(given.get("until"), "--where: until"),
        key=given.get("key"),
        labels=labels,
    )


def _status(text: str) -> str:
    try:
        return read_status(text).value
    except UsageError as exc:
        raise UsageError(exc.message.replace("--status", "--where: status"), hint=exc.hint) from None
