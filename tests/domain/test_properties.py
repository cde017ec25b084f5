"""Random graphs, random commands, right and wrong tokens, several owners that do not know of each other.

Whatever is asked, in whatever order and by whomever: `run_world` lives it and `run_oracle` judges it. The last
tests take one guard away at a time: each loss must be noticed, or these tests would prove nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace
from run_oracle import open_attempts
from run_stories import NOON, RUN_ID, scheduled
from run_world import (
    ACTORS,
    DELAYS,
    ENDINGS,
    ERRORS,
    FENCED,
    INTERFERENCES,
    OUTPUTS,
    TTLS,
    World,
    bring_to_end,
    crashed,
    failed,
    finished,
    roll_command,
    roll_fork,
    roll_graph,
)

from kairos.domain import decisions, projection
from kairos.domain.commands import (
    ClaimRun,
    Command,
    Expire,
    FinishCancel,
    FireRetry,
    Refusal,
    RejectWrite,
    RequestCancel,
    StartStep,
)
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import EVENT_TYPES, Event, RunDone, RunFailed
from kairos.domain.graph import Graph
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState
from kairos.errors import KairosError
from kairos.store import codec
from kairos.store.codec import first_hash
from kairos.store.drive import OpenRun

actors = st.sampled_from(sorted(ACTORS))
picks = st.integers(0, 11)
ttls = st.sampled_from(TTLS)
graphs = st.randoms(use_true_random=False).map(roll_graph)
births = st.randoms(use_true_random=False)
wild_commands = st.randoms(use_true_random=False).map(roll_command)


def born(dice: Random, graph: Graph) -> list[Event]:
    """Every third run is a fork."""
    return roll_fork(dice, graph) if dice.random() < 0.35 else []


class Runs(RuleBasedStateMachine):
    """One run after another. Few rules with many choices: the search leaves some rules out of every example."""

    world: World

    @initialize(graph=graphs, ttl=ttls, birth=births)
    def first_run(self, graph: Graph, ttl: timedelta | None, birth: Random) -> None:
        self.world = World(graph, ttl, fork=born(birth, graph))

    @precondition(lambda self: self.world.ended)
    @rule(graph=graphs, ttl=ttls, birth=births, then=st.integers(0, 2))
    def next_run(self, graph: Graph, ttl: timedelta | None, birth: Random, then: int) -> None:
        if not then:
            self.world.check_end()
            self.world = World(graph, ttl, now=self.world.now, fork=born(birth, graph))

    @precondition(lambda self: not self.world.ended)
    @rule(who=actors, informed=st.sampled_from([True, True, False]), most=st.integers(1, 3), isolated=st.booleans())
    def somebody_does_its_work(self, who: str, informed: bool, most: int, isolated: bool) -> None:
        self.world.work(who, informed, most, isolated)

    @precondition(lambda self: bool(open_attempts(self.world.log)))
    @rule(
        who=actors,
        pick=picks,
        how=st.sampled_from(ENDINGS),
        output=st.sampled_from(OUTPUTS),
        error=st.sampled_from(ERRORS),
        roll=st.floats(0, 1, exclude_max=True),
        suspect=st.booleans(),
    )
    def an_attempt_ends(
        self, who: str, pick: int, how: str, output: Payload, error: ErrorInfo, roll: float, suspect: bool
    ) -> None:
        self.world.end_attempt(who, pick, how, output, error, roll, suspect)

    @rule(who=actors, what=st.sampled_from([*INTERFERENCES, *[""] * 5]))
    def somebody_interferes(self, who: str, what: str) -> None:
        if what:
            self.world.interfere(who, what)

    @precondition(lambda self: len(self.world.attempts) > 2)
    @rule(who=actors, pick=picks)
    def a_body_reports(self, who: str, pick: int) -> None:
        self.world.report(who, pick)

    @rule(who=actors, command=wild_commands)
    def somebody_asks_for_anything_at_all(self, who: str, command: Command) -> None:
        self.world.act(who, command)

    @rule(delay=st.sampled_from(DELAYS))
    def time_passes(self, delay: timedelta) -> None:
        self.world.now += delay

    @rule(who=actors)
    def somebody_looks_at_the_log(self, who: str) -> None:
        self.world.catch_up(who)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.check_end()


QUICK = settings(
    max_examples=80,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(QUICK, max_examples=1500, stateful_step_count=100, derandomize=False, print_blob=True)
LIVES = int(os.environ.get("KAIROS_LIVES", "20000"))


def live(seed: int, *, turns: int = 40, trusting: bool = False) -> World:
    """A life by the dice: the same seed gives the same life."""
    dice = Random(seed)
    graph = roll_graph(dice)
    world = World(graph, dice.choice(TTLS), trusting=trusting, fork=born(dice, graph))
    world.live(dice, turns)
    world.check_end()
    return world


def live_all(seeds: range, *, turns: int = 40, trusting: bool = False) -> None:
    for seed in seeds:
        try:
            live(seed, turns=turns, trusting=trusting)
        except BaseException as exc:
            exc.add_note(f"the life of seed {seed}, {turns} turns")
            raise


def test_no_sequence_of_commands_breaks_a_law() -> None:
    run_state_machine_as_test(Runs, settings=QUICK)


@pytest.mark.parametrize("part", range(4))
def test_no_life_by_the_dice_breaks_a_law(part: int) -> None:
    live_all(range(part * 100, part * 100 + 100))


def test_these_lives_have_seen_everything() -> None:
    kinds: set[str] = set()
    ends: set[str] = set()
    for seed in range(60):
        world = live(seed)
        kinds |= {row.kind for row in world.rows}
        ends.add(world.reader.status.value)
    assert kinds == EVENT_TYPES.keys()
    assert ends == {"RUNNING", "DONE", "FAILED", "CANCELLED", "EXPIRED"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_sequence_of_commands_breaks_a_law_however_long_one_looks() -> None:
    run_state_machine_as_test(Runs, settings=LONG)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_life_by_the_dice_breaks_a_law_however_many_there_are() -> None:
    live_all(range(1000, 1000 + LIVES), turns=60)


@given(wild_commands | st.just(RequestCancel("ann", "x")), graphs)
def test_nothing_can_be_asked_of_a_run_that_does_not_exist(command: Command, graph: Graph) -> None:
    state = RunState(UUID(int=1), graph)
    assert decisions.decide(state, command, NOON) == Refusal("the run does not exist yet")
    assert state == RunState(UUID(int=1), graph)


def test_every_command_there_is_gets_asked() -> None:
    asked = {type(roll_command(Random(seed))) for seed in range(300)}
    assert asked | {RequestCancel} == set(Command.__args__)
    assert set(Command.__args__) == {
        *FENCED,
        ClaimRun,
        StartStep,
        FireRetry,
        RequestCancel,
        FinishCancel,
        Expire,
        RejectWrite,
    }


@pytest.mark.parametrize("outcome", [finished, failed, crashed])
@given(graph=graphs)
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


def no_token_check_and_a_fold_that_trusts(patch: Patch) -> None:
    no_token_check(patch)
    patch.setattr(
        projection, "_move_attempt", lambda state, name, token, attempt, kind: projection._move(state, name, kind)
    )


def a_join_that_starts_after_the_first_branch(patch: Patch) -> None:
    def release(state: RunState, name: str, at: datetime) -> None:
        for below in state.graph.downstream[name]:
            state.waiting_on[below] -= 1
            if state.steps[below].status == "PENDING":
                projection._move(state, below, "upstream_done").scheduled_at = at

    patch.setattr(projection, "_release_downstream", release)


def a_join_that_is_released_though_it_was_inherited(patch: Patch) -> None:
    def release(state: RunState, name: str, at: datetime) -> None:
        for below in state.graph.downstream[name]:
            state.waiting_on[below] -= 1
            if not state.waiting_on[below]:
                projection._move(state, below, "upstream_done").scheduled_at = at

    patch.setattr(projection, "_release_downstream", release)


def a_run_that_waits_for_what_it_inherited(patch: Patch) -> None:
    def released(state: RunState, name: str) -> list[str]:
        return [below for below in state.graph.downstream[name] if state.waiting_on[below] == 1]

    patch.setattr(decisions, "_released", released)


def one_attempt_too_many(patch: Patch) -> None:
    patch.setattr(decisions, "may_retry", lambda policy, failures: failures <= policy.attempts)


def a_pause_that_is_not_kept(patch: Patch) -> None:
    def decide(state: RunState, command: Command, now: datetime) -> Any:
        return decide_as_it_is(state, command, now + timedelta(hours=1) if isinstance(command, StartStep) else now)

    patch.setattr(decisions, "decide", decide)


def a_cancel_that_does_not_stop_new_starts(patch: Patch) -> None:
    def decide(state: RunState, command: Command, now: datetime) -> Any:
        if isinstance(command, StartStep) and state.cancel_requested:
            state = replace(state, cancel_requested=None)
        return decide_as_it_is(state, command, now)

    patch.setattr(decisions, "decide", decide)


def without(kind: type[Event]) -> Callable[[Patch], None]:
    def mutate(patch: Patch) -> None:
        def decide(state: RunState, command: Command, now: datetime) -> Any:
            answer = decide_as_it_is(state, command, now)
            return answer if isinstance(answer, Refusal) else [event for event in answer if not isinstance(event, kind)]

        patch.setattr(decisions, "decide", decide)

    mutate.__name__ = f"no_{kind.kind}"
    return mutate


def a_cancel_that_forgets_the_rest(patch: Patch) -> None:
    patch.setattr(decisions, "_cancel_rest", lambda state, **more: [])


def a_counter_that_forgets_resting_steps(patch: Patch) -> None:
    failed = projection.StepStatus.FAILED
    for (before, kind), (after, active, *rest) in projection._EFFECTS.items():
        forgotten = active - (after is failed) + (before is failed)
        patch.setitem(projection._EFFECTS, (before, kind), (after, forgotten, *rest))


def a_body_without_its_suspect(patch: Patch) -> None:
    patch.setattr(codec, "encode_body", lambda event: encode_as_it_is(event).replace(b',"suspect":true', b""))


def a_rule_that_tidies_up(patch: Patch) -> None:
    def decide(state: RunState, command: Command, now: datetime) -> Any:
        state.reason = state.reason or ""
        return decide_as_it_is(state, command, now)

    patch.setattr(decisions, "decide", decide)


def a_run_that_fails_while_others_go_on(patch: Patch) -> None:
    def bury(state: RunState, name: str, reason: str) -> list[Event]:
        return [decisions.StepDead(step=name, reason=reason), decisions._run_failed(state, {name: reason})]

    patch.setattr(decisions, "_bury", bury)


def a_fence_that_is_never_revoked(patch: Patch) -> None:
    kept = tuple(status for status in decisions._CANCELLABLE if status != "RUNNING")
    patch.setattr(decisions, "_CANCELLABLE", kept)


MUTANTS: list[Callable[[Patch], None]] = [
    no_token_check,
    no_token_check_and_a_fold_that_trusts,
    a_join_that_starts_after_the_first_branch,
    a_join_that_is_released_though_it_was_inherited,
    a_run_that_waits_for_what_it_inherited,
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


@pytest.mark.parametrize("trusting", [False, True], ids=["by the judge", "by the log alone"])
@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_a_missing_guard_is_found(mutate: Callable[[Patch], None], trusting: bool, monkeypatch: Patch) -> None:
    mutate(monkeypatch)
    with pytest.raises((AssertionError, KairosError)):
        live_all(range(2000), trusting=trusting)


def test_the_machine_finds_a_missing_token_check_too(monkeypatch: Patch) -> None:
    no_token_check_and_a_fold_that_trusts(monkeypatch)
    with pytest.raises((AssertionError, KairosError)):
        run_state_machine_as_test(Runs, settings=settings(QUICK, max_examples=1000, phases=[Phase.generate]))
