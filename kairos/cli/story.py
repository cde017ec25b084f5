"""A run's events together with the state they fold to, and the attempts that can be read out of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import (
    LeaseLost,
    Recorded,
    RunCancelled,
    RunExpired,
    RunFailed,
    StepCancelled,
    StepDone,
    StepFailed,
    StepStarted,
)
from kairos.domain.projection import RunState, apply
from kairos.store.codec import decode
from kairos.store.reader import Reader, RunInfo


@dataclass(slots=True)
class Attempt:
    """One try of a step, as told by its events.

    Attributes:
        outcome: `running`, `done`, `failed`, `lost` or `cancelled`.
        worker: None when it is the run's owner of that time, whose name the log may not know.
        signal: what killed the worker, if it is known.
    """

    step: str
    number: int
    began: datetime
    worker: str | None = None
    isolated: bool = False
    ended: datetime | None = None
    outcome: str = "running"
    error: ErrorInfo | None = None
    signal: str | None = None

    def length(self, now: datetime) -> timedelta:
        """How long it took, or takes until `now`."""
        return max((self.ended or now) - self.began, timedelta())


@dataclass(slots=True)
class Story:
    """Everything about one run up to `state.seq`."""

    info: RunInfo
    state: RunState
    events: list[Recorded] = field(default_factory=list)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)

    def take(self, events: Iterable[Recorded]) -> None:
        """Fold further events in."""
        for recorded in events:
            apply(self.state, recorded)
            self.events.append(recorded)
            self._note(recorded)

    def _note(self, recorded: Recorded) -> None:
        event, at = recorded.event, recorded.at
        match event:
            case StepStarted():
                tries = self.attempts.setdefault(event.step, [])
                tries.append(Attempt(event.step, event.attempt, at, event.worker, event.isolated))
            case StepDone(step=step):
                self._end(step, at, "done")
            case StepFailed(step=step, error=error):
                self._end(step, at, "failed", error=error)
            case LeaseLost(step=step):
                self._end(step, at, "lost", lost=event)
            case StepCancelled(step=step):
                self._end(step, at, "cancelled")
            case RunFailed() | RunCancelled() | RunExpired():
                for step in self.attempts:
                    self._end(step, at, "cancelled")
            case _:
                pass

    def _end(
        self, step: str, at: datetime, outcome: str, error: ErrorInfo | None = None, lost: LeaseLost | None = None
    ) -> None:
        last = self.attempts[step][-1] if self.attempts.get(step) else None
        if last is not None and last.ended is None:
            last.ended, last.outcome, last.error = at, outcome, error
            if lost is not None:
                last.worker, last.signal = last.worker or lost.worker, lost.signal

    def lost(self) -> list[Attempt]:
        """Attempts that ended with their worker."""
        return [a for tries in self.attempts.values() for a in tries if a.outcome == "lost"]

    def became_ready(self, step: str) -> datetime | None:
        """When a step first could have started: the run's start, or the end of its last upstream."""
        upstream = self.state.graph.steps[step].upstream
        if not upstream:
            return self.state.scheduled_at
        ends = [self.state.steps[name].finished_at for name in upstream if self.state.steps[name].done_seq]
        known = [end for end in ends if end is not None]
        return max(known) if len(known) == len(upstream) else None


async def read_story(reader: Reader, run_id: UUID, upto: int | None = None) -> Story:
    """The story of a run so far. Raises RunNotFound."""
    story = await begin_story(reader, run_id)
    await catch_up(reader, story, upto)
    return story


async def begin_story(reader: Reader, run_id: UUID) -> Story:
    """The story of a run before its first event."""
    info = await reader.run(run_id)
    definition = await reader.session.run(lambda conn: reader.definitions.get(conn, info.fingerprint))
    return Story(info, RunState(run_id, definition.graph))


async def catch_up(reader: Reader, story: Story, upto: int | None = None) -> Sequence[Recorded]:
    """Read and fold what has happened since; returns it."""
    limit = {} if upto is None else {"upto": upto}
    rows = await reader.rows(story.info.id, story.state.seq, **limit)
    fresh = [decode(row) for row in rows]
    story.take(fresh)
    return fresh
