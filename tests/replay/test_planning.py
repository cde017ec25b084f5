"""Which steps are run again, which are served, and what an attempt is held against: pure rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import (
    EffectRecorded,
    Event,
    LeaseLost,
    Recorded,
    RunScheduled,
    StepDone,
    StepFailed,
    StepStarted,
)
from kairos.domain.forking import plan_fork, read_parent
from kairos.domain.graph import Graph, StepSpec
from kairos.domain.payload import Payload
from kairos.errors import InvalidArgument
from kairos.replay.compare import Differences, compare
from kairos.replay.facts import Ending, RunFacts, facts_of
from kairos.replay.messages import EffectUse, Ended, Leak, Problem
from kairos.replay.plan import GIVEN, Action, Choice, Mode, Plan, PlannedStep, make_plan
from kairos.replay.results import RunResult, StepResult
from kairos.replay.verdicts import FINE, Verdict, exit_code, is_same_error, judge

AT = datetime(2026, 1, 1, tzinfo=UTC)


def graph(**waits: str) -> Graph:
    """Steps and what they read: `graph(a="", b="a", c="a b")`."""
    specs = {name: StepSpec(name=name, needs={up: up for up in ups.split()}) for name, ups in waits.items()}
    return Graph.build("w", specs)


def history(*events: Event) -> list[Recorded]:
    first = RunScheduled(workflow="w", fingerprint="f", input=Payload.of(b"1"), queue="q", priority=5)
    return [Recorded(n, AT + timedelta(seconds=n), event) for n, event in enumerate((first, *events), 1)]


def started(step: str, attempt: int = 1, token: int = 1) -> StepStarted:
    return StepStarted(step=step, attempt=attempt, token=token, input_hash="x")


def done(step: str, attempt: int = 1, token: int = 1, raw: bytes = b"2") -> StepDone:
    return StepDone(step=step, attempt=attempt, token=token, output=Payload.of(raw))


def failed(step: str, attempt: int = 1, token: int = 1) -> StepFailed:
    error = ErrorInfo("builtins.ValueError", "no")
    return StepFailed(step=step, attempt=attempt, token=token, error=error, retry_at=None)


def effect(name: str, ordinal: int, attempt: int, *, error: bool = False) -> EffectRecorded:
    return EffectRecorded(
        step="a", attempt=attempt, token=attempt, name=name, ordinal=ordinal, via="call",
        result=None if error else Payload.of(b"%d" % attempt), error=ErrorInfo("E", "no") if error else None,
    )  # fmt: skip


LINE = graph(a="", b="a", c="b", d="a")
HALF = facts_of(history(started("a"), done("a"), started("b", token=2), failed("b", token=2)), LINE.steps)


def actions(plan: Plan) -> dict[str, str]:
    return {step.name: step.action.value for step in plan.steps}


def plan_of(choice: Choice, facts: RunFacts = HALF, local: Graph = LINE) -> Plan:
    return make_plan(LINE, local, facts, choice)


def test_every_step_is_run_in_the_order_of_its_definition() -> None:
    plan = plan_of(Choice())
    assert [step.name for step in plan.runs] == ["a", "b", "c", "d"]
    assert [(step.attempt, step.token) for step in plan.steps] == [(1, 1), (1, 2), (1, 3), (1, 3)]


def test_a_definition_that_is_not_in_order_is_brought_into_one() -> None:
    mixed = Graph("w", {"b": StepSpec(name="b", needs={"a": "a"}), "a": StepSpec(name="a")})
    assert [step.name for step in make_plan(mixed, mixed, HALF, Choice()).steps] == ["a", "b"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(serve=frozenset({"a"})), {"a": "serve", "b": "run", "c": "run", "d": "run"}),
        (Choice(serve=frozenset({"b"})), {"a": "run", "b": "missing", "c": "run", "d": "run"}),
        (Choice(until="b"), {"a": "run", "b": "run", "c": "missing", "d": "missing"}),
        (Choice(only="b"), {"a": "serve", "b": "run", "c": "missing", "d": "missing"}),
        (Choice(only="b", attempt=1), {"a": "serve", "b": "run", "c": "missing", "d": "missing"}),
    ],
)
def test_the_user_chooses_what_is_run(choice: Choice, expected: dict[str, str]) -> None:
    assert actions(plan_of(choice)) == expected


@pytest.mark.parametrize(
    ("choice", "complaint"),
    [
        (Choice(serve=frozenset({"aa"})), "--serve: the run has no step 'aa'"),
        (Choice(until="x"), "--until: the run has no step 'x'"),
        (Choice(only="x"), "--only: the run has no step 'x'"),
        (Choice(attempt=2), "there is no attempt 2 of any step"),
        (Choice(only="c", attempt=1), "there is no attempt 1 of step 'c'"),
    ],
)
def test_a_choice_of_what_there_is_not_is_refused(choice: Choice, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        plan_of(choice)


def test_a_step_that_the_app_no_longer_has_is_served_or_missing_and_said() -> None:
    plan = plan_of(Choice(), local=graph(c="", d=""))
    assert actions(plan) == {"a": "serve", "b": "missing", "c": "run", "d": "run"}
    assert plan.notes == ("the app no longer has: a, b",)


def test_a_new_step_is_run_only_where_outputs_flow() -> None:
    local = graph(a="", b="a", c="b", d="a", e="d")
    assert plan_of(Choice(), local=local).notes == ("new in the app since the run: e; not part of it",)
    assert "e" not in actions(plan_of(Choice(), local=local))
    flowing = plan_of(Choice(mode=Mode.PROPAGATE), local=local)
    assert actions(flowing)["e"] == "run"
    assert flowing.notes == ("new in the app since the run: e; it is run as well",)


def test_a_transactional_step_is_served() -> None:
    specs = {"a": StepSpec(name="a", transactional=True), "b": StepSpec(name="b", needs={"a": "a"})}
    local = Graph.build("w", specs)
    plan = make_plan(local, local, HALF, Choice())
    assert actions(plan) == {"a": "serve", "b": "run"}
    assert plan.steps[0].why == "transactional: a replay has no database"


def test_a_fork_runs_what_a_fork_on_the_server_would_run() -> None:
    parent = read_parent("r", 5, history(started("a"), done("a"), started("d", token=2), done("d", token=2)))
    facts = facts_of(history(started("a"), done("a"), started("d", token=2), done("d", token=2)), LINE.steps)
    choice = Choice(fork_from="b")
    plan = make_plan(LINE, LINE, facts, choice, plan_fork(parent, LINE, "b"))
    assert actions(plan) == {"a": "serve", "b": "run", "c": "run", "d": "serve"}
    assert {step.name: step.after for step in plan.runs} == {"b": ("a",), "c": ("b",)}
    assert GIVEN not in {step.why for step in plan.steps}


def test_facts_keep_every_attempt_with_its_end() -> None:
    facts = facts_of(
        history(
            started("a"), LeaseLost(step="a", attempt=1, token=1, reason="crashed", signal="SIGKILL"),
            started("a", 2, 2), failed("a", 2, 2), started("a", 3, 3), done("a", 3, 3), started("b", token=4),
        ),
        LINE.steps,
    )  # fmt: skip
    attempts = facts.step("a").attempts
    assert [a.ending for a in attempts] == [Ending.LOST, Ending.FAILED, Ending.DONE]
    assert attempts[0].reason == "crashed (SIGKILL)"
    assert facts.step("b").attempts[0].ending is Ending.OPEN
    assert facts.step("nobody").attempts == []
    assert facts.token == 4


def test_an_attempt_finds_the_successes_of_those_before_it() -> None:
    facts = facts_of(
        history(
            started("a"), effect("x", 1, 1), effect("y", 1, 1, error=True), failed("a"),
            started("a", 2, 2), effect("y", 1, 2), failed("a", 2, 2), started("a", 3, 3),
        ),
        LINE.steps,
    ).step("a")  # fmt: skip

    def before(attempt: int) -> list[tuple[str, int]]:
        found = facts.attempt(attempt)
        assert found is not None
        return [(e.name, e.attempt) for e in facts.effects_before(found)]

    assert before(1) == []
    assert before(2) == [("x", 1)]
    assert before(3) == [("x", 1), ("y", 2)]


def verdict(ended: Ended, facts: RunFacts, *, paths: str = "x", again: str = "") -> Verdict:
    then = facts.step("a").attempt()
    recorded = then.output.data if then is not None and then.output is not None else None

    def differ(old: bytes, new: bytes) -> Differences:
        return compare({}, dict.fromkeys((again if new == b"again" else paths).split(), 1))

    return judge(then, recorded, ended, differ).verdict


DONE = facts_of(history(started("a"), done("a")), LINE.steps)
FAILED = facts_of(history(started("a"), failed("a")), LINE.steps)
HUNG = facts_of(history(started("a")), LINE.steps)
NEVER = facts_of(history(), LINE.steps)
SAME = Ended(step="a", outcome="done", same=True)
OTHER = Ended(step="a", outcome="done", output=b"9")
RAISED = Ended(step="a", outcome="failed", problem=Problem.of(ErrorInfo("builtins.ValueError", "no")))
RAISED_OTHER = Ended(step="a", outcome="failed", problem=Problem.of(ErrorInfo("builtins.KeyError", "no")))
MORE = EffectUse(extra=("x #1",))


def died(how: str) -> Ended:
    return Ended(step="a", outcome="crashed", notes=(how,))


def dead(how: str) -> RunFacts:
    error = ErrorInfo("kairos.WorkerCrashed", f"its process died 3 times while running nothing else{how}")
    return facts_of(
        history(started("a"), StepFailed(step="a", attempt=1, token=1, error=error, retry_at=None)), LINE.steps
    )


LOST = facts_of(
    history(started("a"), LeaseLost(step="a", attempt=1, token=1, reason="crashed", signal="SIGSEGV")), LINE.steps
)


@pytest.mark.parametrize(
    ("facts", "ended", "expected"),
    [
        (dead(" (exit code 3)"), died("exit code 3"), "same-error"),
        (dead(" (exit code 3)"), died("exit code 4"), "crashed"),
        (dead(" (exit code 3)"), died("signal SIGSEGV"), "crashed"),
        (dead(" (SIGSEGV)"), died("signal SIGSEGV"), "same-error"),
        (dead(""), died("signal SIGSEGV"), "crashed"),
        (LOST, died("signal SIGSEGV"), "same-error"),
        (LOST, died("signal SIGKILL"), "crashed"),
        (DONE, died("exit code 3"), "crashed"),
        (FAILED, died("exit code 3"), "crashed"),
        (HUNG, died("exit code 3"), "crashed"),
        (NEVER, died("exit code 3"), "crashed"),
    ],
)
def test_a_crash_that_comes_again_is_the_same_error(facts: RunFacts, ended: Ended, expected: str) -> None:
    assert verdict(ended, facts) == expected


@pytest.mark.parametrize(("facts", "expected"), [(HUNG, False), (LOST, True), (DONE, True), (NEVER, True)])
def test_a_step_that_hung_then_and_hangs_here_is_no_divergence(facts: RunFacts, expected: bool) -> None:
    planned = PlannedStep(name="a", action=Action.RUN)
    ended = Ended(step="a", outcome="interrupted")
    assert StepResult(planned, 1, Verdict.INTERRUPTED, facts.step("a").attempt(), ended=ended).has_diverged is expected


@pytest.mark.parametrize(
    ("facts", "ended", "expected"),
    [
        (DONE, SAME, "same"),
        (DONE, OTHER, "diverged:output"),
        (DONE, RAISED, "new-error"),
        (FAILED, OTHER, "fixed"),
        (FAILED, RAISED, "same-error"),
        (FAILED, RAISED_OTHER, "new-error"),
        (HUNG, OTHER, "not-recorded"),
        (HUNG, RAISED, "new-error"),
        (NEVER, OTHER, "not-recorded"),
        (NEVER, RAISED, "new-error"),
        (DONE, Ended(step="a", outcome="crashed"), "crashed"),
        (DONE, Ended(step="a", outcome="interrupted"), "interrupted"),
        (HUNG, Ended(step="a", outcome="timeout"), "interrupted"),
        (DONE, Ended(step="a", outcome="missing"), "not-compared"),
        (FAILED, Ended(step="a", outcome="missing"), "not-compared"),
        (HUNG, Ended(step="a", outcome="missing"), "missing"),
        (NEVER, Ended(step="a", outcome="missing"), "missing"),
        (DONE, Ended(step="a", outcome="done", same=True, leaks=(Leak(kind="write", what="w"),)), "blocked"),
        (FAILED, Ended(step="a", outcome="failed", leaks=(Leak(kind="write", what="w"),)), "blocked"),
        (DONE, Ended(step="a", outcome="done", same=True, effects=MORE), "diverged:effects"),
        (DONE, Ended(step="a", outcome="done", output=b"9", effects=MORE), "diverged:effects"),
        (HUNG, Ended(step="a", outcome="done", output=b"9", effects=MORE), "not-recorded"),
        (FAILED, Ended(step="a", outcome="done", output=b"9", effects=MORE), "fixed"),
        (FAILED, Ended(step="a", outcome="failed", effects=EffectUse(mismatch="m")), "diverged:effects"),
    ],
)
def test_one_word_says_what_came_of_a_step(facts: RunFacts, ended: Ended, expected: str) -> None:
    assert verdict(ended, facts) == expected


def test_a_recorded_timeout_that_comes_again_is_the_same_error() -> None:
    error = ErrorInfo("kairos.errors.StepTimeout", "too long")
    timeout = StepFailed(step="a", attempt=1, token=1, error=error, retry_at=None, timed_out=True)
    facts = facts_of(history(started("a"), timeout), LINE.steps)
    assert verdict(Ended(step="a", outcome="timeout"), facts) == "same-error"
    assert verdict(Ended(step="a", outcome="interrupted"), facts) == "interrupted"


def test_what_differs_each_time_is_approximate_and_no_more_than_that() -> None:
    ended = Ended(step="a", outcome="done", output=b"9", again=b"again")
    assert verdict(ended, DONE, paths="at id", again="at id") == "approximate"
    assert verdict(ended, DONE, paths="at id", again="at") == "diverged:output"
    assert verdict(ended, DONE, paths="at", again="at id") == "approximate"
    assert verdict(ended, DONE, paths="", again="at") == "same"


def test_addresses_in_a_message_do_not_make_another_error() -> None:
    old, new = ErrorInfo("E", "<X at 0x7f00aa11> broke"), ErrorInfo("E", "<X at 0x7fff0000bb22> broke")
    assert is_same_error(old, new)
    assert not is_same_error(old, ErrorInfo("E", "<Y at 0x7f00aa11> broke"))


@given(st.lists(st.sampled_from(list(Verdict)), max_size=8))
def test_the_exit_code_is_that_of_the_worst(verdicts: list[Verdict]) -> None:
    code = exit_code(verdicts)
    assert (code == 3) == (Verdict.BLOCKED in verdicts)
    assert (code == 0) == (set(verdicts) <= FINE)


def test_the_first_divergence_is_the_first_in_the_plan() -> None:
    plan = plan_of(Choice())
    words = [Verdict.SAME, Verdict.DIVERGED_OUTPUT, Verdict.NEW_ERROR, Verdict.SAME]
    steps = [StepResult(step, n, word) for n, (step, word) in enumerate(zip(plan.steps, words, strict=True), 1)]
    result = RunResult("r", "w", plan, steps)
    assert result.first_divergence is steps[1]
    assert result.exit_code == 1
    assert dict(result.counts) == {Verdict.SAME: 2, Verdict.DIVERGED_OUTPUT: 1, Verdict.NEW_ERROR: 1}
    assert RunResult("r", "w", plan, steps[:1]).first_divergence is None


def test_missing_steps_alone_are_no_failure() -> None:
    assert exit_code([Verdict.MISSING, Verdict.SERVED, Verdict.SAME_ERROR]) == 0
    assert Action.MISSING.value == "missing"
