"""The fold: what an event changes, and that a log which cannot have happened is refused, not guessed at."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest
from run_stories import BOOM, NOON, OUTPUT, RUN_ID, SECOND, Story, graph_of, scheduled

from kairos.domain.events import (
    EVENT_TYPES,
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
from kairos.domain.projection import RunState, apply, project
from kairos.domain.states import RUN_TRANSITIONS, STEP_TRANSITIONS, RunStatus, StepStatus
from kairos.errors import HistoryError, InvalidTransition


def examples(step: str = "a", attempt: int = 1, token: int = 1) -> dict[str, Event]:
    """One event of every kind, about `step`; a start takes the next attempt and token."""
    who: dict[str, Any] = {"step": step, "attempt": attempt, "token": token}
    every: list[Event] = [
        scheduled(graph_of(a="", b="a")),
        RunStarted(epoch=1, worker="w1"),
        RunDone(outputs={}),
        RunFailed(steps=("a",), reason="x"),
        RunExpired(reason="x"),
        RunCancelRequested(author="ann", reason="x"),
        RunCancelled(reason="x"),
        StepStarted(step=step, attempt=attempt + 1, token=token + 1, input_hash=""),
        StepDone(**who, output=OUTPUT),
        StepFailed(**who, error=BOOM, retry_at=NOON),
        StepDead(step=step, reason="x"),
        StepExpired(step=step, reason="x"),
        StepCancelled(step=step, reason="x"),
        TimerFired(step=step, timer="retry"),
        LeaseLost(**who, reason="released"),
        StaleWriteRejected(**who, worker="w1", what="step_done"),
        MetricEmitted(**who, name="rows", value=1),
        LogEmitted(**who, level="info", message="x"),
        EffectRecorded(**who, name="x", ordinal=1, via="call", result=OUTPUT),
        RunForked(parent="p", root="p", parent_seq=4, from_step=step, author="ann", reason="x"),
        StepsInherited(run="p", outputs={step: (3, 11, "00ff", False)}),
        StepOverridden(step=step, output=OUTPUT),
    ]
    return {event.kind: event for event in every}


MOVES_A_STEP = {kind for (_, kind) in STEP_TRANSITIONS} & EVENT_TYPES.keys()
MOVES_A_RUN = {kind for (_, kind) in RUN_TRANSITIONS} & EVENT_TYPES.keys()
MOVES_NOTHING = EVENT_TYPES.keys() - MOVES_A_STEP - MOVES_A_RUN - {"run_scheduled"}


def with_step_in(status: StepStatus) -> RunState:
    """A running run whose step a has had attempt 1 under token 1 and is in `status`."""
    state = Story(graph_of(a="", b="a")).claim().start("a").state
    state.steps["a"].status = status
    state.running = int(status is StepStatus.RUNNING)
    state.active = int(status.value in ("SCHEDULED", "RUNNING", "FAILED", "WAITING"))
    state.ready = {"a": None} if status is StepStatus.SCHEDULED else {}
    return state


def take(state: RunState, event: Event, after: timedelta = SECOND) -> None:
    apply(state, Recorded(state.seq + 1, (state.at or NOON) + after, event))


def test_there_is_an_example_of_every_kind() -> None:
    assert examples().keys() == EVENT_TYPES.keys()
    assert {"run_cancel_requested", "stale_write_rejected", "metric_emitted", "log_emitted"} | {
        "effect_recorded",
        "run_forked",
        "steps_inherited",  # moves by `step_inherited`, each of its steps
    } == MOVES_NOTHING


@pytest.mark.parametrize("kind", sorted(MOVES_A_STEP))
@pytest.mark.parametrize("status", list(StepStatus))
def test_the_fold_moves_a_step_only_as_the_table_says(status: StepStatus, kind: str) -> None:
    state = with_step_in(status)
    before = copy.deepcopy(state)
    after = STEP_TRANSITIONS.get((status, kind))
    if after is None:
        with pytest.raises(InvalidTransition):
            take(state, examples()[kind])
        assert state == before
    else:
        take(state, examples()[kind])
        assert state.steps["a"].status is after
        assert (state.seq, state.at) == (before.seq + 1, NOON + SECOND)


@pytest.mark.parametrize("kind", sorted(MOVES_A_RUN))
@pytest.mark.parametrize("status", list(RunStatus))
def test_the_fold_moves_a_run_only_as_the_table_says(status: RunStatus, kind: str) -> None:
    state = with_step_in(StepStatus.RUNNING)
    state.status = status
    before = copy.deepcopy(state)
    after = RUN_TRANSITIONS.get((status, kind))
    if after is None:
        with pytest.raises(InvalidTransition):
            take(state, examples()[kind])
        assert state == before
    else:
        take(state, examples()[kind])
        assert state.status is after


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
@pytest.mark.parametrize("status", [status for status in RunStatus if status.is_terminal])
def test_nothing_follows_the_end_of_a_run(status: RunStatus, kind: str) -> None:
    state = with_step_in(StepStatus.RUNNING)
    state.status = status
    before = copy.deepcopy(state)
    with pytest.raises((InvalidTransition, HistoryError)):
        take(state, examples()[kind])
    assert state == before


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES.keys() - {"run_scheduled"}))
def test_a_log_begins_with_run_scheduled_and_with_nothing_else(kind: str) -> None:
    state = RunState(RUN_ID, graph_of(a="", b="a"))
    before = copy.deepcopy(state)
    with pytest.raises(HistoryError):
        apply(state, Recorded(1, NOON, examples()[kind]))
    assert state == before


def test_a_run_is_scheduled_once() -> None:
    state = with_step_in(StepStatus.RUNNING)
    before = copy.deepcopy(state)
    with pytest.raises(HistoryError, match="run_scheduled again"):
        take(state, examples()["run_scheduled"])
    assert state == before


@pytest.mark.parametrize("off", [-1, 0, 2, 100])
def test_a_gap_or_a_repetition_in_seq_is_refused(off: int) -> None:
    state = with_step_in(StepStatus.RUNNING)
    before = copy.deepcopy(state)
    with pytest.raises(HistoryError, match="follows"):
        apply(state, Recorded(state.seq + off, NOON, examples()["step_done"]))
    assert state == before


def test_time_may_stand_still_but_never_goes_back() -> None:
    state = with_step_in(StepStatus.RUNNING)
    take(state, examples()["log_emitted"], after=timedelta(0))
    with pytest.raises(HistoryError, match="older than the one before"):
        take(state, examples()["log_emitted"], after=timedelta(microseconds=-1))


@pytest.mark.parametrize("kind", ["step_done", "step_failed", "lease_lost"])
@pytest.mark.parametrize(("attempt", "token"), [(0, 1), (2, 1), (1, 0), (1, 2), (2, 2), (0, 0)])
def test_the_end_of_an_attempt_carries_its_number_and_its_token(kind: str, attempt: int, token: int) -> None:
    state = with_step_in(StepStatus.RUNNING)
    before = copy.deepcopy(state)
    with pytest.raises(HistoryError, match="carries attempt"):
        take(state, examples(attempt=attempt, token=token)[kind])
    assert state == before


@pytest.mark.parametrize("token", [-1, 0, 1])
def test_a_token_is_given_once_in_a_run(token: int) -> None:
    state = Story(graph_of(a="", b="")).claim().start("a").state
    with pytest.raises(HistoryError, match="is not a new one"):
        take(state, StepStarted(step="b", attempt=1, token=token, input_hash=""))
    take(state, StepStarted(step="b", attempt=1, token=7, input_hash=""))
    assert state.token == state.steps["b"].token == 7


@pytest.mark.parametrize("kind", sorted(MOVES_A_STEP))
def test_a_step_that_is_not_in_the_definition_is_refused_by_name(kind: str) -> None:
    state = with_step_in(StepStatus.RUNNING)
    with pytest.raises(HistoryError, match="ghost"):
        take(state, examples("ghost")[kind])


@pytest.mark.parametrize("kind", ["steps_inherited", "step_overridden"])
def test_a_fork_begins_with_steps_that_are_done_and_releases_what_waits_for_them(kind: str) -> None:
    state = Story(graph_of(a="", b="a", c="b")).state
    take(state, examples()[kind])
    assert [step.status for step in state.steps.values()] == [StepStatus.DONE, StepStatus.SCHEDULED, StepStatus.PENDING]
    assert (list(state.ready), state.undone, state.active, state.steps["a"].done_seq) == (["b"], 2, 1, 2)
    output = state.steps["a"].output
    assert output is not None
    if kind == "steps_inherited":
        assert (output.data, output.origin, output.digest, output.size) == (None, ("p", 3), "00ff", 11)
    with pytest.raises(InvalidTransition):
        take(state, examples()[kind])


def test_an_effect_is_kept_for_the_attempts_that_follow_and_an_error_is_not() -> None:
    state = with_step_in(StepStatus.RUNNING)
    take(state, examples()["effect_recorded"])
    take(state, EffectRecorded(step="a", attempt=1, token=1, name="x", ordinal=2, via="call", error=BOOM))
    effects = state.steps["a"].effects
    assert effects is not None
    assert list(effects) == [("x", 1)]
    with pytest.raises(HistoryError, match="carries attempt 9"):
        take(state, EffectRecorded(step="a", attempt=9, token=1, name="x", ordinal=2, via="call", result=OUTPUT))


@pytest.mark.parametrize("kind", sorted(MOVES_NOTHING - {"steps_inherited"}))
def test_evidence_and_reports_move_nothing(kind: str) -> None:
    state = with_step_in(StepStatus.RUNNING)
    before = copy.deepcopy(state)
    take(state, examples()[kind])
    state.steps["a"].effects = None  # what the world said is kept; it moves nothing
    assert (state.status, state.steps, state.ready) == (before.status, before.steps, before.ready)


def test_the_fold_of_every_prefix_is_the_state_as_it_was_then() -> None:
    story = Story(graph_of(a="", b="a", c="a")).claim().start("a").finish("a").start("b", "c").fail("b")
    story.wait(10 * SECOND).start("b").lose("c").start("c").finish("b", "c")
    log = [Recorded(row.seq, row.at, event) for row, event in zip(story.rows, story.events, strict=True)]
    live = RunState(RUN_ID, story.state.graph)
    for n, recorded in enumerate(log, 1):
        apply(live, recorded)
        assert project(RUN_ID, story.state.graph, log[:n]) == live
    assert live == story.state


def test_a_step_remembers_when_it_became_ready_began_and_ended() -> None:
    story = Story(graph_of(a="", b="a")).wait(SECOND).claim().wait(SECOND).start("a").wait(SECOND).finish("a")
    a, b = story.state.steps["a"], story.state.steps["b"]
    assert (a.scheduled_at, a.started_at, a.finished_at) == (NOON, NOON + 2 * SECOND, NOON + 3 * SECOND)
    assert (b.scheduled_at, b.started_at, b.finished_at) == (NOON + 3 * SECOND, None, None)
    assert (story.state.scheduled_at, story.state.started_at) == (NOON, NOON + SECOND)


def test_ready_steps_wait_in_the_order_in_which_they_became_so() -> None:
    story = Story(graph_of(a="", b="", c="b", d="a", e="b")).claim()
    assert list(story.state.ready) == ["a", "b"]
    story.start("b", "a").finish("b")
    assert list(story.state.ready) == ["c", "e"]
    story.lose("a")
    assert list(story.state.ready) == ["c", "e", "a"]


def test_an_output_is_named_by_the_event_that_holds_it() -> None:
    story = Story(graph_of(a="", b="a")).claim().start("a").fail("a").wait(10 * SECOND).start("a").finish("a")
    step = story.state.steps["a"]
    assert story.rows[step.done_seq - 1].kind == "step_done"
    assert (step.output, step.error, step.failures, step.attempt) == (OUTPUT, None, 1, 2)
