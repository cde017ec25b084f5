"""The laws of a run, worked out anew from its whole log, slowly and without any code of the projection."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from kairos.domain.events import (
    EffectRecorded,
    Event,
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
    output_in,
)
from kairos.domain.graph import Graph
from kairos.domain.projection import RunState

Log = Sequence[Recorded]

STATUS_AFTER: dict[type[Event], str] = {
    StepStarted: "RUNNING",
    StepDone: "DONE",
    StepFailed: "FAILED",
    StepDead: "DEAD",
    StepExpired: "EXPIRED",
    StepCancelled: "CANCELLED",
    TimerFired: "SCHEDULED",
    LeaseLost: "SCHEDULED",
}
RUN_STATUS_AFTER: dict[type[Event], str] = {
    RunScheduled: "SCHEDULED",
    RunStarted: "RUNNING",
    RunDone: "DONE",
    RunFailed: "FAILED",
    RunExpired: "EXPIRED",
    RunCancelled: "CANCELLED",
}
ENDS = (RunDone, RunFailed, RunExpired, RunCancelled)
REMARKS = (LogEmitted, MetricEmitted, StaleWriteRejected)
FORKING = (RunForked, StepsInherited, StepOverridden)
ACTIVE = ("SCHEDULED", "RUNNING", "FAILED", "WAITING")


def moves_of(log: Log, step: str) -> list[Recorded]:
    """What moved one step, in order."""
    return [r for r in log if type(r.event) in STATUS_AFTER and getattr(r.event, "step", None) == step]


def done_by(log: Log) -> dict[str, Recorded]:
    """The event that made each step DONE: its own end, an inheritance, or the author of the fork."""
    found: dict[str, Recorded] = {}
    for recorded in log:
        event = recorded.event
        names = event.outputs if isinstance(event, StepsInherited) else ()
        names = (event.step,) if isinstance(event, StepDone | StepOverridden) else names
        for name in names:
            assert name not in found, "a step was done twice"
            found[name] = recorded
    return found


def done_steps(log: Log) -> set[str]:
    return set(done_by(log))


def status_of(graph: Graph, log: Log, step: str) -> str:
    """The status of a step: what its last event made of it, or what its upstream did."""
    moves = moves_of(log, step)
    if step in done_steps(log):
        return "DONE"
    if moves:
        return STATUS_AFTER[type(moves[-1].event)]
    ready = log and set(graph.steps[step].upstream) <= done_steps(log)
    return "SCHEDULED" if ready else "PENDING"


def open_attempts(log: Log) -> set[tuple[str, int, int]]:
    """The attempts that have begun and not ended: only these may speak."""
    found: dict[str, tuple[str, int, int]] = {}
    for recorded in log:
        event = recorded.event
        if isinstance(event, StepStarted):
            found[event.step] = (event.step, event.attempt, event.token)
        elif type(event) in STATUS_AFTER:
            found.pop(event.step, None)  # type: ignore[union-attr]
    return set() if log and isinstance(log[-1].event, ENDS) else set(found.values())


def effects_of(log: Log, step: str) -> dict[tuple[str, int], EffectRecorded]:
    """What the attempts of a step may build on: of each place, the last effect that went well."""
    went_well = [r.event for r in log if isinstance(r.event, EffectRecorded) and r.event.error is None]
    return {(event.name, event.ordinal): event for event in went_well if event.step == step}


def became_ready(graph: Graph, log: Log, step: str) -> tuple[int, int]:
    """The seq of the event that made a SCHEDULED step so; of those that an inheritance did, by whose turn it was."""
    moves = moves_of(log, step)
    if moves:
        return moves[-1].seq, 0
    done, position = done_by(log), {name: i for i, name in enumerate(graph.steps)}
    return max(
        (
            (done[up].seq, position[up] if isinstance(done[up].event, StepsInherited) else 0)
            for up in graph.steps[step].upstream
        ),
        default=(1, 0),
    )


def check_state(state: RunState, log: Log) -> None:
    """Compare all that the fold keeps count of with what the log says."""
    graph = state.graph
    statuses = {name: status_of(graph, log, name) for name in graph.steps}
    assert {name: step.status.value for name, step in state.steps.items()} == statuses
    runs = [RUN_STATUS_AFTER[type(r.event)] for r in log if type(r.event) in RUN_STATUS_AFTER]
    assert state.status.value == runs[-1]
    done = done_steps(log)
    position = {name: i for i, name in enumerate(graph.steps)}
    ready = [name for name, status in statuses.items() if status == "SCHEDULED"]
    expected: dict[str, Any] = {
        "seq": len(log),
        "at": log[-1].at,
        "active": sum(status in ACTIVE for status in statuses.values()),
        "running": sum(status == "RUNNING" for status in statuses.values()),
        "undone": len(graph.steps) - len(done),
        "waiting_on": {name: len(set(spec.upstream) - done) for name, spec in graph.steps.items()},
        "token": max((r.event.token for r in log if isinstance(r.event, StepStarted)), default=0),
        "stale_writes": sum(isinstance(r.event, StaleWriteRejected) for r in log),
    }
    assert {name: getattr(state, name) for name in expected} == expected
    assert list(state.ready) == sorted(ready, key=lambda name: (became_ready(graph, log, name), position[name]))
    for name, step in state.steps.items():
        moves = [r.event for r in moves_of(log, name)]
        starts = [event for event in moves if isinstance(event, StepStarted)]
        losses = [event for event in moves if isinstance(event, LeaseLost)]
        made = done_by(log).get(name)
        told = {
            "attempt": len(starts),
            "token": starts[-1].token if starts else 0,
            "failures": sum(isinstance(event, StepFailed) for event in moves),
            "losses": len(losses),
            "crashes": sum(event.alone for event in losses),
            "suspect": any(event.suspect for event in losses),
            "effects": effects_of(log, name) or None,
            "output": output_in(made.event, name) if made else None,
            "done_seq": made.seq if made else 0,
        }
        assert {key: getattr(step, key) for key in told} == told, name


def check_log(graph: Graph, log: Log) -> None:
    """Every law that a log obeys, at whatever event it is cut."""
    assert [r.seq for r in log] == list(range(1, len(log) + 1))
    assert all(a.at <= b.at for a, b in pairwise(log)), "time went back"
    assert [isinstance(r.event, RunScheduled) for r in log] == [True] + [False] * (len(log) - 1)
    assert not any(isinstance(r.event, ENDS) for r in log[:-1]), "something follows the end"
    begun = cancelled = False
    token = 0
    done: set[str] = set()
    attempts: dict[str, int] = {}
    failures: dict[str, int] = {}
    crashes: dict[str, int] = {}
    alive: dict[str, tuple[int, int]] = {}
    due: dict[str, Any] = {}
    for recorded in log:
        event = recorded.event
        match event:
            case RunStarted():
                assert not begun, "a run starts once"
                begun = True
            case RunCancelRequested():
                assert not cancelled, "a run is asked to stop once"
                cancelled = True
            case StepStarted(step=step):
                assert begun, "a step started before its run"
                assert not cancelled, "a step started in a run that is being cancelled"
                assert set(graph.steps[step].upstream) <= done, "a step started before what it waits for was done"
                assert step not in alive, "two attempts of a step at once"
                assert step not in done, "a step started again after it was done"
                assert event.token > token, "a token was given twice"
                token = event.token
                attempts[step] = attempts.get(step, 0) + 1
                assert event.attempt == attempts[step], "attempts are counted from 1"
                alive[step] = (event.attempt, event.token)
            case StepDone(step=step):
                assert alive.pop(step, None) == (event.attempt, event.token), "a stale attempt was done"
                assert step not in done, "a step was done twice"
                done.add(step)
            case StepFailed(step=step):
                assert alive.pop(step, None) == (event.attempt, event.token), "a stale attempt failed"
                policy = graph.steps[step].retry
                failures[step] = failures.get(step, 0) + 1
                assert failures[step] <= policy.attempts or event.retry_at is None, "too many attempts"
                if event.retry_at is not None:
                    assert failures[step] < policy.attempts, "an attempt too many was granted"
                    assert not cancelled, "an attempt was granted in a run that is being cancelled"
                    due[step] = event.retry_at
            case LeaseLost(step=step):
                assert alive.pop(step, None) == (event.attempt, event.token), "a stale attempt was lost"
                crashes[step] = crashes.get(step, 0) + event.alone
                assert crashes[step] < graph.steps[step].crash_limit or cancelled, "too many crashes"
            case StepCancelled(step=step):
                assert cancelled, "nobody asked for it"
                alive.pop(step, None)
                due.pop(step, None)
            case TimerFired(step=step):
                assert recorded.at >= due.pop(step), "a pause was cut short"
            case StepDead(step=step):
                assert step not in due, "a step died while an attempt was due"
                assert step not in alive
                assert failures.get(step, 0) > 0, "a step died without a failure"
            case StepExpired(step=step):
                assert step not in attempts, "a step expired that had been started"
                assert not cancelled
            case RunDone(outputs=outputs):
                assert done == set(graph.steps), "a run was done before its steps"
                assert outputs == {sink: done_by(log)[sink].seq for sink in graph.sinks}
            case RunForked():
                assert recorded.seq == 2, "a run is told late whose fork it is"
            case StepsInherited(outputs=inherited):
                assert not begun, "a step was inherited by a run that had begun"
                done |= set(inherited)
            case StepOverridden(step=step):
                assert not begun, "a step was overridden in a run that had begun"
                done.add(step)
            case RunFailed(steps=steps):
                blocked = [name for name in graph.steps if status_of(graph, log, name) in ("DEAD", "EXPIRED")]
                assert steps
                assert sorted(steps) == sorted(blocked), "a run failed for other steps than are blocked"
                assert not alive
                assert not cancelled, "a run failed that was being cancelled"
            case RunExpired():
                assert not begun
                assert not attempts
            case RunCancelled():
                assert cancelled, "nobody asked for it"
                assert not alive
            case EffectRecorded(step=step):
                assert alive.get(step) == (event.attempt, event.token), "a stale attempt had an effect"
                assert (event.result is None) != (event.error is None)
            case _:
                assert isinstance(event, (*REMARKS, RunScheduled))


def check_rest(graph: Graph, log: Log) -> None:
    """What holds between two answers: whoever is not at the end has something to wait for."""
    statuses = [status_of(graph, log, name) for name in graph.steps]
    active = [status for status in statuses if status in ACTIVE]
    ended = isinstance(log[-1].event, ENDS)
    assert ended == (not active), "a run ends exactly when none of its steps can go on"
    if any(isinstance(r.event, RunCancelRequested) for r in log) and not ended:
        assert "RUNNING" in active, "a run that is being cancelled waits for nothing"
