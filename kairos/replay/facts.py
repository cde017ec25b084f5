"""What is recorded of each step of a run, attempt by attempt: what a replay is held against. Does no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct, field

from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import (
    EffectRecorded,
    LeaseLost,
    Recorded,
    RunScheduled,
    StepCancelled,
    StepDone,
    StepFailed,
    StepOverridden,
    StepsInherited,
    StepStarted,
)
from kairos.domain.payload import NULL, Payload

_DEATH: Final = re.compile(r"\(([^()]+)\)$")
EffectKey = tuple[str, int]
"""(name, ordinal) of an effect."""


class Ending(StrEnum):
    """How an attempt ended."""

    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    """Its worker crashed, froze, or gave it back."""
    CANCELLED = "cancelled"
    OPEN = "open"
    """It has not ended: it is running, or hung."""


class Attempt(Struct):
    """One try of a step, as recorded.

    Attributes:
        effects: what it recorded itself, successes and errors, in order.
        reason: why it was lost or cancelled.
        death: what ended its process, if the step has taken it along and that is known: `SIGSEGV`, `exit code 3`.
    """

    number: int
    token: int
    started_at: datetime | None = None
    ending: Ending = Ending.OPEN
    output: Payload | None = None
    error: ErrorInfo | None = None
    timed_out: bool = False
    duration_us: int = 0
    reason: str = ""
    death: str = ""
    effects: list[EffectRecorded] = field(default_factory=list)


class StepFacts(Struct):
    """One step, as recorded.

    Attributes:
        attempts: oldest first; empty if it never started here.
        output: what the steps below it received; None if it never finished.
        given: "" if it ran here, `inherited` from another run, or `overridden` by the author of a fork.
    """

    name: str
    attempts: list[Attempt] = field(default_factory=list)
    output: Payload | None = None
    given: str = ""

    def attempt(self, number: int | None = None) -> Attempt | None:
        """The attempt with this number, or the last one; None if there is none."""
        if number is None:
            return self.attempts[-1] if self.attempts else None
        return next((a for a in self.attempts if a.number == number), None)

    def effects_before(self, attempt: Attempt) -> list[EffectRecorded]:
        """What that attempt found recorded by earlier ones: the successes, the last of each name and ordinal."""
        found: dict[EffectKey, EffectRecorded] = {}
        for earlier in self.attempts:
            if earlier.number < attempt.number:
                found |= {(e.name, e.ordinal): e for e in earlier.effects if e.error is None}
        return list(found.values())


class RunFacts(Struct):
    """A whole run, as recorded.

    Attributes:
        steps: in order of definition.
        token: the last fence that was given; a step that never started is replayed with the next.
    """

    input: Payload = NULL
    steps: dict[str, StepFacts] = field(default_factory=dict)
    token: int = 0

    def step(self, name: str) -> StepFacts:
        """What is recorded of a step: nothing, if the run did not have it."""
        return self.steps.get(name) or StepFacts(name)

    def output(self, name: str) -> Payload | None:
        """What a step is recorded to have returned."""
        return self.step(name).output


def facts_of(history: Iterable[Recorded], steps: Iterable[str]) -> RunFacts:
    """Sort a run's events by step and attempt. `steps`: the names in its definition, in order."""
    run = RunFacts(steps={name: StepFacts(name) for name in steps})
    open_attempts: dict[tuple[str, int], Attempt] = {}
    for recorded in history:
        event = recorded.event
        match event:
            case StepStarted():
                attempt = Attempt(event.attempt, event.token, recorded.at)
                open_attempts[event.step, event.token] = attempt
                run.steps[event.step].attempts.append(attempt)
                run.token = max(run.token, event.token)
            case EffectRecorded():
                open_attempts[event.step, event.token].effects.append(event)
            case StepDone():
                attempt = open_attempts[event.step, event.token]
                attempt.ending, attempt.output, attempt.duration_us = Ending.DONE, event.output, event.duration_us
                run.steps[event.step].output = event.output
            case StepFailed():
                attempt = open_attempts[event.step, event.token]
                attempt.ending, attempt.error, attempt.timed_out = Ending.FAILED, event.error, event.timed_out
                attempt.duration_us = event.duration_us
                attempt.death = _death(event.error)
            case LeaseLost():
                attempt = open_attempts[event.step, event.token]
                attempt.ending, attempt.reason = Ending.LOST, _loss(event)
                attempt.death = event.signal or ""
            case StepCancelled():
                last = run.steps[event.step].attempt()
                if last is not None and last.ending is Ending.OPEN:
                    last.ending, last.reason = Ending.CANCELLED, event.reason
            case StepsInherited():
                for name, entry in event.outputs.items():
                    step = run.steps[name]
                    step.output, step.given = Payload.inherited(event.run, *entry), "inherited"
            case StepOverridden():
                step = run.steps[event.step]
                step.output, step.given = event.output, "overridden"
            case RunScheduled():
                run.input = event.input
            case _:
                pass
    return run


def _death(error: ErrorInfo) -> str:
    """As the last crash of a step that has died too often is recorded: in brackets at the end of its error."""
    found = _DEATH.search(error.message) if error.type == "kairos.WorkerCrashed" else None
    return found[1] if found is not None else ""


def _loss(event: LeaseLost) -> str:
    return f"{event.reason} ({event.signal})" if event.signal else event.reason
