"""The facts about server, workers and queues that the checks of `doctor` look at, and what a check says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from kairos.diagnosis.facts import WorkerFact

Severity = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says. `code` is stable; `facts` are for programs."""

    code: str
    severity: Severity
    title: str
    hint: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "code": self.code,
            "severity": self.severity,
            "title": self.title,
            "hint": self.hint,
            "facts": dict(self.facts),
        }


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The server and our rights on it. `version` as in `server_version_num`."""

    version: int
    fsync: bool
    synchronous_commit: str
    full_page_writes: bool
    user: str
    is_standby: bool
    may_change_events: bool
    is_embedded: bool = False


@dataclass(frozen=True, slots=True)
class PoolerFacts:
    """What two sessions at once showed: whether ours kept its backend, its settings and its LISTEN."""

    keeps_backend: bool
    keeps_settings: bool
    hears_notify: bool


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """A worker with what it reports of itself."""

    fact: WorkerFact
    version: str
    holds: int
    stale_writes: int = 0
    loop_lag: float = 0.0
    signal: str | None = None
    abandoned: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """Tasks that are due and that nobody has taken, of one queue and version."""

    workflow: str
    queue: str
    fingerprint: str
    count: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """All that the checks look at.

    Attributes:
        versions: fingerprint -> workflow, of every registered definition.
        without_task: ids of runs that go on but have no task.
        transactions: (pid, application, state, seconds) of those open for long.
        sees_all_sessions: whether `transactions` holds those of other roles too.
        statuses: run status -> how many.
        kairos: version of the Kairos that asks.
        partitioned_until: the log has partitions for runs that are created before then; None: it has none.
        default_bytes: size of the partition that takes all the others.
    """

    now: datetime
    kairos: str
    schema: int
    server: ServerFacts
    pooler: PoolerFacts
    workers: Sequence[WorkerHealth] = ()
    waiting: Sequence[Waiting] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    without_task: Sequence[str] = ()
    transactions: Sequence[tuple[int, str, str, float]] = ()
    sees_all_sessions: bool = True
    statuses: Mapping[str, int] = field(default_factory=dict)
    partitioned_until: datetime | None = None
    default_bytes: int = 0

    @property
    def live(self) -> list[WorkerHealth]:
        """Workers that take work."""
        return [worker for worker in self.workers if worker.fact.is_live]
