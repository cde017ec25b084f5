"""Random graphs, random commands, right and wrong tokens, several owners that do not know of each other.

Whatever is asked, in whatever order and by whomever: the rules never raise, never change what they are
shown, and every log they lead to obeys the laws of `run_oracle`, folds to the state as it was lived, and can
still be brought to its end. The last tests take one guard away at a time: each loss must be noticed.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from run_oracle import check_log, check_rest, check_state, open_attempts
from run_stories import NOON, RUN_ID, SECOND, scheduled

from kairos.domain import canonical, commands, decisions, projection
from kairos.domain.commands import (
    ClaimRun,
    Command,
    EmitLog,
    EmitMetric,
    Expire,
    FailStep,
    FinishCancel,
    FinishStep,
    LoseLease,
    Refusal,
    RejectWrite,
    RequestCancel,
    StartStep,
    StopStep,
)
from kairos.domain.error_info import ErrorInfo, Frame
from kairos.domain.events import Event, Recorded, RunDone, RunFailed, StepStarted
from kairos.domain.graph import Graph, StepSpec
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState, apply, project
from kairos.domain.retry import Retry
from kairos.errors import KairosError
from kairos.store import codec
from kairos.store.codec import Row, first_hash, link
from kairos.store.drive import OpenRun, input_hash

# Owners one after the other, a helper and a client: each sees the log as of some time ago, by its own clock.
ACTORS = {"owner": 0, "next owner": 3, "helper": -2, "client": 0}
actors = st.sampled_from(sorted(ACTORS))

OUTPUTS = [Payload.of(canonical.encode(v)) for v in (None, {"é": [1, -0.0, "\0"]}, "x" * 1022, "x" * 1023, "é" * 3000)]
ERRORS = [
    ErrorInfo("builtins.ValueError", "boom"),
    ErrorInfo("shop.Nö", "«no»\n\u2028", (Frame("f.py", 1, "f", "x"),), {"x": "'\\x00'"}, ("note",), "wait"),
]
POLICIES = [
    Retry(attempts=1),
    Retry(attempts=2, base=0, factor=1, jitter=0),
    Retry(attempts=3, base="5s", factor=3, cap="10s", jitter=0.5),
]
FENCED = (FinishStep, FailStep, StopStep, EmitLog, EmitMetric, LoseLease)

steps_to_come = st.builds(
    StepSpec,
    name=st.just(""),
    retry=st.sampled_from(POLICIES),
    ttl=st.sampled_from([*[None] * 6, 20 * SECOND, timedelta(0)]),
    crash_limit=st.integers(1, 2),
)


@st.composite
def graphs(draw: Callable[..., Any]) -> Graph:
    """A DAG of one to six steps; some with data, some with order only, some alone."""
    steps: dict[str, StepSpec] = {}
    for i in range(draw(st.integers(1, 6))):
        name, earlier = f"s{i}", list(steps)
        upstream = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        spec: StepSpec = draw(steps_to_come)
        steps[name] = StepSpec(
            name=name,
            needs={f"p{n}": up for n, up in enumerate(upstream[:2])},
            after=tuple(upstream[1:]),
            retry=spec.retry,
            ttl=spec.ttl,
            crash_limit=spec.crash_limit,
        )
    if draw(st.booleans()):
        steps = dict(reversed(steps.items()))
    return Graph.build("story", steps)


run_ttls = st.sampled_from([*[None] * 6, 30, 0])
names = st.sampled_from([f"s{i}" for i in range(6)] + ["ghost", ""])
numbers = st.integers(-1, 8)
rolls = st.floats(0, 1, exclude_max=True)
wild_commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(ClaimRun, st.just("w9"), numbers),
    st.builds(StartStep, names, st.just("00"), st.none() | st.just("helper"), st.booleans()),
    st.builds(FinishStep, names, numbers, numbers, st.sampled_from(OUTPUTS)),
    st.builds(FailStep, names, numbers, numbers, st.sampled_from(ERRORS), st.booleans(), rolls),
    st.builds(LoseLease, names, numbers, st.just("worker_lost"), alone=st.booleans()),
    st.builds(StopStep, names, numbers, numbers),
    st.builds(FinishCancel),
    st.builds(Expire),
    st.builds(RejectWrite, names, numbers, numbers, st.just("w9"), st.just("step_done")),
    st.builds(EmitLog, names, numbers, numbers, st.just("info"), st.just("ü")),
    st.builds(EmitMetric, names, numbers, numbers, st.just("rows"), st.floats(0, 1)),
)


class Runs(RuleBasedStateMachine):
    """One run after another, each with one log and several actors."""

    judging = True
    """Whether answers are judged too, beside the logs they lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.log: list[Recorded] = []
        self.attempts: list[tuple[str, int, int]] = []
        self.actors: dict[str, OpenRun] = {}

    # --- what happens. Few rules with many choices: the search leaves some rules out of every example.

    @initialize(graph=graphs(), ttl=run_ttls)
    def first_run(self, graph: Graph, ttl: int | None) -> None:
        self.begin(graph, ttl)

    @precondition(lambda self: self.ended)
    @rule(graph=graphs(), ttl=run_ttls, then=st.integers(0, 2))
    def next_run(self, graph: Graph, ttl: int | None, then: int) -> None:
        if not then:
            self.check_end()
            self.begin(graph, ttl)

    @precondition(lambda self: not self.ended)
    @rule(who=actors, informed=st.sampled_from([True, True, False]), most=st.integers(1, 3), isolated=st.booleans())
    def somebody_does_its_work(self, who: str, informed: bool, most: int, isolated: bool) -> None:
        if informed:
            self.catch_up(who)
        state = self.actors[who].state
        if state.status == "SCHEDULED":
            self.claim(who)
        due = [name for name in state.graph.steps if state.steps[name].status in ("SCHEDULED", "FAILED")]
        for step in due[:most]:
            worker = who if who == "helper" else None
            self.act(who, StartStep(step, input_hash(self.actors[who].state, step), worker, isolated))

    @precondition(lambda self: bool(open_attempts(self.log)))
    @rule(
        who=actors,
        pick=st.integers(0, 9),
        how=st.sampled_from(["done", "done", "done", "failed", "failed for good", "lost", "crashed", "stopped"]),
        output=st.sampled_from(OUTPUTS),
        error=st.sampled_from(ERRORS),
        roll=rolls,
        suspect=st.booleans(),
    )
    def an_attempt_ends(
        self, who: str, pick: int, how: str, output: Payload, error: ErrorInfo, roll: float, suspect: bool
    ) -> None:
        step, attempt, token = self.attempt(pick)
        match how:
            case "done":
                self.act(who, FinishStep(step, attempt, token, output, 17))
            case "failed" | "failed for good":
                self.act(who, FailStep(step, attempt, token, error, how == "failed", roll, 17, suspect))
            case "lost":
                self.act(who, LoseLease(step, token, "worker_lost", who, None, False, suspect))
            case "crashed":
                self.act(who, LoseLease(step, token, "crashed", who, "SIGKILL", True, suspect))
            case _:
                self.act(who, StopStep(step, attempt, token))

    @rule(who=actors, what=st.sampled_from(["claim", "sweep", "owner gone", "cancel", "grace over", *[""] * 5]))
    def somebody_interferes(self, who: str, what: str) -> None:
        match what:
            case "claim":
                self.claim(who)
            case "sweep":
                self.act(who, Expire())
            case "cancel":
                self.act(who, RequestCancel("änn", "wrong order"))
                for step in list(self.reader.ready)[:2]:
                    self.act(who, StartStep(step))
            case "grace over":
                self.act(who, FinishCancel())
            case "owner gone":
                for step, _, token in sorted(open_attempts(self.log)):
                    self.act(who, LoseLease(step, token, "worker_lost", "owner", suspect=True))

    @precondition(lambda self: len(self.attempts) > 2)
    @rule(who=actors, pick=st.integers(0, 9))
    def a_body_reports(self, who: str, pick: int) -> None:
        attempt = self.attempt(pick)
        self.act(who, EmitLog(*attempt, "info", "hällo\n", {"rows": [1, None, {"é": 2.5}]}))
        self.act(who, EmitMetric(*attempt, "rows", 1.5, {"k": "v"}))
        self.act(who, RejectWrite(*attempt, who, "step_done"))

    @rule(who=actors, command=wild_commands)
    def somebody_asks_for_anything_at_all(self, who: str, command: Command) -> None:
        self.act(who, command)

    @rule(
        delay=st.sampled_from([timedelta(0), timedelta(microseconds=1), SECOND, 5 * SECOND, 10 * SECOND, 60 * SECOND])
    )
    def time_passes(self, delay: timedelta) -> None:
        self.now += delay

    @rule(who=actors)
    def somebody_looks_at_the_log(self, who: str) -> None:
        self.catch_up(who)

    def teardown(self) -> None:
        if self.log:
            self.check_end()

    # --- how it is done, and what must hold

    @property
    def ended(self) -> bool:
        return bool(self.log) and self.reader.status.is_terminal

    def claim(self, who: str) -> None:
        self.epoch += 1
        self.act(who, ClaimRun(who, self.epoch))

    def begin(self, graph: Graph, ttl: int | None) -> None:
        self.graph = graph
        self.epoch = 0
        self.log = []
        self.rows: list[Row] = []
        self.attempts = [("s0", 0, 0), ("ghost", 1, 1)]
        self.reader = RunState(RUN_ID, graph)
        event = scheduled(
            graph,
            key="order-42",
            labels={"städte": "東京"},
            input=OUTPUTS[1],
            expires_at=None if ttl is None else self.now + ttl * SECOND,
        )
        creator = OpenRun(RunState(RUN_ID, graph), first_hash(RUN_ID))
        self.append(creator.record(event, self.now), creator.state)
        self.actors = {}
        for who in ACTORS:
            self.forget(who)
            self.catch_up(who)

    def attempt(self, pick: int) -> tuple[str, int, int]:
        """An attempt that was begun at some time, the last one first; most picks are of open ones."""
        alive = sorted(open_attempts(self.log))
        if pick % 3 and alive:
            return alive[pick // 3 % len(alive)]
        return self.attempts[-1 - pick // 3 % len(self.attempts)]

    def act(self, who: str, command: Command) -> None:
        """Ask as `who`, who may be behind. An append that comes too late is dropped and decided again."""
        run, now = self.actors[who], self.now + ACTORS[who] * SECOND
        seen = self.log[: run.state.seq]
        in_time = len(seen) == len(self.log)
        shown = copy.deepcopy(run.state, {id(self.graph): self.graph})
        answer = decisions.decide(run.state, command, now)
        assert run.state == shown, "a rule changed the state it was shown"
        if self.judging:
            self.judge(seen, command, answer)
        for event in [] if isinstance(answer, Refusal) else answer:
            row = run.record(event, now)
            if in_time:
                self.append(row, run.state)
        if in_time:
            check_rest(self.graph, self.log)
        else:
            self.forget(who)
            self.catch_up(who)
            self.act(who, command)

    def judge(self, seen: list[Recorded], command: Command, answer: list[Event] | Refusal) -> None:
        """Only an open attempt may speak; everybody else is turned away as stale."""
        if not seen:
            assert isinstance(answer, Refusal)
        elif isinstance(command, FENCED):
            alive = open_attempts(seen)
            if isinstance(command, LoseLease):
                is_open = any((command.step, command.token) == (step, token) for step, _, token in alive)
            else:
                is_open = (command.step, command.attempt, command.token) in alive
            if not is_open:
                assert isinstance(answer, Refusal), "a stale attempt was listened to"
                assert answer.stale == (command.step in self.graph.steps or self.is_over(seen))
            elif not isinstance(command, StopStep):
                assert not isinstance(answer, Refusal), "the current attempt was turned away"

    def is_over(self, seen: list[Recorded]) -> bool:
        return project(RUN_ID, self.graph, seen).status.is_terminal

    def append(self, row: Row, live: RunState) -> None:
        """Commit a row; whoever reads it must come to the very state its writer is in."""
        recorded = codec.decode(row)
        apply(self.reader, recorded)
        assert self.reader == live, f"the fold is not the state as it was lived: {differences(self.reader, live)}"
        self.rows.append(row)
        self.log.append(recorded)
        if isinstance(recorded.event, StepStarted):
            self.attempts.append((recorded.event.step, recorded.event.attempt, recorded.event.token))
        check_log(self.graph, self.log)
        check_state(self.reader, self.log)

    def forget(self, who: str) -> None:
        self.actors[who] = OpenRun(RunState(RUN_ID, self.graph), first_hash(RUN_ID))

    def catch_up(self, who: str) -> None:
        run = self.actors[who]
        for row in self.rows[run.state.seq :]:
            apply(run.state, codec.decode(row))
            run.head_hash = row.hash
        assert run.state == self.reader, f"two readers of one log disagree: {differences(run.state, self.reader)}"

    def check_end(self) -> None:
        """The chain is whole, a stranger with the pinned graph folds the same, and the run can still end."""
        previous = first_hash(RUN_ID)
        for row in self.rows:
            due = link(previous, row.seq, row.kind, row.at, row.step, row.attempt, row.token, row.body)
            assert row.hash == due, "the chain is broken"
            previous = due
        pinned = Graph.from_json(canonical.decode(canonical.encode(self.graph.to_json())))
        assert project(RUN_ID, pinned, map(codec.decode, self.rows)) == self.reader
        for outcome in (finished, failed, crashed):
            bring_to_end(self.reader, self.now, outcome)


def differences(one: RunState, other: RunState) -> dict[str, Any]:
    pairs = {field.name: (getattr(one, field.name), getattr(other, field.name)) for field in fields(one)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def finished(step: str, attempt: int, token: int) -> Command:
    return FinishStep(step, attempt, token, OUTPUTS[0])


def failed(step: str, attempt: int, token: int) -> Command:
    return FailStep(step, attempt, token, ERRORS[0])


def crashed(step: str, attempt: int, token: int) -> Command:
    return LoseLease(step, token, "crashed", alone=True)


def bring_to_end(state: RunState, now: Any, outcome: Callable[[str, int, int], Command]) -> None:
    """Keep starting and ending steps, as a fair scheduler would; the run must end after so many turns."""
    run = OpenRun(copy.deepcopy(state, {id(state.graph): state.graph}), b"")
    state = run.state

    def ask(command: Command) -> None:
        answer = decisions.decide(state, command, now)
        if not isinstance(answer, Refusal):
            for event in answer:
                run.record(event, now)

    turns = 3 + sum(2 * (spec.retry.attempts + spec.crash_limit + 1) for spec in state.graph.steps.values())
    for _ in range(turns):
        if state.status.is_terminal:
            return
        ask(ClaimRun("last", 99))
        for name, step in state.steps.items():
            if step.status == "RUNNING":
                ask(outcome(name, step.attempt, step.token))
            elif step.status == "FAILED" and step.retry_at is not None:
                now = max(now, step.retry_at)
                ask(StartStep(name))
            elif step.status == "SCHEDULED":
                ask(StartStep(name))
    raise AssertionError(f"the run does not end: {[(n, s.status.value) for n, s in state.steps.items()]}")


CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
QUICK = settings(
    max_examples=150,
    stateful_step_count=50,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=CHECKS,
)
LONG = settings(
    max_examples=int(os.environ.get("KAIROS_EXAMPLES", "2000")),
    stateful_step_count=100,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=CHECKS,
)
HUNT = settings(QUICK, max_examples=1500, phases=[Phase.generate], report_multiple_bugs=False)


def test_no_sequence_of_commands_breaks_a_law() -> None:
    run_state_machine_as_test(Runs, settings=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_sequence_of_commands_breaks_a_law_however_long_one_looks() -> None:
    run_state_machine_as_test(Runs, settings=LONG)


@given(wild_commands | st.builds(RequestCancel, st.just("ann"), st.just("x")), graphs())
def test_nothing_can_be_asked_of_a_run_that_does_not_exist(command: Command, graph: Graph) -> None:
    state = RunState(UUID(int=1), graph)
    assert decisions.decide(state, command, NOON) == Refusal("the run does not exist yet")
    assert state == RunState(UUID(int=1), graph)


def test_every_command_there_is_gets_asked() -> None:
    asked = set(commands.Command.__args__)
    assert asked == {*FENCED, ClaimRun, StartStep, RequestCancel, FinishCancel, Expire, RejectWrite}


@pytest.mark.parametrize("outcome", [finished, failed, crashed])
@given(graph=graphs())
def test_every_run_comes_to_its_end(outcome: Callable[[str, int, int], Command], graph: Graph) -> None:
    run = OpenRun(RunState(RUN_ID, graph), first_hash(RUN_ID))
    run.record(scheduled(graph), NOON)
    bring_to_end(run.state, NOON, outcome)


# --- the same with one guard less: each must be missed -------------------------------------------------------

Patch = pytest.MonkeyPatch
decide_as_it_is = decisions.decide
encode_as_it_is = codec.encode_body


def no_token_check(patch: Patch) -> None:
    def check(state: RunState, name: str, attempt: int, token: int) -> Refusal | None:
        return None if name in state.steps else Refusal("there is no such step")

    patch.setattr(decisions, "_check_attempt", check)


def no_token_check_and_a_fold_that_trusts_and_no_judge(patch: Patch) -> None:
    no_token_check(patch)
    patch.setattr(
        projection, "_move_attempt", lambda state, name, token, attempt, kind: projection._move(state, name, kind)
    )
    patch.setattr(Runs, "judging", False)


def a_join_that_starts_after_the_first_branch(patch: Patch) -> None:
    def release(state: RunState, name: str, at: Any) -> None:
        for below in state.graph.downstream[name]:
            state.waiting_on[below] -= 1
            if state.steps[below].status == "PENDING":
                projection._move(state, below, "upstream_done").scheduled_at = at

    patch.setattr(projection, "_release_downstream", release)


def one_attempt_too_many(patch: Patch) -> None:
    patch.setattr(decisions, "may_retry", lambda policy, failures: failures <= policy.attempts)


def a_pause_that_is_not_kept(patch: Patch) -> None:
    def decide(state: RunState, command: Command, now: Any) -> Any:
        return decide_as_it_is(state, command, now + timedelta(hours=1) if isinstance(command, StartStep) else now)

    patch.setattr(decisions, "decide", decide)


def a_cancel_that_does_not_stop_new_starts(patch: Patch) -> None:
    def decide(state: RunState, command: Command, now: Any) -> Any:
        if isinstance(command, StartStep) and state.cancel_requested:
            state = replace(state, cancel_requested=None)
        return decide_as_it_is(state, command, now)

    patch.setattr(decisions, "decide", decide)


def without(kind: type[Event]) -> Callable[[Patch], None]:
    def mutate(patch: Patch) -> None:
        def decide(state: RunState, command: Command, now: Any) -> Any:
            answer = decide_as_it_is(state, command, now)
            return answer if isinstance(answer, Refusal) else [event for event in answer if not isinstance(event, kind)]

        patch.setattr(decisions, "decide", decide)

    mutate.__name__ = f"no_{kind.kind}"
    return mutate


def a_cancel_that_forgets_the_rest(patch: Patch) -> None:
    patch.setattr(decisions, "_cancel_rest", lambda state, **more: [])


def a_counter_that_forgets_resting_steps(patch: Patch) -> None:
    patch.setattr(projection, "_ACTIVE", projection._ACTIVE - {projection.StepStatus.FAILED})


def a_body_without_its_suspect(patch: Patch) -> None:
    patch.setattr(codec, "encode_body", lambda event: encode_as_it_is(event).replace(b',"suspect":true', b""))


def a_rule_that_tidies_up(patch: Patch) -> None:
    def decide(state: RunState, command: Command, now: Any) -> Any:
        state.reason = state.reason or ""
        return decide_as_it_is(state, command, now)

    patch.setattr(decisions, "decide", decide)


def a_run_that_fails_while_others_go_on(patch: Patch) -> None:
    def bury(state: RunState, name: str, reason: str) -> list[Event]:
        return [decisions.StepDead(step=name, reason=reason), decisions._run_failed(state, [name])]

    patch.setattr(decisions, "_bury", bury)


def a_fence_that_is_never_revoked(patch: Patch) -> None:
    kept = tuple(status for status in decisions._CANCELLABLE if status != "RUNNING")
    patch.setattr(decisions, "_CANCELLABLE", kept)


MUTANTS: list[Callable[[Patch], None]] = [
    no_token_check,
    no_token_check_and_a_fold_that_trusts_and_no_judge,
    a_join_that_starts_after_the_first_branch,
    one_attempt_too_many,
    a_pause_that_is_not_kept,
    a_cancel_that_does_not_stop_new_starts,
    without(RunDone),
    without(RunFailed),
    a_cancel_that_forgets_the_rest,
    a_counter_that_forgets_resting_steps,
    a_body_without_its_suspect,
    a_rule_that_tidies_up,
    a_run_that_fails_while_others_go_on,
    a_fence_that_is_never_revoked,
]


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_a_missing_guard_is_found(mutate: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutate(monkeypatch)
    with pytest.raises((AssertionError, KairosError)):
        run_state_machine_as_test(Runs, settings=HUNT)
