"""Runs as the debugger holds them: the state at any seq is the fold of the events up to there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from debugger_ui import histories
from debugger_ui.attempts import attempts_of
from debugger_ui.moments import failure_seq, read_moment
from debugger_ui.reads import Reads
from debugger_ui.timeline import KINDS, columns, machine
from kairos.domain.projection import RunState, project
from kairos.domain.states import RUN_TRANSITIONS, STEP_TRANSITIONS
from kairos.store.codec import Row
from tests.ui.random_histories import RUN_ID, SECOND, Story, forked, graph_of, history_of, rolled


def folded(history: histories.History, seq: int) -> RunState:
    events = [entry.recorded for entry in history.entries[:seq]]
    return project(RUN_ID, history.definition.graph, (e for e in events if e is not None))


@pytest.mark.parametrize("every", [1, 2, 7, 512])
@pytest.mark.parametrize("seed", range(6))
def test_the_state_at_any_seq_is_the_fold_up_to_there(seed: int, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "MAX_KEYFRAMES", 8)
    monkeypatch.setattr(histories.History, "_every", every)
    history = rolled(seed)
    for seq in (*range(history.seq + 1), *range(history.seq, -1, -3)):
        assert history.state_at(seq) == folded(history, seq)
    assert history.state == folded(history, history.seq)


def test_what_is_done_to_a_state_stays_there() -> None:
    history = forked()
    state = history.state_at(history.seq)
    state.steps["d"].effects = {}
    state.steps["d"].attempt = 99
    state.ready["x"] = None
    assert history.state_at(history.seq) == folded(history, history.seq)


def test_an_unknown_event_is_shown_raw_and_the_state_stands_still_before_it() -> None:
    story = Story(graph_of(a="", b="a")).claim().start("a")
    rows = [*story.rows]
    last = rows[-1]
    rows.append(Row(last.seq + 1, "step_teleported", last.at, "a", 1, 1, b"", b'{"to":"<b>mars</b>"}'))
    rows.append(Row(last.seq + 2, "step_done", last.at, "a", 1, 1, b"", b'{"output":1}'))
    history = history_of(story.run.state.graph, rows)
    assert history.broken is not None
    assert history.broken[0] == last.seq + 1
    assert history.entries[last.seq].recorded is None
    assert history.state_at(history.seq) == history.state_at(last.seq)
    assert columns(history)["kind"][last.seq] == -1


def test_columns_tell_every_event_in_order_from_anywhere() -> None:
    history = rolled(3)
    whole = columns(history)
    assert [KINDS[k] for k in whole["kind"]] == [entry.kind for entry in history.entries]
    for after in range(history.seq):
        part = columns(history, after)
        assert part["kind"] == whole["kind"][after:]
        begin = sum(whole["t"][:after])
        assert (begin if after else 0) + sum(part["t"]) == sum(whole["t"])


def test_the_table_that_browsers_fold_by_is_the_table_of_the_rules() -> None:
    told = machine()
    assert {(b, k): a for b, row in told["stepMoves"].items() for k, a in row.items()} == {
        (before.value, kind): after.value for (before, kind), after in STEP_TRANSITIONS.items()
    }
    assert sum(map(len, told["runMoves"].values())) == len(RUN_TRANSITIONS)


def test_attempts_are_read_as_of_the_playhead() -> None:
    story = Story(graph_of(a="")).claim().start("a").wait(SECOND).fail("a").wait(20 * SECOND)
    story.start("a").wait(SECOND).finish("a")
    history = history_of(story.run.state.graph, story.rows)
    at = {entry.kind + str(entry.attempt or ""): entry.seq for entry in history.entries}
    assert attempts_of(history, "a", at["step_started1"] - 1) == []
    assert [a.outcome for a in attempts_of(history, "a", at["step_started1"])] == ["running"]
    assert [a.outcome for a in attempts_of(history, "a", at["step_failed1"])] == ["failed"]
    assert [a.outcome for a in attempts_of(history, "a", at["step_started2"])] == ["failed", "running"]
    assert [a.outcome for a in attempts_of(history, "a")] == ["failed", "done"]


def test_a_run_opens_at_its_failure_and_a_good_one_at_its_end() -> None:
    story = Story(graph_of(a="", b="a")).claim()
    for _ in range(3):
        story.start("a").fail("a").wait(20 * SECOND)
    bad = history_of(story.run.state.graph, story.rows)
    assert bad.state.status == "FAILED"
    seq = failure_seq(bad)
    assert seq is not None
    assert bad.entries[seq - 1].kind == "step_dead"
    moment = read_moment(bad, {})
    assert (moment.at, moment.step, moment.pane) == (seq, "a", "error")
    good = forked()
    assert read_moment(good, {}).at == good.seq
    assert read_moment(good, {}).step is None


@pytest.mark.parametrize(
    ("query", "at", "has_notice"),
    [
        ({"at": "3"}, 3, False),
        ({"at": "0"}, 0, False),
        ({"at": "999999"}, None, True),
        ({"at": "-1"}, None, True),
        ({"at": "³"}, None, True),
        ({"at": "x" * 5000}, None, True),
        ({"at": "first"}, 1, False),
        ({"at": "last"}, None, False),
        ({"at": "fail"}, None, True),
        ({"t": "1999-01-01"}, 1, False),
        ({"t": "2999-01-01T00:00:00+00:00"}, None, False),
        ({"t": "noon"}, None, True),
        ({"step": "ghost"}, None, True),
        ({"pane": "ghost", "attempt": "-7", "mark": "1e9"}, None, False),
    ],
    ids=str,
)
def test_an_address_always_means_a_moment(query: dict[str, str], at: int | None, has_notice: bool) -> None:
    history = forked()
    moment = read_moment(history, query)
    assert moment.at == (history.seq if at is None else at)
    assert bool(moment.notice) == has_notice


class Growing(Reads):
    """Reads of one run that gets an event with every look; each look takes a while."""

    def __init__(self, story: Story) -> None:
        super().__init__("")
        self.story, self.there = story, 1

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[Any]:
        yield self

    async def run(self, run_id: object) -> Any:
        return SimpleNamespace(fingerprint="f" * 32, id=RUN_ID)

    async def definition(self, fingerprint: str) -> Any:
        return SimpleNamespace(graph=self.story.run.state.graph)

    async def rows(self, run_id: object, after: int, upto: int) -> list[Row]:
        self.there = min(self.there + 1, len(self.story.rows))
        there = self.there
        for _ in range(3):
            await asyncio.sleep(0)
        return list(self.story.rows[after:there])


def test_however_many_look_at_once_each_event_is_read_once() -> None:
    story = Story(graph_of(a="", b="a", c="b")).claim()
    for step in "abc":
        story.start(step)
        story.finish(step)

    async def look() -> histories.History:
        shared = histories.Histories(Growing(story))

        async def viewer(patience: int) -> None:
            for _ in range(12):
                await shared.get(RUN_ID)
                for _ in range(patience):
                    await asyncio.sleep(0)

        await asyncio.gather(*(viewer(n % 4) for n in range(12)))
        return await shared.get(RUN_ID)

    history = asyncio.run(look())
    assert [entry.seq for entry in history.entries] == list(range(1, len(story.rows) + 1))
    assert history.broken is None
