"""Every rule: what is answered to each command in each situation, and what happens at each boundary."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace
from readable_tables import rows
from run_stories import BOOM, MICROSECOND, NOON, OUTPUT, SECOND, STEADY, Story, graph_of, spec

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
from kairos.domain.decisions import decide, expires_at
from kairos.domain.events import LeaseLost, RunCancelled, RunDone, RunFailed, StepDead, StepFailed, StepStarted
from kairos.domain.graph import Graph
from kairos.domain.projection import RunState
from kairos.domain.retry import Retry
from kairos.domain.states import StepStatus

# Two steps, b after a. All commands speak of a, with its current attempt and token.
ANSWERS = """
    command        nothing  scheduled  ready      running  resting    due        parked     cancelling  ended
    ClaimRun       refused  claimed    nothing    nothing  nothing    nothing    nothing    nothing     stale
    StartStep      refused  refused    started    refused  refused    retried    refused    refused     stale
    FireRetry      refused  refused    refused    refused  refused    fired      refused    refused     stale
    FinishStep     refused  stale      stale      done     stale      stale      stale      overtaken   stale
    FailStep       refused  stale      stale      failed   stale      stale      stale      given up    stale
    LoseLease      refused  stale      stale      lost     stale      stale      stale      let go      stale
    StopStep       refused  stale      stale      refused  stale      stale      stale      stopped     stale
    RequestCancel  refused  cancelled  cancelled  asked    cancelled  cancelled  cancelled  refused     stale
    FinishCancel   refused  refused    refused    refused  refused    refused    refused    stopped     stale
    Expire         refused  nothing    nothing    nothing  nothing    nothing    nothing    nothing     stale
    RejectWrite    refused  evidence   evidence   evidence evidence   evidence   evidence   evidence    stale
    EmitLog        refused  stale      stale      log      stale      stale      stale      log         stale
    EmitMetric     refused  stale      stale      metric   stale      stale      stale      metric      stale
    RecordEffect   refused  stale      stale      effect   stale      stale      stale      effect      stale
""".replace("evidence evidence", "evidence  evidence")

MEANING = """
    word       events
    nothing    -
    claimed    run_started
    started    step_started
    retried    timer_fired step_started
    fired      timer_fired
    done       step_done
    failed     step_failed
    lost       lease_lost
    asked      run_cancel_requested
    cancelled  run_cancel_requested step_cancelled run_cancelled
    stopped    step_cancelled run_cancelled
    overtaken  step_done step_cancelled run_cancelled
    given up   step_failed step_cancelled run_cancelled
    let go     lease_lost step_cancelled run_cancelled
    evidence   stale_write_rejected
    log        log_emitted
    metric     metric_emitted
    effect     effect_recorded
"""
EVENTS = {word: [] if kinds == "-" else kinds.split() for word, kinds in rows(MEANING)}
SITUATIONS = ["nothing", "scheduled", "ready", "running", "resting", "due", "parked", "cancelling", "ended"]
CELLS = [(row[0], where, cell) for row in rows(ANSWERS) for where, cell in zip(SITUATIONS, row[1:], strict=True)]
ENDS = ["DONE", "FAILED", "CANCELLED", "EXPIRED"]


def told(situation: str, graph: Graph | None = None) -> Story:
    """A story that has come to `situation`."""
    graph = graph or graph_of(a="", b="a")
    match situation:
        case "nothing":
            story = Story(graph)
            story.run.state = RunState(UUID(int=1), graph)
            return story
        case "scheduled":
            return Story(graph)
        case "ready":
            return Story(graph).claim()
        case "running":
            return Story(graph).claim().start("a")
        case "resting":
            return Story(graph).claim().start("a").fail("a").wait(9 * SECOND)
        case "due":
            return Story(graph).claim().start("a").fail("a").wait(10 * SECOND)
        case "parked":
            story = Story(graph).claim().start("a")
            story.state.steps["a"].status = StepStatus.WAITING
            story.state.running -= 1
            return story
        case "cancelling":
            story = Story(graph).claim().start("a")
            story.ask(RequestCancel("ann", "wrong order"))
            return story
        case "DONE":
            return Story(graph).claim().start("a").finish("a").start("b").finish("b")
        case "FAILED":
            return Story(graph).claim().start("a").fail("a", retryable=False)
        case "CANCELLED":
            story = Story(graph)
            story.ask(RequestCancel("ann", "wrong order"))
            return story
        case "EXPIRED":
            story = Story(graph, expires_at=NOON)
            story.ask(Expire())
            return story
    raise AssertionError(situation)


def commands(story: Story, step: str = "a") -> dict[str, Command]:
    attempt, token = story.attempt(step) if step in story.state.steps else (1, 1)
    every: list[Command] = [
        ClaimRun("w2", 2),
        StartStep(step, "0" * 16),
        FireRetry(step),
        FinishStep(step, attempt, token, OUTPUT),
        FailStep(step, attempt, token, BOOM),
        LoseLease(step, token, "worker_lost"),
        StopStep(step, attempt, token),
        RequestCancel("bob", "again"),
        FinishCancel(),
        Expire(),
        RejectWrite(step, attempt, token, "w9", "step_done"),
        EmitLog(step, attempt, token, "info", "hello"),
        EmitMetric(step, attempt, token, "rows", 1.0),
        RecordEffect(step, attempt, token, "tax", 1, "call", result=OUTPUT),
    ]
    return {type(command).__name__: command for command in every}


def shown(answer: Any) -> str | list[str]:
    if isinstance(answer, Refusal):
        assert answer.reason
        return "stale" if answer.stale else "refused"
    return [event.kind for event in answer]


def test_the_table_of_answers_has_a_row_for_every_command() -> None:
    assert [row[0] for row in rows(ANSWERS)] == [kind.__name__ for kind in Command.__args__]


@pytest.mark.parametrize(("command", "situation", "answer"), CELLS)
def test_what_is_answered_to_each_command_in_each_situation(command: str, situation: str, answer: str) -> None:
    for name in ENDS if situation == "ended" else [situation]:
        story = told(name)
        assert shown(story.ask(commands(story)[command])) == EVENTS.get(answer, answer)


@pytest.mark.parametrize("end", ENDS)
def test_the_stories_of_a_run_that_has_ended_end_as_they_say(end: str) -> None:
    assert told(end).state.status == end


WRONG_ATTEMPTS = """
    attempt  token  answer
    0        0      accepted
    0        1      stale
    0        -1     stale
    1        0      stale
    -1       0      stale
    1        1      stale
    -1       -1     stale
"""
FENCED: list[str] = ["FinishStep", "FailStep", "StopStep", "EmitLog", "EmitMetric", "RecordEffect"]


@pytest.mark.parametrize("command", FENCED)
@pytest.mark.parametrize(("attempt", "token", "answer"), rows(WRONG_ATTEMPTS))
def test_only_the_current_attempt_under_its_own_token_may_speak(
    command: str, attempt: str, token: str, answer: str
) -> None:
    story = told("running").lose("a").start("a")  # so that there are older numbers to be wrong with
    story.ask(RequestCancel("ann", "wrong order"))
    right: Any = commands(story)[command]
    asked = replace(right, attempt=right.attempt + int(attempt), token=right.token + int(token))
    assert (shown(story.ask(asked)) == "stale") == (answer == "stale")


@pytest.mark.parametrize(("off", "answer"), [(0, ["lease_lost"]), (1, "stale"), (-1, "stale")])
def test_a_lease_is_lost_by_its_token(off: int, answer: Any) -> None:
    story = told("running").lose("a").start("a")
    assert shown(story.ask(LoseLease("a", story.attempt("a")[1] + off, "worker_lost"))) == answer


@pytest.mark.parametrize("situation", [name for name in SITUATIONS if name not in ("nothing", "ended")])
@pytest.mark.parametrize("command", [*FENCED, "StartStep", "LoseLease", "RejectWrite"])
def test_a_step_that_does_not_exist_is_refused_by_name(command: str, situation: str) -> None:
    story = told(situation)
    answer = story.ask(commands(story, "ghost")[command])
    assert isinstance(answer, Refusal)
    assert answer.stale is False
    assert "ghost" in answer.reason or "the run is" in answer.reason


# --- time to live -------------------------------------------------------------------------------------------

TTL = """
    microseconds past the end  claim        expire       start a step
    -1                         run_started  nothing      step_started
    0                          run_expired  run_expired  step_expired
    1                          run_expired  run_expired  step_expired
"""


@pytest.mark.parametrize(("past", "claim", "expire", "start"), rows(TTL))
def test_what_expires_at_t_is_good_strictly_before_t(past: str, claim: str, expire: str, start: str) -> None:
    end = timedelta(minutes=1) + int(past) * MICROSECOND

    def run(command: Command) -> str:
        story = Story(graph_of(a=""), expires_at=NOON + timedelta(minutes=1)).wait(end)
        answer = story.ask(command)
        assert not isinstance(answer, Refusal)
        return answer[-1].kind if answer else "nothing"

    assert run(ClaimRun("w1", 1)) == claim
    assert run(Expire()) == expire

    story = Story(graph_of(a=spec("a", ttl=timedelta(minutes=1)), b="")).claim().wait(end)
    answer = story.ask(StartStep("a"))
    assert not isinstance(answer, Refusal)
    assert [event.kind for event in answer] == [start]

    story = Story(graph_of(a=spec("a", ttl=timedelta(minutes=1)), b="")).claim().wait(end)
    answer = story.ask(Expire())
    assert not isinstance(answer, Refusal)
    assert [event.kind for event in answer] == ([] if expire == "nothing" else ["step_expired"])


def test_an_expired_run_says_why_and_takes_its_waiting_steps_with_it() -> None:
    story = Story(graph_of(a="", b="", c="a"), expires_at=NOON + 5 * SECOND).wait(5 * SECOND)
    assert shown(story.ask(Expire())) == ["step_expired", "step_expired", "run_expired"]
    assert story.statuses() == {"a": "EXPIRED", "b": "EXPIRED", "c": "PENDING"}
    assert story.state.reason == "no worker took it within its time to live; it waited 5s"


def test_a_run_that_was_started_in_time_expires_no_more() -> None:
    story = Story(graph_of(a=""), expires_at=NOON + SECOND).claim().wait(timedelta(days=1))
    assert shown(story.ask(Expire())) == []
    assert shown(story.ask(StartStep("a"))) == ["step_started"]


def test_the_time_to_live_of_a_step_counts_from_when_it_became_ready() -> None:
    graph = graph_of(a="", b=spec("b", "a", ttl=10 * SECOND))
    story = Story(graph).claim().wait(timedelta(hours=1)).start("a").wait(5 * SECOND).finish("a")
    assert expires_at(story.state, "b") == story.now + 10 * SECOND
    story.wait(10 * SECOND - MICROSECOND)
    assert shown(story.ask(Expire())) == []
    assert shown(story.wait(MICROSECOND).ask(Expire())) == ["step_expired", "run_failed"]


@pytest.mark.parametrize("setback", ["fail", "lose"])
def test_a_step_that_was_started_once_never_expires(setback: str) -> None:
    story = Story(graph_of(a=spec("a", ttl=SECOND))).claim().start("a")
    getattr(story, setback)("a")
    story.wait(timedelta(days=1))
    assert expires_at(story.state, "a") is None
    assert shown(story.ask(Expire())) == []
    assert shown(story.ask(StartStep("a")))[-1] == "step_started"


def test_a_step_without_time_to_live_waits_for_ever() -> None:
    story = Story(graph_of(a="")).claim().wait(timedelta(days=36500))
    assert expires_at(story.state, "a") is None
    assert shown(story.ask(Expire())) == []


def test_one_sweep_expires_all_that_is_due_and_nothing_else() -> None:
    graph = graph_of(a=spec("a", ttl=SECOND), b=spec("b", ttl=2 * SECOND), c=spec("c", ttl=2 * SECOND), d="")
    story = Story(graph).claim().wait(2 * SECOND - MICROSECOND)
    assert shown(story.ask(Expire())) == ["step_expired"]
    assert shown(story.wait(MICROSECOND).ask(Expire())) == ["step_expired", "step_expired"]
    assert story.statuses() == {"a": "EXPIRED", "b": "EXPIRED", "c": "EXPIRED", "d": "SCHEDULED"}
    story.start("d").finish("d")
    assert story.state.status == "FAILED"
    assert story.kinds[-2:] == ["step_done", "run_failed"]


def test_what_is_being_cancelled_does_not_expire() -> None:
    story = Story(graph_of(a="", b=spec("b", ttl=SECOND))).claim().start("a")
    story.ask(RequestCancel("ann", "no"))
    assert shown(story.wait(timedelta(days=1)).ask(Expire())) == []


# --- retries ------------------------------------------------------------------------------------------------

OUTCOMES = """
    attempts allowed  failed before  retryable  now
    1                 0              yes        dead
    1                 0              no         dead
    2                 0              yes        rests
    2                 1              yes        dead
    5                 0              yes        rests
    5                 3              yes        rests
    5                 4              yes        dead
    5                 0              no         dead
    5                 3              no         dead
"""


@pytest.mark.parametrize(("attempts", "before", "retryable", "now"), rows(OUTCOMES))
def test_a_failed_step_rests_until_its_attempts_are_used_up(
    attempts: str, before: str, retryable: str, now: str
) -> None:
    story = Story(graph_of(a=spec("a", retry=Retry(attempts=int(attempts), base=10, factor=1, jitter=0)))).claim()
    for _ in range(int(before)):
        story.start("a").fail("a").wait(10 * SECOND)
    story.start("a")
    answer = story.ask(FailStep("a", *story.attempt("a"), BOOM, retryable=retryable == "yes"))
    assert shown(answer) == (["step_failed"] if now == "rests" else ["step_failed", "step_dead", "run_failed"])
    failed = answer[0] if isinstance(answer, list) else None
    assert isinstance(failed, StepFailed)
    assert failed.retry_at == (story.now + 10 * SECOND if now == "rests" else None)


def test_attempts_that_were_lost_with_their_worker_do_not_count_as_failed() -> None:
    story = Story(graph_of(a="")).claim()
    for _ in range(10):
        story.start("a").lose("a")
    for _ in range(2):
        story.start("a").fail("a").wait(10 * SECOND)
    assert story.state.status == "RUNNING"
    story.start("a").fail("a")
    assert story.state.status == "FAILED"
    step = story.state.steps["a"]
    assert (step.attempt, step.failures, step.losses) == (13, 3, 10)


DUE = """
    microseconds past the pause  answer
    -1                           refused
    0                            timer_fired step_started
    1                            timer_fired step_started
"""


@pytest.mark.parametrize(("past", "answer"), rows(DUE))
def test_the_next_attempt_starts_when_the_pause_ends_and_not_before(past: str, answer: str) -> None:
    story = told("running").fail("a").wait(10 * SECOND + int(past) * MICROSECOND)
    assert shown(story.ask(StartStep("a"))) == (answer if answer == "refused" else answer.split())


def test_a_dead_letter_says_which_attempt_it_was_or_that_no_other_would_help() -> None:
    story = told("running", graph_of(a=spec("a", retry=Retry(attempts=1))))
    story.fail("a")
    assert story.state.steps["a"].reason == "ValueError: boom (attempt 1 of 1)"
    assert told("FAILED").state.steps["a"].reason == "ValueError: boom (not retryable)"


def test_every_attempt_has_its_own_number_and_a_higher_token() -> None:
    story = Story(graph_of(a="", b="")).claim().start("a", "b").lose("a").start("a", worker="w2", isolated=True)
    started = [event for event in story.events if isinstance(event, StepStarted)]
    assert [(e.step, e.attempt, e.token, e.worker, e.isolated) for e in started] == [
        ("a", 1, 1, None, False),
        ("b", 1, 2, None, False),
        ("a", 2, 3, "w2", True),
    ]


# --- crashes ------------------------------------------------------------------------------------------------

CRASHES = """
    crash limit  crashes alone before  alone now  answer
    1            0                     no         lease_lost
    1            0                     yes        step_failed step_dead run_failed
    3            0                     yes        lease_lost
    3            1                     yes        lease_lost
    3            2                     yes        step_failed step_dead run_failed
    3            2                     no         lease_lost
"""


@pytest.mark.parametrize(("limit", "before", "alone", "answer"), rows(CRASHES))
def test_only_crashes_while_running_alone_kill_a_step(limit: str, before: str, alone: str, answer: str) -> None:
    story = Story(graph_of(a=spec("a", crash_limit=int(limit)))).claim()
    for _ in range(int(before)):
        story.start("a", isolated=True).lose("a", alone=True)
    for _ in range(5):
        story.start("a").lose("a", suspect=True)
    story.start("a")
    token = story.attempt("a")[1]
    lost = story.ask(LoseLease("a", token, "crashed", signal="SIGSEGV", alone=alone == "yes"))
    assert shown(lost) == answer.split()
    if "step_dead" in answer:
        n = int(before) + 1
        reason = f"its process died {n} time{'s' if n > 1 else ''} while running nothing else (SIGSEGV)"
        assert story.state.steps["a"].reason == reason
        error = story.state.steps["a"].error
        assert error is not None
        assert error.type == "kairos.WorkerCrashed"


def test_once_a_suspect_always_a_suspect() -> None:
    story = told("running").lose("a", suspect=True).start("a").lose("a")
    assert story.state.steps["a"].suspect
    lost = [event for event in story.events if isinstance(event, LeaseLost)]
    assert [event.suspect for event in lost] == [True, False]


def test_a_crash_while_the_run_is_being_cancelled_ends_it_as_cancelled() -> None:
    story = Story(graph_of(a=spec("a", crash_limit=1), b="")).claim().start("a")
    story.ask(RequestCancel("ann", "wrong order"))
    story.lose("a", alone=True)
    assert story.state.status == "CANCELLED"
    assert story.statuses() == {"a": "CANCELLED", "b": "CANCELLED"}


# --- how runs end -------------------------------------------------------------------------------------------


def test_a_run_is_done_when_its_last_step_is_and_says_where_its_outputs_are() -> None:
    story = Story(graph_of(a="", b="a", c="a")).claim().start("a").finish("a").start("b", "c").finish("c", "b")
    assert story.kinds[-2:] == ["step_done", "run_done"]
    done = story.events[-1]
    assert isinstance(done, RunDone)
    where = {row.step: row.seq for row in story.rows if row.kind == "step_done"}
    assert done.outputs == {"b": where["b"], "c": where["c"]}
    assert story.state.outputs == done.outputs


def test_two_siblings_that_finish_at_once_give_one_join() -> None:
    story = Story(graph_of(a="", b="", c="a b")).claim().start("a", "b").finish("a")
    assert story.state.steps["c"].status == "PENDING"
    assert shown(story.ask(StartStep("c"))) == "refused"
    story.finish("b")
    assert list(story.state.ready) == ["c"]
    story.start("c").finish("c")
    assert story.kinds.count("run_done") == 1


def test_independent_branches_go_on_after_a_step_is_dead_and_then_the_run_fails() -> None:
    story = Story(graph_of(a="", b="", c="b", d="a c")).claim().start("a").fail("a", retryable=False)
    assert story.kinds[-1] == "step_dead"
    story.start("b").finish("b").start("c")
    assert story.state.status == "RUNNING"
    story.finish("c")
    assert story.kinds[-2:] == ["step_done", "run_failed"]
    failed = story.events[-1]
    assert isinstance(failed, RunFailed)
    assert failed.steps == ("a",)
    assert failed.reason == "a: ValueError: boom (not retryable)"
    assert story.statuses() == {"a": "DEAD", "b": "DONE", "c": "DONE", "d": "PENDING"}


def test_a_run_does_not_fail_while_a_step_rests_or_runs() -> None:
    story = Story(graph_of(a="", b="", c="")).claim().start("a", "b").fail("b").fail("a", retryable=False)
    assert story.state.status == "RUNNING"
    story.wait(10 * SECOND).start("b").fail("b", retryable=False)
    assert story.state.status == "RUNNING"
    story.start("c").fail("c", retryable=False)
    assert story.state.status == "FAILED"
    assert story.state.reason == "a: ValueError: boom (not retryable); as well: b, c"


def test_a_long_list_of_culprits_is_cut_in_the_reason_and_whole_in_the_event() -> None:
    names = [f"s{i}" for i in range(8)]
    story = Story(graph_of(**dict.fromkeys(names, ""))).claim().start(*names)
    for name in names:
        story.fail(name, retryable=False)
    failed = story.events[-1]
    assert isinstance(failed, RunFailed)
    assert failed.steps == tuple(names)
    assert failed.reason == "s0: ValueError: boom (not retryable); as well: s1, s2, s3, s4 and 3 more"


# --- cancelling ---------------------------------------------------------------------------------------------


def test_a_cancelled_run_waits_for_its_running_steps_and_starts_nothing_new() -> None:
    story = Story(graph_of(a="", b="", c="", d="a")).claim().start("a", "b")
    story.ask(RequestCancel("ann", "wrong order"))
    assert shown(story.ask(StartStep("c"))) == "refused"
    assert shown(story.ask(StopStep("b", *story.attempt("b")))) == ["step_cancelled"]
    assert story.state.status == "RUNNING"
    story.finish("a")
    assert story.state.status == "CANCELLED"
    assert story.statuses() == {"a": "DONE", "b": "CANCELLED", "c": "CANCELLED", "d": "CANCELLED"}
    assert story.state.reason == "wrong order"


def test_a_run_whose_last_step_finishes_while_it_is_being_cancelled_is_done() -> None:
    story = Story(graph_of(a="")).claim().start("a")
    story.ask(RequestCancel("ann", "too late"))
    story.finish("a")
    assert story.state.status == "DONE"


def test_a_step_that_fails_while_it_is_being_cancelled_is_not_tried_again() -> None:
    story = Story(graph_of(a="", b="")).claim().start("a", "b")
    story.ask(RequestCancel("ann", "no"))
    answer = story.ask(FailStep("a", *story.attempt("a"), BOOM))
    assert shown(answer) == ["step_failed", "step_cancelled"]
    failed = answer[0] if isinstance(answer, list) else None
    assert isinstance(failed, StepFailed)
    assert failed.retry_at is None
    story.fail("b")
    assert story.kinds[-3:] == ["step_failed", "step_cancelled", "run_cancelled"]


def test_the_end_of_the_grace_revokes_every_fence() -> None:
    story = Story(graph_of(a="", b="")).claim().start("a", "b")
    story.ask(RequestCancel("ann", "no"))
    assert shown(story.ask(FinishCancel())) == ["step_cancelled", "step_cancelled", "run_cancelled"]
    assert shown(story.ask(FinishStep("a", *story.attempt("a"), OUTPUT))) == "stale"


def test_what_never_became_ready_stays_pending() -> None:
    story = Story(graph_of(a="", b="a", c="b"))
    story.ask(RequestCancel("ann", "no"))
    assert story.statuses() == {"a": "CANCELLED", "b": "PENDING", "c": "PENDING"}
    ended = story.events[-1]
    assert isinstance(ended, RunCancelled)
    assert ended.reason == "no"


# --- what a later owner finds -------------------------------------------------------------------------------


def test_a_later_claim_changes_nothing_by_itself() -> None:
    story = told("running")
    assert shown(story.ask(ClaimRun("w2", 2))) == []
    assert story.state.worker == "w1"
    story.lose("a", suspect=True).start("a").finish("a")
    assert shown(story.ask(StartStep("b"))) == ["step_started"]


def test_a_late_report_of_a_lost_attempt_is_refused_and_can_be_kept_as_evidence() -> None:
    story = told("running")
    late = story.attempt("a")
    story.lose("a").start("a")
    assert shown(story.ask(FinishStep("a", *late, OUTPUT))) == "stale"
    assert shown(story.ask(RejectWrite("a", *late, "w1", "step_done"))) == ["stale_write_rejected"]
    assert story.state.stale_writes == 1
    assert story.state.steps["a"].status == "RUNNING"


def test_a_crashed_step_dies_with_an_error_that_says_what_to_do() -> None:
    story = Story(graph_of(a=spec("a", crash_limit=1))).claim().start("a").lose("a", alone=True)
    dead = [event for event in story.events if isinstance(event, StepDead)]
    assert [event.reason for event in dead] == ["its process died 1 time while running nothing else"]


def test_the_rules_read_the_time_only_from_their_argument() -> None:
    story = told("running")
    early = decide(story.state, FailStep("a", *story.attempt("a"), BOOM), NOON - timedelta(days=1))
    assert isinstance(early, list)
    failed = early[0]
    assert isinstance(failed, StepFailed)
    assert failed.retry_at == NOON - timedelta(days=1) + STEADY.base_delay
