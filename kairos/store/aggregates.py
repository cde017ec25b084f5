"""Counts and times for pages, of so many of the newest runs: never of a whole history. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from kairos.domain.ids import first_id
from kairos.domain.states import RunStatus
from kairos.store.codec import Row
from kairos.store.connect import Session

MOST_RUNS: Final = 100_000
RECENT_SHARE: Final = 4
"""One event of so many is spent on what is recent, the others on what it is held against."""
LONGEST: Final = 20_000


@dataclass(frozen=True, slots=True)
class Activity:
    """Runs that were created in the stretch `index` (from 0), by status."""

    index: int
    status: RunStatus
    count: int


@dataclass(frozen=True, slots=True)
class TaskCount:
    """What there is to do in one queue for one version of a workflow.

    Attributes:
        waiting: ready, for any worker; `later`: waits for its time; `held`: a worker has it.
        oldest: when the oldest of the waiting became ready.
        is_served: some live worker would take it.
    """

    workflow: str
    queue: str
    fingerprint: str
    waiting: int
    later: int
    held: int
    oldest: datetime | None
    is_served: bool

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "workflow": self.workflow,
            "queue": self.queue,
            "version": self.fingerprint,
            "waiting": self.waiting,
            "later": self.later,
            "held": self.held,
            "oldest": None if self.oldest is None else self.oldest.isoformat(),
            "served": self.is_served,
        }


@dataclass(frozen=True, slots=True)
class Times:
    """How long `count` attempts took that ended well: median and 95th percentile, in seconds."""

    count: int
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class StepTimes:
    """A step's times in the newest runs, and in those before; None where there are none."""

    workflow: str
    step: str
    recent: Times | None
    past: Times | None

    @property
    def factor(self) -> float | None:
        """By how much the median has grown against the step's own history; None if that says little."""
        if self.recent is None or self.past is None or min(self.recent.count, self.past.count) < 5:
            return None
        return self.recent.p50 / self.past.p50 if self.past.p50 > 0 else None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; seconds."""
        parts = {"recent": self.recent, "past": self.past}
        facts = {n: t and {"count": t.count, "p50": t.p50, "p95": t.p95} for n, t in parts.items()}
        return {"workflow": self.workflow, "step": self.step, **facts, "factor": self.factor}


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Runs of one version in one status, among the newest of the workflow."""

    workflow: str
    fingerprint: str
    status: RunStatus
    count: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a workflow.

    Attributes:
        workers: live workers that have it.
        open: its runs that have not ended; `waiting`: those of them that no worker holds.
    """

    workflow: str
    fingerprint: str
    registered_at: datetime
    workers: int
    open: int
    waiting: int


class Aggregates:
    """Asks through one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def activity(self, begin: datetime, width: timedelta, most: int = MOST_RUNS) -> list[Activity]:
        """Of the newest `most` runs created since `begin`: how many in each stretch of `width`, by status."""
        params = {"since": first_id(begin), "since_at": begin, "width": width.total_seconds(), "take": most}
        rows = await self.session.execute("count_activity", params)
        return [Activity(row[0], RunStatus(row[1]), row[2]) for row in rows]

    async def tasks(self, most: int = 200) -> list[TaskCount]:
        """What there is to do: what waits longest first."""
        return [TaskCount(*row) for row in await self.session.execute("count_tasks", {"take": most})]

    async def active_workflows(self, most: int = 20) -> list[str]:
        """The workflows that were started last."""
        return [row[0] for row in await self.session.execute("list_active_workflows", {"take": most})]

    async def step_times(
        self, workflows: Sequence[str], since: datetime, *, runs: int = 500, events: int = 60_000
    ) -> list[StepTimes]:
        """How long the steps of these workflows took since then, and in the runs before.

        Args:
            runs: of each workflow at most so many.
            events: of all of them together about so many.
        """
        share = max(events // max(len(workflows), 1), 1)
        params = {
            "workflows": list(workflows),
            "since": first_id(since),
            "recent_runs": max(runs // RECENT_SHARE, 1),
            "past_runs": runs,
            "recent_events": max(share // RECENT_SHARE, 1),
            "past_events": share,
            "longest": LONGEST,
        }
        found: dict[tuple[str, str], dict[bool, Times]] = {}
        for workflow, step, is_recent, count, p50, p95 in await self.session.execute("measure_steps", params):
            found.setdefault((workflow, step), {})[is_recent] = Times(count, p50, p95)
        return [StepTimes(*name, times.get(True), times.get(False)) for name, times in found.items()]

    async def outcomes(self, workflows: Sequence[str], most: int = 500) -> list[Outcomes]:
        """How the newest `most` runs of each of these workflows stand."""
        params = {"workflows": list(workflows), "take": most}
        rows = await self.session.execute("count_outcomes", params)
        return [Outcomes(row[0], row[1], RunStatus(row[2]), *row[3:]) for row in rows]

    async def versions(self) -> list[Version]:
        """Every version of every workflow, by name; the newest version first."""
        return [Version(*row) for row in await self.session.execute("list_versions")]

    async def sample_logs(
        self, workflow: str, version: str, *, among: int = 300, events: int = 3_000
    ) -> dict[UUID, list[Row]]:
        """Whole logs of the newest runs of a version, among the newest `among` of its workflow."""
        params = {"workflow": workflow, "version": version, "among": among, "events": events}
        rows = await self.session.execute("sample_logs", params)
        return {run_id: [Row(*row[1:]) for row in group] for run_id, group in groupby(rows, key=lambda row: row[0])}
