"""Turns a run's history into its state. Knows nothing of where history is kept.

`apply` changes the state it is given: folding must stay linear for runs of 10,000 steps, and every
owner of a state (the engine, a reader) holds its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import assert_never
from uuid import UUID

from msgspec import Struct, field

from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import (
    EffectRecorded,
    LeaseLost,
    LogEmitted,
    MetricEmitted,
    Recorded,
    RunCancelled,
    RunCancelRequested,
    RunDone,
    RunExpired,
    RunFailed,
    RunForked,
    RunScheduled,
    RunStarted,
    StaleWriteRejected,
    StepCancelled,
    StepDead,
    StepDone,
    StepExpired,
    StepFailed,
    StepOverridden,
    StepsInherited,
    StepStarted,
    TimerFired,
)
from kairos.domain.graph import Graph
from kairos.domain.payload import NULL, Payload
from kairos.domain.states import ENDED, STEP_TRANSITIONS, RunStatus, StepStatus, next_run_status, next_step_status
from kairos.errors import HistoryError

_ACTIVE = frozenset({StepStatus.SCHEDULED, StepStatus.RUNNING, StepStatus.FAILED, StepStatus.WAITING})


def _effect(before: StepStatus, after: StepStatus) -> tuple[StepStatus, int, int, int]:
    """What a move does: the new status, and the changes to `active`, `running` and (by 1) `ready`."""

    def change(statuses: frozenset[StepStatus]) -> int:
        return (after in statuses) - (before in statuses)

    return after, change(_ACTIVE), change(frozenset({StepStatus.RUNNING})), change(frozenset({StepStatus.SCHEDULED}))


_EFFECTS = {(before, kind): _effect(before, after) for (before, kind), after in STEP_TRANSITIONS.items()}


class StepState(Struct, gc=False):
    """Where one step stands.

    Attributes:
        attempt: attempts begun so far; `failures`: how many of them failed (these count against Retry);
            `losses`: how many ended with their worker; `crashes`: losses while running alone.
        token: fence of the current or last attempt.
        done_seq: seq of the event that made it DONE.
        effects: (name, ordinal) -> the effect that succeeded, of any attempt so far; None before the first.
        reason: why it is DEAD, EXPIRED or CANCELLED.
    """

    status: StepStatus = StepStatus.PENDING
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    crashes: int = 0
    token: int = 0
    suspect: bool = False
    worker: str | None = None
    output: Payload | None = None
    done_seq: int = 0
    input_hash: str = ""
    error: ErrorInfo | None = None
    retry_at: datetime | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reason: str | None = None
    effects: dict[tuple[str, int], EffectRecorded] | None = None


class RunState(Struct, gc=False):
    """The state of a run at `seq`: the fold of its events up to there.

    Attributes:
        waiting_on: step -> upstream steps not yet done.
        active: steps that are SCHEDULED, RUNNING, FAILED or WAITING; `running`: RUNNING ones;
            `undone`: steps not DONE or SKIPPED. Counters, so that no rule ever scans all steps.
        ready: steps that are SCHEDULED, in the order in which they became so.
        forked: what this run continues, if it is a fork.
        token: the last fence given to an attempt; each start takes the next, so no two attempts share one.
    """

    run_id: UUID
    graph: Graph
    seq: int = 0
    at: datetime | None = None
    status: RunStatus = RunStatus.SCHEDULED
    workflow: str = ""
    fingerprint: str = ""
    input: Payload = NULL
    queue: str = ""
    priority: int = 0
    trigger: str = ""
    key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    worker: str | None = None
    token: int = 0
    cancel_requested: RunCancelRequested | None = None
    outputs: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None
    steps: dict[str, StepState] = field(default_factory=dict)
    waiting_on: dict[str, int] = field(default_factory=dict)
    ready: dict[str, None] = field(default_factory=dict)
    active: int = 0
    running: int = 0
    undone: int = 0
    stale_writes: int = 0
    forked: RunForked | None = None

    def steps_in(self, *statuses: StepStatus) -> list[str]:
        """Names of the steps in any of these statuses, in order of definition."""
        return [name for name, step in self.steps.items() if step.status in statuses]


def project(run_id: UUID, graph: Graph, history: Iterable[Recorded]) -> RunState:
    """Fold a history (seq 1 onwards) into a state.

    Raises:
        HistoryError: a gap in seq, or time going backwards.
        InvalidTransition: an event that its state machine does not allow.
    """
    state = RunState(run_id, graph)
    for recorded in history:
        apply(state, recorded)
    return state


def apply(state: RunState, recorded: Recorded) -> None:
    """Move `state` on by one event."""
    event, at = recorded.event, recorded.at
    if recorded.seq != state.seq + 1:
        raise HistoryError(f"run {state.run_id}: seq {recorded.seq} follows {state.seq}", seq=recorded.seq)
    if not state.seq and type(event) is not RunScheduled:
        raise HistoryError(f"run {state.run_id}: its log begins with {event.kind}, not with run_scheduled")
    if state.at is not None and at < state.at:
        raise HistoryError(f"run {state.run_id}: seq {recorded.seq} is older than the one before it")
    if state.status in ENDED:
        # The tables alone do not say it for events that move nothing, such as a log line.
        next_run_status(state.status, event.kind)
    match event:
        case StepDone(step=name, output=output):
            step = _move_attempt(state, name, event.token, event.attempt, event.kind)
            step.output, step.done_seq, step.finished_at, step.error = output, recorded.seq, at, None
            state.undone -= 1
            _release_downstream(state, name, at)
        case StepStarted(step=name):
            if event.token <= state.token:
                raise HistoryError(f"run {state.run_id}: token {event.token} of {name!r} is not a new one")
            step = _move(state, name, event.kind)
            step.attempt, step.token, step.worker = event.attempt, event.token, event.worker
            step.started_at, step.input_hash = at, event.input_hash
            state.token = event.token
        case StepFailed(step=name):
            step = _move_attempt(state, name, event.token, event.attempt, event.kind)
            step.failures += 1
            step.error, step.retry_at, step.finished_at = event.error, event.retry_at, at
        case TimerFired(step=name):
            step = _move(state, name, event.kind)
            step.retry_at, step.scheduled_at = None, at
        case LeaseLost(step=name):
            step = _move_attempt(state, name, event.token, event.attempt, event.kind)
            step.losses += 1
            step.crashes += event.alone
            step.suspect = step.suspect or event.suspect
            step.scheduled_at = at
        case StepDead(step=name, reason=reason) | StepExpired(step=name, reason=reason):
            step = _move(state, name, event.kind)
            step.reason, step.finished_at = reason, at
        case StepCancelled(step=name, reason=reason):
            step = _move(state, name, event.kind)
            step.reason, step.finished_at = reason, at
        case RunScheduled():
            _begin(state, event, at)
        case RunStarted():
            _move_run(state, event.kind)
            state.worker, state.started_at = event.worker, at
        case RunDone(outputs=outputs):
            _end(state, event.kind, at)
            state.outputs = outputs
        case RunFailed(reason=reason) | RunExpired(reason=reason) | RunCancelled(reason=reason):
            _end(state, event.kind, at)
            state.reason = reason
        case RunCancelRequested():
            state.cancel_requested = event
        case StaleWriteRejected():
            state.stale_writes += 1
        case MetricEmitted() | LogEmitted():
            pass
        case EffectRecorded(step=name):
            step = _at_attempt(state, name, event.token, event.attempt, event.kind)
            if step.status is not StepStatus.RUNNING:
                raise HistoryError(f"run {state.run_id}: an effect of {name!r}, which is {step.status}", step=name)
            if event.error is None:
                step.effects = {} if step.effects is None else step.effects
                step.effects[event.name, event.ordinal] = event
        case StepsInherited():
            _inherit_steps(state, event, recorded)
        case StepOverridden(step=name, output=output):
            _inherit(state, name, event.kind, output, recorded)
        case RunForked():
            state.forked = event
        case _:
            assert_never(event)
    state.seq = recorded.seq
    state.at = at


def _begin(state: RunState, event: RunScheduled, at: datetime) -> None:
    if state.seq:
        raise HistoryError(f"run {state.run_id}: run_scheduled again after seq {state.seq}")
    state.workflow, state.fingerprint, state.input = event.workflow, event.fingerprint, event.input
    state.queue, state.priority, state.trigger = event.queue, event.priority, event.trigger
    state.key, state.labels, state.expires_at = event.key, event.labels, event.expires_at
    state.scheduled_at = at
    state.steps = {name: StepState() for name in state.graph.steps}
    state.waiting_on = dict(state.graph.upstream_count)
    state.undone = len(state.steps)
    for name in state.graph.roots:
        _move(state, name, "upstream_done").scheduled_at = at


def _inherit_steps(state: RunState, event: StepsInherited, recorded: Recorded) -> None:
    # In order of definition, however the event lists them: it decides the order of what becomes ready.
    known = [name for name in state.steps if name in event.outputs]
    for name in known if len(known) == len(event.outputs) else event.outputs:
        output = Payload.inherited(event.run, *event.outputs[name])
        _inherit(state, name, "step_inherited", output, recorded)


def _inherit(state: RunState, name: str, kind: str, output: Payload, recorded: Recorded) -> None:
    step = _move(state, name, kind)
    step.output, step.done_seq, step.finished_at = output, recorded.seq, recorded.at
    state.undone -= 1
    _release_downstream(state, name, recorded.at)


def _release_downstream(state: RunState, name: str, at: datetime) -> None:
    for below in state.graph.downstream[name]:
        state.waiting_on[below] -= 1
        # One that a fork inherited is done already, whatever it waited for.
        if not state.waiting_on[below] and state.steps[below].status is StepStatus.PENDING:
            _move(state, below, "upstream_done").scheduled_at = at


def _move(state: RunState, name: str, kind: str) -> StepState:
    step = state.steps.get(name)
    if step is None:
        raise HistoryError(f"run {state.run_id}: {kind} names {name!r}, which is not a step of its definition")
    effect = _EFFECTS.get((step.status, kind))
    if effect is None:
        next_step_status(step.status, kind)  # raises
        raise AssertionError(kind)
    step.status, active, running, ready = effect
    state.active += active
    state.running += running
    if ready > 0:
        state.ready[name] = None
    elif ready:
        del state.ready[name]
    return step


def _move_attempt(state: RunState, name: str, token: int, attempt: int, kind: str) -> StepState:
    _at_attempt(state, name, token, attempt, kind)
    return _move(state, name, kind)


def _at_attempt(state: RunState, name: str, token: int, attempt: int, kind: str) -> StepState:
    step = state.steps.get(name)
    if step is None:
        raise HistoryError(f"run {state.run_id}: {kind} names {name!r}, which is not a step of its definition")
    if step.token != token or step.attempt != attempt:
        raise HistoryError(
            f"run {state.run_id}: {kind} of {name!r} carries attempt {attempt}, token {token}; "
            f"the current ones are {step.attempt} and {step.token}"
        )
    return step


def _move_run(state: RunState, kind: str) -> None:
    state.status = next_run_status(state.status, kind)


def _end(state: RunState, kind: str, at: datetime) -> None:
    _move_run(state, kind)
    state.finished_at = at
