"""Everything that can ever happen to a run: immutable facts, past tense, one `kind` each.

A kind is never renamed or reused: old events live for ever. Facts only: that a step became ready follows
from the pinned graph and is derived by the fold, not stored.

These are msgspec structs because every step makes several: built ten times faster than frozen dataclasses,
and unknown to the garbage collector, which would otherwise walk all held runs (they cannot form cycles).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from msgspec import Struct, field

from kairos.domain.error_info import ErrorInfo
from kairos.domain.payload import Payload


class RunScheduled(Struct, frozen=True, kw_only=True, gc=False):
    """A run was accepted. Always seq 1. `expires_at`: not started before then, it is EXPIRED."""

    kind: ClassVar[str] = "run_scheduled"
    workflow: str
    fingerprint: str
    input: Payload
    queue: str
    priority: int
    trigger: str = "client"
    key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime | None = None


class RunStarted(Struct, frozen=True, kw_only=True, gc=False):
    """A worker took the run for the first time; `epoch` counts the claims of the run."""

    kind: ClassVar[str] = "run_started"
    epoch: int
    worker: str


class RunDone(Struct, frozen=True, kw_only=True, gc=False):
    """Every step is done. `outputs`: sink step -> seq of the event that holds its output."""

    kind: ClassVar[str] = "run_done"
    outputs: Mapping[str, int]


class RunFailed(Struct, frozen=True, kw_only=True, gc=False):
    """Nothing can go on: `steps` are the dead or expired ones that block the rest."""

    kind: ClassVar[str] = "run_failed"
    steps: tuple[str, ...]
    reason: str


class RunExpired(Struct, frozen=True, kw_only=True, gc=False):
    """The run's time to live closed before a worker took it."""

    kind: ClassVar[str] = "run_expired"
    reason: str


class RunCancelRequested(Struct, frozen=True, kw_only=True, gc=False):
    """Somebody asked for the run to stop. Running steps are told; nothing new starts."""

    kind: ClassVar[str] = "run_cancel_requested"
    author: str
    reason: str


class RunCancelled(Struct, frozen=True, kw_only=True, gc=False):
    """The run has stopped on request."""

    kind: ClassVar[str] = "run_cancelled"
    reason: str


class StepStarted(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt began. `worker` is None when it is the run's owner; `isolated`: alone in a child process.

    `input_hash`: 16 hex digits over the inputs as recorded, so that a replay can prove it had the same.
    """

    kind: ClassVar[str] = "step_started"
    step: str
    attempt: int
    token: int
    input_hash: str
    worker: str | None = None
    isolated: bool = False


class StepDone(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt succeeded; its output is final."""

    kind: ClassVar[str] = "step_done"
    step: str
    attempt: int
    token: int
    output: Payload
    duration_us: int = 0


class StepFailed(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt ended badly. `retry_at` is None when no further attempt will be made."""

    kind: ClassVar[str] = "step_failed"
    step: str
    attempt: int
    token: int
    error: ErrorInfo
    retry_at: datetime | None
    duration_us: int = 0
    timed_out: bool = False


class StepDead(Struct, frozen=True, kw_only=True, gc=False):
    """The step goes to the dead letters. `reason` says why no further attempt is made."""

    kind: ClassVar[str] = "step_dead"
    step: str
    reason: str


class StepExpired(Struct, frozen=True, kw_only=True, gc=False):
    """The step's time to live closed before a worker took it."""

    kind: ClassVar[str] = "step_expired"
    step: str
    reason: str


class StepCancelled(Struct, frozen=True, kw_only=True, gc=False):
    """The step was stopped, or will not start, because its run was cancelled. Its token is void."""

    kind: ClassVar[str] = "step_cancelled"
    step: str
    reason: str


class TimerFired(Struct, frozen=True, kw_only=True, gc=False):
    """A timer of a step came due; `timer` is `retry` when a backoff ended."""

    kind: ClassVar[str] = "timer_fired"
    step: str
    timer: str


class LeaseLost(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt ended with its worker: it crashed, froze past its lease, or gave the step back.

    `reason` is `worker_lost`, `crashed` or `released`; `worker` is the one that lost it, None if nobody knows any more.
    `signal` names what killed the process (or `exit code N`), if that is known.
    `alone`: the step was the only thing running in that process, so the crash counts against it.
    `suspect`: from now on the step runs alone in a process of its own.
    """

    kind: ClassVar[str] = "lease_lost"
    step: str
    attempt: int
    token: int
    reason: str
    worker: str | None = None
    signal: str | None = None
    alone: bool = False
    suspect: bool = False


class StaleWriteRejected(Struct, frozen=True, kw_only=True, gc=False):
    """A worker reported on an attempt that was no longer its own. Kept as evidence; changes nothing."""

    kind: ClassVar[str] = "stale_write_rejected"
    step: str
    attempt: int
    token: int
    worker: str
    what: str


class MetricEmitted(Struct, frozen=True, kw_only=True, gc=False):
    """A step reported a number."""

    kind: ClassVar[str] = "metric_emitted"
    step: str
    attempt: int
    token: int
    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class LogEmitted(Struct, frozen=True, kw_only=True, gc=False):
    """A step wrote a log line."""

    kind: ClassVar[str] = "log_emitted"
    step: str
    attempt: int
    token: int
    level: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class EffectRecorded(Struct, frozen=True, kw_only=True, gc=False):
    """What the world answered inside a step: a retry and a replay are served from it. Result or error, never both.

    `via` tells how it was asked for: `call`, `now`, `uuid`, `random` or `http`. `ordinal` counts the effects of
    this name within the attempt from 1; `arguments` is what was asked with, None if that says nothing.
    """

    kind: ClassVar[str] = "effect_recorded"
    step: str
    attempt: int
    token: int
    name: str
    ordinal: int
    via: str
    arguments: Payload | None = None
    result: Payload | None = None
    error: ErrorInfo | None = None
    duration_us: int = 0


class RunForked(Struct, frozen=True, kw_only=True, gc=False):
    """This run continues another one from `from_step`. Always seq 2.

    `parent` is the run that was forked, as it was at `parent_seq`; `root` the first ancestor. `edits` is what the
    author changed, by path (`input.amount`, `reserve.warehouse`). The parent's log does not tell of its forks.
    """

    kind: ClassVar[str] = "run_forked"
    parent: str
    root: str
    parent_seq: int
    from_step: str
    author: str
    reason: str
    edits: Mapping[str, Any] = field(default_factory=dict)


class StepsInherited(Struct, frozen=True, kw_only=True, gc=False):
    """These steps are done: another run did them. Nothing is copied.

    `run` is the one in which they really ran; `outputs`: step -> (seq of the event there that holds its output, size
    in bytes, sha256 in hex, whether it is stored as a blob).
    """

    kind: ClassVar[str] = "steps_inherited"
    run: str
    outputs: Mapping[str, tuple[int, int, str, bool]]


class StepOverridden(Struct, frozen=True, kw_only=True, gc=False):
    """The step is done with an output that the author of the fork gave; it does not run."""

    kind: ClassVar[str] = "step_overridden"
    step: str
    output: Payload


Event = (
    RunScheduled
    | RunStarted
    | RunDone
    | RunFailed
    | RunExpired
    | RunCancelRequested
    | RunCancelled
    | StepStarted
    | StepDone
    | StepFailed
    | StepDead
    | StepExpired
    | StepCancelled
    | TimerFired
    | LeaseLost
    | StaleWriteRejected
    | MetricEmitted
    | LogEmitted
    | EffectRecorded
    | RunForked
    | StepsInherited
    | StepOverridden
)

EVENT_TYPES: Mapping[str, type[Event]] = {cls.kind: cls for cls in Event.__args__}


def output_in(event: Event, step: str) -> Payload | None:
    """The output of `step` that an event holds or refers to; None if it holds none of that step."""
    match event:
        case StepDone() | StepOverridden():
            return event.output if event.step == step else None
        case StepsInherited():
            entry = event.outputs.get(step)
            return None if entry is None else Payload.inherited(event.run, *entry)
        case _:
            return None


class Recorded(Struct, frozen=True, gc=False):
    """An event in its place: `seq` counts from 1 without a gap within the run; `at` never decreases."""

    seq: int
    at: datetime
    event: Event
