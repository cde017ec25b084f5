"""The tries of one step, read out of its events up to a moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from debugger_ui.histories import Entry, History
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import (
    EffectRecorded,
    LeaseLost,
    LogEmitted,
    MetricEmitted,
    StepCancelled,
    StepDone,
    StepFailed,
    StepStarted,
    TimerFired,
)


@dataclass(slots=True)
class Attempt:
    """One try.

    Attributes:
        seq: of the event with which it began; `end_seq` of the one with which it ended.
        outcome: `running`, `done`, `failed`, `lost` or `cancelled`.
        worker: None when it is the run's owner.
    """

    number: int
    seq: int
    began: datetime
    worker: str | None = None
    isolated: bool = False
    outcome: str = "running"
    end_seq: int | None = None
    ended: datetime | None = None
    error: ErrorInfo | None = None
    timed_out: bool = False
    retry_at: datetime | None = None
    lost: LeaseLost | None = None
    input_hash: str = ""
    effects: list[Entry] = field(default_factory=list)
    logs: list[Entry] = field(default_factory=list)
    metrics: list[Entry] = field(default_factory=list)

    def length(self, now: datetime) -> timedelta:
        """How long it took, or takes until `now`."""
        return max((self.ended or now) - self.began, timedelta())


def attempts_of(history: History, step: str, upto: int | None = None) -> list[Attempt]:
    """The tries of a step that had begun at seq `upto`, as they stood then."""
    return read_attempts(history.of_step(step, upto))


def read_attempts(entries: Iterable[Entry]) -> list[Attempt]:
    """The tries that these events of one step tell of."""
    tries: list[Attempt] = []
    for entry in entries:
        event = None if entry.recorded is None else entry.recorded.event
        if isinstance(event, StepStarted):
            tries.append(_begun(entry, event))
            continue
        if not tries:
            continue
        last = tries[-1]
        match event:
            case StepDone():
                _end(last, entry, "done")
            case StepFailed():
                _end(last, entry, "failed")
                last.error, last.timed_out, last.retry_at = event.error, event.timed_out, event.retry_at
            case LeaseLost():
                _end(last, entry, "lost")
                last.lost = event
            case StepCancelled() if last.ended is None:
                _end(last, entry, "cancelled")
            case TimerFired():
                last.retry_at = None
            case EffectRecorded():
                last.effects.append(entry)
            case LogEmitted():
                last.logs.append(entry)
            case MetricEmitted():
                last.metrics.append(entry)
            case _:
                pass
    return tries


def choose(tries: Sequence[Attempt], number: int | None) -> Attempt | None:
    """The try with this number, else the last one."""
    return next((a for a in tries if a.number == number), tries[-1] if tries else None)


def _begun(entry: Entry, event: StepStarted) -> Attempt:
    return Attempt(event.attempt, entry.seq, entry.at, event.worker, event.isolated, input_hash=event.input_hash)


def _end(attempt: Attempt, entry: Entry, outcome: str) -> None:
    attempt.outcome, attempt.end_seq, attempt.ended = outcome, entry.seq, entry.at
