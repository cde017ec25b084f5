"""A run taken further in memory: what is asked, what is recorded, and under which tokens and times."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace
from run_stories import MICROSECOND, NOON, OUTPUT, RUN_ID, SECOND, Story, graph_of
from run_world import OUTPUTS

from kairos.domain.commands import ClaimRun, Command, FinishStep, RequestCancel, StartStep
from kairos.domain.events import LogEmitted, StepStarted
from kairos.domain.graph import Graph, StepSpec
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState
from kairos.store import codec
from kairos.store.codec import first_hash
from kairos.store.drive import OpenRun, drive, input_hash, tokens_spent

LINE = LogEmitted(step="a", attempt=1, token=1, level="info", message="x")


def test_a_recorded_row_follows_the_one_before_it() -> None:
    story = Story(graph_of(a="")).claim()
    before = story.run.head_hash
    row = story.run.record(LINE, NOON + SECOND)
    assert (row.seq, row.at, story.state.seq) == (3, NOON + SECOND, 3)
    assert row == codec.encode(LINE, 3, NOON + SECOND, before)
    assert story.run.head_hash == row.hash
    assert story.run.run_id == RUN_ID


@pytest.mark.parametrize(
    ("now", "at"), [(-SECOND, timedelta(0)), (-MICROSECOND, timedelta(0)), (timedelta(0),) * 2, (MICROSECOND,) * 2]
)
def test_a_clock_that_goes_back_does_not_take_the_log_with_it(now: timedelta, at: timedelta) -> None:
    story = Story(graph_of(a="")).claim()
    assert story.run.record(LINE, NOON + now).at == NOON + at


def test_what_is_refused_is_kept_apart_and_the_rest_goes_on() -> None:
    story = Story(graph_of(a="", b=""))
    wrong = FinishStep("a", 1, 1, OUTPUT)
    done = drive(story.run, [StartStep("a"), ClaimRun("w1", 1), wrong, StartStep("b")], NOON)
    assert [type(command) for command, _ in done.refused] == [StartStep, FinishStep]
    assert [row.kind for row in done.rows] == ["run_started", "step_started"]
    assert [event.kind for event in done.events] == ["run_started", "step_started"]
    assert [event.step for event in done.started] == ["b"]


def test_the_scheduler_sees_what_was_decided_so_far() -> None:
    story = Story(graph_of(a="", b="", c=""))
    seen: list[list[str]] = []

    def schedule(state: RunState, now: datetime) -> Iterator[Command]:
        for name in list(state.ready):
            seen.append(list(state.ready))
            yield StartStep(name)

    drive(story.run, [ClaimRun("w1", 1)], NOON, schedule)
    assert seen == [["a", "b", "c"], ["b", "c"], ["c"]]
    assert story.state.running == 3


TOKENS = [(0, 0), (1, 0), (2, 2), (3, 4), (9, 16)]


@pytest.mark.parametrize(("epoch", "spent"), TOKENS)
def test_a_later_owner_begins_above_the_tokens_that_earlier_ones_may_have_used(epoch: int, spent: int) -> None:
    """An owner starts root steps before its first flush; if it dies then, nobody knows which."""
    run = OpenRun(Story(graph_of(a="", b="", c="a")).state, b"", epoch)
    assert tokens_spent(run) == spent
    done = drive(run, [ClaimRun("w", epoch), StartStep("a"), StartStep("b")], NOON)
    assert [event.token for event in done.started] == [spent + 1, spent + 2]


def test_no_two_owners_of_a_fresh_run_ever_use_one_token() -> None:
    used: set[int] = set()
    for epoch in range(1, 6):
        run = OpenRun(Story(graph_of(a="", b="", c="")).state, b"", epoch)
        starts = drive(run, [ClaimRun("w", epoch), *map(StartStep, "abc")], NOON).started
        tokens = {event.token for event in starts}
        assert len(tokens) == 3
        assert not tokens & used
        used |= tokens


def test_once_a_token_is_in_the_log_the_log_counts_on() -> None:
    story = Story(graph_of(a="", b="")).claim().start("a")
    done = drive(replace(story.run, epoch=7), [StartStep("b")], NOON)
    assert [event.token for event in done.started] == [2]


def test_a_step_never_starts_under_a_token_that_was_given_before() -> None:
    story = Story(graph_of(a="", b="", c="")).claim()
    for step, above in (("a", 5), ("b", 0), ("c", -3)):
        answer = story.ask(StartStep(step, above=above))
        assert isinstance(answer, list)
        assert isinstance(answer[-1], StepStarted)
    assert [story.attempt(step)[1] for step in "abc"] == [6, 7, 8]


def with_inputs() -> Graph:
    steps = {
        "a": StepSpec(name="a"),
        "b": StepSpec(name="b"),
        "c": StepSpec(name="c", needs={"x": "a", "y": "b"}, after=("a",)),
    }
    return Graph.build("story", steps)


def test_the_hash_of_inputs_depends_on_each_value_and_on_which_parameter_gets_it() -> None:
    def told(run_input: Payload, a: Payload, b: Payload) -> str:
        story = Story(with_inputs(), input=run_input).claim().start("a", "b")
        return input_hash(story.finish("a", output=a).finish("b", output=b).state, "c")

    one, two, three = OUTPUTS[0], OUTPUTS[1], OUTPUTS[4]
    hashes = [told(one, two, three), told(one, three, two), told(two, two, three), told(one, two, two)]
    assert len(set(hashes)) == len(hashes)
    assert all(len(h) == 16 and int(h, 16) >= 0 for h in hashes)
    assert told(one, two, three) == hashes[0]


def test_the_hash_of_inputs_is_the_same_whether_a_value_was_just_made_or_read_back() -> None:
    story = Story(with_inputs()).claim().start("a", "b").finish("a", output=OUTPUTS[4]).finish("b")
    again = OpenRun(RunState(RUN_ID, with_inputs()), first_hash(RUN_ID))
    for row in story.rows:
        again.record(codec.decode(row).event, row.at)
    assert input_hash(again.state, "c") == input_hash(story.state, "c")


def test_a_cancel_that_comes_with_other_news_is_decided_after_them() -> None:
    story = Story(graph_of(a="", b="a")).claim().start("a")
    done = drive(story.run, [FinishStep("a", *story.attempt("a"), OUTPUT), RequestCancel("ann", "x")], NOON)
    kinds = ["step_done", "run_cancel_requested", "step_cancelled", "run_cancelled"]
    assert [event.kind for event in done.events] == kinds
