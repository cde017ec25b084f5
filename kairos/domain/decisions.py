"""Every rule, once: a state and a command give the events that follow, or a refusal.

Nothing here awaits, logs, reads a clock or rolls dice; `now` is an argument and never decides more than
one thing at a time. Windows are half-open: what expires at `t` is still good strictly before `t`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import assert_never

from kairos.domain.commands import (
    ClaimRun,
    Command,
    EmitLog,
    EmitMetric,
    Expire,
    FailStep,
    FinishCancel,
    FinishStep,
    FireRetry,
    LoseLease,
    RecordEffect,
    Refusal,
    RejectWrite,
    RequestCancel,
    StartStep,
    StopStep,
)
from kairos.domain.duration import format_duration
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import (
    EffectRecorded,
    Event,
    LeaseLost,
    LogEmitted,
    MetricEmitted,
    RunCancelled,
    RunCancelRequested,
    RunDone,
    RunExpired,
    RunFailed,
    RunStarted,
    StaleWriteRejected,
    StepCancelled,
    StepDead,
    StepDone,
    StepExpired,
    StepFailed,
    StepStarted,
    TimerFired,
)
from kairos.domain.projection import RunState, StepState
from kairos.domain.retry import may_retry, retry_delay
from kairos.domain.states import ENDED, RunStatus, StepStatus

Decision = list[Event] | Refusal

_CRASHED = "Look for native code, a call of os._exit, or memory; SIGKILL is often the kernel's for want of memory."
_BLOCKED = (StepStatus.DEAD, StepStatus.EXPIRED)
_CANCELLABLE = (StepStatus.SCHEDULED, StepStatus.RUNNING, StepStatus.FAILED, StepStatus.WAITING)


def decide(state: RunState, command: Command, now: datetime) -> Decision:
    """Answer `command` in `state` at time `now`. Never raises for any combination; changes nothing."""
    if state.seq == 0:
        return Refusal("the run does not exist yet")
    if state.status in ENDED:
        return Refusal(f"the run is {state.status}", stale=True)
    match command:
        case FinishStep():
            return _finish_step(state, command)
        case StartStep():
            return _start_step(state, command, now)
        case FireRetry():
            return _fire_retry(state, command, now)
        case FailStep():
            return _fail_step(state, command, now)
        case ClaimRun():
            return _claim_run(state, command, now)
        case LoseLease():
            return _lose_lease(state, command)
        case StopStep():
            return _stop_step(state, command)
        case RequestCancel():
            return _request_cancel(state, command)
        case FinishCancel():
            return _finish_cancel(state)
        case Expire():
            return _expire(state, now)
        case RejectWrite():
            return _reject_write(state, command)
        case EmitLog():
            return _emit_log(state, command)
        case EmitMetric():
            return _emit_metric(state, command)
        case RecordEffect():
            return _record_effect(state, command)
        case _:
            assert_never(command)


def expires_at(state: RunState, name: str) -> datetime | None:
    """When the SCHEDULED step `name` expires. A step that was started once never does."""
    step = state.steps[name]
    ttl = state.graph.steps[name].ttl
    if step.attempt or step.scheduled_at is None or ttl is None:
        return None
    return step.scheduled_at + ttl


def _claim_run(state: RunState, command: ClaimRun, now: datetime) -> Decision:
    if state.status is not RunStatus.SCHEDULED:
        return []  # a later owner: what its predecessor left behind is settled step by step
    expired = _expire(state, now)
    if expired:
        return expired
    started = RunStarted(epoch=command.epoch, worker=command.worker)
    # A fork to which the output of every step was handed down or given has nothing to run.
    return [started, _run_done(state)] if state.undone == 0 and state.steps else [started]


def _start_step(state: RunState, command: StartStep, now: datetime) -> Decision:
    step = state.steps.get(command.step)
    if step is None:
        return Refusal(f"there is no step {command.step!r}")
    if state.status is not RunStatus.RUNNING:
        return Refusal(f"the run is {state.status}")
    if state.cancel_requested:
        return Refusal("the run is being cancelled")
    events: list[Event] = []
    if step.status is StepStatus.FAILED and step.retry_at is not None:
        if now < step.retry_at:
            return Refusal(f"the next attempt is due at {step.retry_at:%H:%M:%S}")
        events.append(TimerFired(step=command.step, timer="retry"))
    elif step.status is not StepStatus.SCHEDULED:
        return Refusal(f"the step is {step.status}")
    if state.graph.steps[command.step].ttl is not None:
        deadline = expires_at(state, command.step)
        if deadline is not None and not now < deadline:
            return _expire_steps(state, [command.step], now)
    events.append(
        StepStarted(
            step=command.step,
            attempt=step.attempt + 1,
            token=max(state.token, command.above) + 1,
            input_hash=command.input_hash,
            worker=command.worker,
            isolated=command.isolated,
        )
    )
    return events


def _fire_retry(state: RunState, command: FireRetry, now: datetime) -> Decision:
    step = state.steps.get(command.step)
    if step is None:
        return Refusal(f"there is no step {command.step!r}")
    if state.cancel_requested:
        return Refusal("the run is being cancelled")
    if step.status is not StepStatus.FAILED or step.retry_at is None:
        return Refusal(f"the step is {step.status}")
    if now < step.retry_at:
        return Refusal(f"the next attempt is due at {step.retry_at:%H:%M:%S}")
    return [TimerFired(step=command.step, timer="retry")]


def _finish_step(state: RunState, command: FinishStep) -> Decision:
    name = command.step
    refusal = _check_attempt(state, name, command.attempt, command.token)
    if refusal:
        return refusal
    events: list[Event] = [
        StepDone(
            step=name,
            attempt=command.attempt,
            token=command.token,
            output=command.output,
            duration_us=command.duration_us,
        )
    ]
    if state.undone == 1:
        events.append(_run_done(state))
    elif state.cancel_requested:
        if state.running == 1:
            events += _cancel_rest(state, except_for=name, released=_released(state, name))
    elif state.active == 1 and not _released(state, name):
        events.append(_run_failed(state))
    return events


def _fail_step(state: RunState, command: FailStep, now: datetime) -> Decision:
    name = command.step
    refusal = _check_attempt(state, name, command.attempt, command.token)
    if refusal:
        return refusal
    policy = state.graph.steps[name].retry
    failures = state.steps[name].failures + 1
    again = command.retryable and may_retry(policy, failures) and not state.cancel_requested
    retry_at = now + retry_delay(policy, failures, command.roll) if again else None
    failed = StepFailed(
        step=name,
        attempt=command.attempt,
        token=command.token,
        error=command.error,
        retry_at=retry_at,
        duration_us=command.duration_us,
        timed_out=command.timed_out,
    )
    if state.cancel_requested:
        reason = state.cancel_requested.reason
        rest = _cancel_rest(state, except_for=name) if state.running == 1 else []
        return [failed, StepCancelled(step=name, reason=reason), *rest]
    if again:
        return [failed]
    if not command.retryable:
        why = f"{command.error.summary} (not retryable)"
    else:
        why = f"{command.error.summary} (attempt {failures} of {policy.attempts})"
    return [failed, *_bury(state, name, why)]


def _lose_lease(state: RunState, command: LoseLease) -> Decision:
    name = command.step
    step = state.steps.get(name)
    if step is None:
        return Refusal(f"there is no step {name!r}")
    if step.status is not StepStatus.RUNNING or step.token != command.token:
        return Refusal(f"the step is {step.status} under token {step.token}", stale=True)
    limit = state.graph.steps[name].crash_limit
    crashes = step.crashes + command.alone
    if command.alone and crashes >= limit and not state.cancel_requested:
        how = f" ({command.signal})" if command.signal else ""
        text = f"its process died {crashes} time{'s' if crashes > 1 else ''} while running nothing else{how}"
        error = ErrorInfo("kairos.WorkerCrashed", text, hint=_CRASHED)
        failed = StepFailed(step=name, attempt=step.attempt, token=step.token, error=error, retry_at=None)
        return [failed, *_bury(state, name, text)]
    lost = LeaseLost(
        step=name,
        attempt=step.attempt,
        token=step.token,
        reason=command.reason,
        worker=command.worker,
        signal=command.signal,
        alone=command.alone,
        suspect=command.suspect,
    )
    if state.cancel_requested and state.running == 1:
        return [lost, *_cancel_rest(state, except_for=None)]
    return [lost]


def _stop_step(state: RunState, command: StopStep) -> Decision:
    refusal = _check_attempt(state, command.step, command.attempt, command.token)
    if refusal:
        return refusal
    if not state.cancel_requested:
        return Refusal("nobody asked for the run to be cancelled")
    stopped = StepCancelled(step=command.step, reason=state.cancel_requested.reason)
    if state.running == 1:
        return [stopped, *_cancel_rest(state, except_for=command.step)]
    return [stopped]


def _request_cancel(state: RunState, command: RequestCancel) -> Decision:
    if state.cancel_requested:
        return Refusal("the run is being cancelled already")
    asked = RunCancelRequested(author=command.author, reason=command.reason)
    if state.running == 0:
        return [asked, *_cancel_rest(state, except_for=None, reason=command.reason)]
    return [asked]


def _finish_cancel(state: RunState) -> Decision:
    if not state.cancel_requested:
        return Refusal("nobody asked for the run to be cancelled")
    return _cancel_rest(state, except_for=None)


def _expire(state: RunState, now: datetime) -> list[Event]:
    if state.status is RunStatus.SCHEDULED and state.expires_at is not None and not now < state.expires_at:
        age = format_duration(now - state.scheduled_at) if state.scheduled_at else "?"
        reason = f"no worker took it within its time to live; it waited {age}"
        steps = [StepExpired(step=name, reason=reason) for name in state.ready]
        return [*steps, RunExpired(reason=reason)]
    if state.status is not RunStatus.RUNNING or state.cancel_requested:
        return []
    due = [name for name in state.ready if (limit := expires_at(state, name)) is not None and not now < limit]
    return _expire_steps(state, due, now)


def _expire_steps(state: RunState, names: list[str], now: datetime) -> list[Event]:
    events: list[Event] = []
    reasons: dict[str, str] = {}
    for name in names:
        since = state.steps[name].scheduled_at
        age = format_duration(now - since) if since else "?"
        reasons[name] = f"no worker took it within its time to live; it waited {age}"
        events.append(StepExpired(step=name, reason=reasons[name]))
    if names and state.active == len(names):
        events.append(_run_failed(state, reasons))
    return events


def _reject_write(state: RunState, command: RejectWrite) -> Decision:
    if command.step not in state.steps:
        return Refusal(f"there is no step {command.step!r}")
    return [
        StaleWriteRejected(
            step=command.step,
            attempt=command.attempt,
            token=command.token,
            worker=command.worker,
            what=command.what,
        )
    ]


def _emit_log(state: RunState, command: EmitLog) -> Decision:
    return _check_attempt(state, command.step, command.attempt, command.token) or [
        LogEmitted(
            step=command.step,
            attempt=command.attempt,
            token=command.token,
            level=command.level,
            message=command.message,
            fields=command.fields,
        )
    ]


def _emit_metric(state: RunState, command: EmitMetric) -> Decision:
    return _check_attempt(state, command.step, command.attempt, command.token) or [
        MetricEmitted(
            step=command.step,
            attempt=command.attempt,
            token=command.token,
            name=command.name,
            value=command.value,
            labels=command.labels,
        )
    ]


def _record_effect(state: RunState, command: RecordEffect) -> Decision:
    return _check_attempt(state, command.step, command.attempt, command.token) or [
        EffectRecorded(
            step=command.step,
            attempt=command.attempt,
            token=command.token,
            name=command.name,
            ordinal=command.ordinal,
            via=command.via,
            arguments=command.arguments,
            result=command.result,
            error=command.error,
            duration_us=command.duration_us,
        )
    ]


def _check_attempt(state: RunState, name: str, attempt: int, token: int) -> Refusal | None:
    step: StepState | None = state.steps.get(name)
    if step is None:
        return Refusal(f"there is no step {name!r}")
    if step.token != token or step.attempt != attempt:
        return Refusal(
            f"attempt {attempt} with token {token} is not the current one (attempt {step.attempt}, token {step.token})",
            stale=True,
        )
    if step.status is not StepStatus.RUNNING:
        return Refusal(f"the step is {step.status}", stale=True)
    return None


def _released(state: RunState, name: str) -> list[str]:
    """The steps that become ready when step `name` is done."""
    below = [below for below in state.graph.downstream[name] if state.waiting_on[below] == 1]
    return [name for name in below if state.steps[name].status is StepStatus.PENDING]


def _bury(state: RunState, name: str, reason: str) -> list[Event]:
    events: list[Event] = [StepDead(step=name, reason=reason)]
    if state.active == 1:
        events.append(_run_failed(state, {name: reason}))
    return events


def _run_done(state: RunState) -> RunDone:
    """A sink that is not done yet is so by the next event."""
    return RunDone(outputs={sink: state.steps[sink].done_seq or state.seq + 1 for sink in state.graph.sinks})


def _run_failed(state: RunState, more: Mapping[str, str] | None = None) -> RunFailed:
    """`more`: steps that end in the same answer, and why. The first culprit's reason is the run's."""
    names = tuple(dict.fromkeys([*state.steps_in(*_BLOCKED), *(more or {})]))
    first, *rest = names
    others = ", ".join(rest[:4]) + (f" and {len(rest) - 4} more" if len(rest) > 4 else "")
    why = (more or {}).get(first) or state.steps[first].reason
    return RunFailed(steps=names, reason=f"{first}: {why}{f'; as well: {others}' if rest else ''}")


def _cancel_rest(
    state: RunState, *, except_for: str | None, reason: str | None = None, released: list[str] | None = None
) -> list[Event]:
    why = reason if reason is not None else (state.cancel_requested.reason if state.cancel_requested else "")
    rest = [name for name in state.steps_in(*_CANCELLABLE) if name != except_for]
    rest += released or []
    return [*(StepCancelled(step=name, reason=why) for name in rest), RunCancelled(reason=why)]
