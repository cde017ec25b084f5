"""What a diagnosis is made from, and what it says. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kairos.domain.projection import RunState


@dataclass(frozen=True, slots=True)
class WorkerFact:
    """One row of `worker`. `is_live`: it holds a lease that has not run out and takes new work."""

    id: str
    name: str
    state: str
    queues: tuple[str, ...]
    fingerprints: frozenset[str]
    beat_at: datetime
    lease_until: datetime
    is_live: bool
    concurrency: int = 0
    running: int = 0

    def serves(self, queue: str, fingerprint: str) -> bool:
        """Whether it would take this work."""
        return self.is_live and queue in self.queues and fingerprint in self.fingerprints


@dataclass(frozen=True, slots=True)
class TaskFact:
    """One row of `task`: the run itself (`step` is empty) or a step that was offered to any worker.

    `lost_by`: the last worker that died while it held this; `killed_by`: the signal or exit code, if that is known.
    """

    step: str
    queue: str
    ready_at: datetime
    expires_at: datetime | None
    fingerprint: str
    worker: str | None
    worker_state: str | None
    lease_until: datetime | None
    is_leased: bool
    lost_by: str | None = None
    killed_by: str | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """All that a diagnosis of one run needs.

    Attributes:
        now: the time of the database.
        versions: fingerprint -> workflow, of the definitions that live workers have.
        waiting: how many tasks wait in the run's queue, this one included.
        imported: name of the bundle that it came out of, if it did.
    """

    state: RunState
    tasks: Sequence[TaskFact]
    workers: Sequence[WorkerFact]
    now: datetime
    versions: Mapping[str, str] = field(default_factory=dict)
    waiting: int = 0
    imported: str | None = None

    def task(self, step: str = "") -> TaskFact | None:
        """The task of the run, or of one of its steps."""
        return next((task for task in self.tasks if task.step == step), None)


@dataclass(frozen=True, slots=True)
class Reason:
    """What is waited for. `until`: when that ends by itself, if it does. `step`: empty for the run."""

    kind: str
    sentence: str
    until: datetime | None = None
    step: str = ""
    status: str = ""
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        until = None if self.until is None else self.until.isoformat()
        data = {"kind": self.kind, "sentence": self.sentence, "until": until, "hint": self.hint}
        return {"step": self.step, "status": self.status, **data} if self.step else data
