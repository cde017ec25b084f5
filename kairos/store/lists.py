"""Which runs a list shows: the filters, and the statement that finds a page of them in either direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from kairos.domain import canonical
from kairos.domain.states import RunStatus
from kairos.errors import InvalidArgument

BAD: Final = frozenset({RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.EXPIRED})
BROKEN: Final = (RunStatus.FAILED, RunStatus.EXPIRED)
"""What calls for a repair: a cancelled run was meant to end."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Conditions that all hold.

    Attributes:
        statuses: any of these; empty means all.
        version: fingerprint of the definition.
        since, until: created in [since, until).
        step: the run failed at this step.
        error: part of the error that ended the run, in any letter case.
        group: the error's fingerprint: `workflow|step|type`, as `FailureGroup.group` has it.
        unrepaired: it ended badly, and no fork of it, or fork of one, is DONE.
    """

    statuses: tuple[RunStatus, ...] = ()
    workflow: str | None = None
    version: str | None = None
    queue: str | None = None
    key: str | None = None
    labels: Mapping[str, str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    step: str | None = None
    error: str | None = None
    group: str | None = None
    unrepaired: bool = False

    @property
    def is_of_failures(self) -> bool:
        """Whether only runs that ended badly can fit."""
        asks = self.unrepaired or any(text is not None for text in (self.step, self.error, self.group))
        return asks or (bool(self.statuses) and set(self.statuses) <= BAD)

    def checked(self) -> RunFilter:
        """With the statuses that are meant.

        Raises:
            InvalidArgument: what is asked for is said of runs that ended badly only, and the statuses leave none.
        """
        if not self.is_of_failures:
            return self
        possible = BROKEN if self.unrepaired else tuple(BAD)
        kept = tuple(status for status in self.statuses if status in possible) if self.statuses else possible
        if not kept:
            names = ", ".join(status.value.lower() for status in self.statuses)
            raise InvalidArgument(
                f"no run that is {names} has an error or needs a repair",
                hint="Leave the status away, or ask for failed and expired ones.",
            )
        return replace(self, statuses=kept)

    def statement(self, before: UUID | None, after: UUID | None, take: int) -> tuple[str, dict[str, Any]]:
        """Name and parameters of the query for a page: older than `before`, or newer than `after`."""
        wanted = self.checked()
        params: dict[str, Any] = {
            "statuses": [status.value for status in wanted.statuses] or None,
            "workflow": wanted.workflow,
            "version": wanted.version,
            "queue": wanted.queue,
            "key": wanted.key,
            "labels": canonical.encode_trusted(dict(wanted.labels)).decode() if wanted.labels else None,
            "since": wanted.since,
            "until": wanted.until,
            "take": take,
        }
        if wanted.is_of_failures:
            params |= {"step": self.step, "error": self.error, "group": self.group, "unrepaired": self.unrepaired}
        if after is not None:
            name = "list_newer_ended_badly" if wanted.is_of_failures else "list_newer_runs"
            return name, {**params, "after": after}
        name = "list_ended_badly" if wanted.is_of_failures else "list_runs"
        return name, {**params, "before": before}
