"""What a fork takes over and what it runs; which edits are refused, and in what words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import json_values
from run_stories import NOON, OUTPUT, RUN_ID, Story, graph_of, scheduled

from kairos.domain import canonical
from kairos.domain.commands import ClaimRun
from kairos.domain.decisions import decide
from kairos.domain.editing import Edit, apply_edits, read_edits, value_at, written
from kairos.domain.events import Recorded, RunDone, RunForked, RunStarted, StepsInherited, output_in
from kairos.domain.forking import CHUNK, Origin, Parent, downstream_of, fork_events, plan_fork, read_parent
from kairos.domain.graph import Graph, StepSpec
from kairos.domain.payload import Payload
from kairos.domain.projection import project
from kairos.domain.states import RunStatus
from kairos.errors import HistoryError, InvalidArgument, KairosError
from kairos.store.codec import decode

SHOP = graph_of(reserve="", pack="reserve", charge="reserve", ship="pack charge", email="ship", audit="")
PARENT = str(RUN_ID)


def parent(*done: str, graph: Graph = SHOP) -> Parent:
    outputs = {name: Origin.of(PARENT, 3 + i, OUTPUT) for i, name in enumerate(done)}
    return Parent(PARENT, 40, PARENT, scheduled(graph), outputs)


def plan(done: str, from_step: str, edits: Mapping[str, Any] | None = None, graph: Graph = SHOP) -> Any:
    return plan_fork(parent(*done.split(), graph=graph), graph, from_step, read_edits(edits or {}, {}, graph.steps))


@pytest.mark.parametrize(
    ("done", "from_step", "reused", "runs"),
    [
        ("reserve pack", "charge", "reserve pack", "charge ship email audit"),
        ("reserve pack charge ship email audit", "ship", "reserve pack charge audit", "ship email"),
        ("reserve pack charge ship email audit", "audit", "reserve pack charge ship email", "audit"),
        ("reserve pack charge ship email audit", "reserve", "audit", "reserve pack charge ship email"),
        ("", "charge", "", "reserve pack charge ship email audit"),
        ("reserve", "email", "reserve", "pack charge ship email audit"),
    ],
)
def test_all_that_is_done_is_reused_but_the_fork_point_and_what_follows(
    done: str, from_step: str, reused: str, runs: str
) -> None:
    found = plan(done, from_step)
    assert (list(found.reused), list(found.runs)) == (reused.split(), runs.split())
    assert found.runs[from_step] == "the fork point"


def test_a_step_that_the_new_version_no_longer_has_is_left_out_and_a_new_one_runs() -> None:
    newer = graph_of(check="", charge="check reserve", reserve="")
    found = plan("reserve pack", "charge", graph=newer)
    assert (list(found.reused), found.runs) == (
        ["reserve"], {"check": "not done in the parent", "charge": "the fork point"}
    )  # fmt: skip


def test_reused_steps_that_ran_on_other_data_are_named() -> None:
    graph = Graph.build("w", {
        "a": StepSpec(name="a"), "b": StepSpec(name="b", needs={"x": "a"}), "c": StepSpec(name="c", needs={"x": "a"}),
        "d": StepSpec(name="d", after=("a",)),
    })  # fmt: skip
    assert plan("a b c d", "c", {"a.ok": False}, graph).stale == ("b",)
    assert plan("a b c d", "c", graph=graph).stale == ()


@pytest.mark.parametrize(
    ("from_step", "edits", "message", "hint"),
    [
        ("chrge", {}, "there is no step 'chrge'", "Did you mean 'charge'?"),
        ("charge", {"charge.x": 1}, "'charge' is not done", "charge=JSON"),
        ("charge", {"email": 1}, "the output of 'email' cannot be given: 'email' runs again", "fork from 'email' with"),
        ("charge", {"email.x": 1}, "'email.x' cannot be given: 'email' runs again", "the output of 'charge'"),
        ("charge", {"audit.x": 1}, "'audit' is not done", "audit=JSON"),
        ("charge", {"reserv.x": 1}, "names neither a step nor the input", "Did you mean 'reserve'?"),
        ("charge", {"reserve..x": 1}, "cannot be read from '..x' on", "input.amount"),
        ("charge", {"reserve[x]": 1}, "cannot be read from '[x]' on", "input.amount"),
        ("charge", {"reserve": 1, "reserve.ok": 2}, "reserve is changed twice", None),
        ("charge", {"reserve.ok": 1, 'reserve["ok"]': 2}, "reserve is changed twice", None),
        ("charge", {"reserve": float("nan")}, "JSON does not have", None),
        ("charge", {"reserve": object()}, "not a JSON value", None),
        ("charge", {"": 1}, "names neither", None),
    ],
)
def test_what_makes_no_sense_is_refused(from_step: str, edits: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(KairosError) as caught:
        plan("reserve", from_step, edits)
    assert message in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


def test_an_output_for_a_step_that_is_not_done_is_taken() -> None:
    found = plan("reserve", "charge", {"audit": {"by": "hand"}})
    assert found.overridden == ("audit",)
    assert "audit" not in found.runs


def test_an_output_for_the_fork_point_takes_its_place() -> None:
    found = plan("reserve pack", "charge", {"charge": 9})
    assert (list(found.reused), found.overridden) == (["reserve", "pack"], ("charge",))
    assert found.runs == {
        "ship": "downstream of charge", "email": "downstream of charge", "audit": "not done in the parent"
    }  # fmt: skip
    changed = plan("reserve pack charge ship email audit", "charge", {"charge.ok": False})
    assert (changed.overridden, list(changed.runs), changed.stale) == (("charge",), ["ship", "email"], ())
    last = plan("reserve pack charge ship audit", "email", {"email": None})
    assert (last.overridden, last.runs) == (("email",), {})


NAMES = "abcdefg"


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    ups = [draw(st.sets(st.sampled_from(names[:i]))) if i else set() for i in range(len(names))]
    return graph_of(**{name: " ".join(sorted(above)) for name, above in zip(names, ups, strict=True)})


@given(st.data(), graphs())
def test_each_step_is_reused_given_or_run_and_what_is_below_the_fork_point_runs(
    data: st.DataObject, graph: Graph
) -> None:
    names = list(graph.steps)
    from_step = data.draw(st.sampled_from(names))
    below = downstream_of(graph, from_step)
    done = data.draw(st.sets(st.sampled_from(names)))
    outputs = data.draw(st.sets(st.sampled_from([name for name in names if name not in below])))
    found = plan(" ".join(sorted(done)), from_step, dict.fromkeys(outputs, 1), graph)
    kinds = [set(found.reused), set(found.overridden), set(found.runs)]
    assert (set().union(*kinds), sum(map(len, kinds))) == (set(names), len(names))
    assert set(found.overridden) == outputs
    assert (from_step in found.runs) is (from_step not in outputs)
    assert below <= set(found.runs)
    assert set(found.reused) == done - below - outputs - {from_step}


def test_an_unknown_step_is_given_no_output() -> None:
    with pytest.raises(InvalidArgument, match="no step 'reserv'") as caught:
        read_edits({}, {"reserv": 1}, SHOP.steps)
    assert caught.value.hint == "Did you mean 'reserve'?"


VALUE = {"items": [{"price": 1}, {"price": 2}], "a key": {"x.y": None}, "n": 5, "empty": []}


@pytest.mark.parametrize(
    ("path", "way"),
    [
        ("input.n", ("n",)),
        ("input.items[1].price", ("items", 1, "price")),
        ('input["a key"]["x.y"]', ("a key", "x.y")),
        ("input.a key", ("a key",)),
        ("input", ()),
    ],
)
def test_a_path_leads_to_one_place(path: str, way: tuple[Any, ...]) -> None:
    (edit,) = read_edits({path: "new"}, {}, SHOP.steps)
    assert (edit.step, edit.keys) == (None, way)
    changed = apply_edits(canonical.decode(canonical.encode(VALUE)), [edit])
    assert value_at(changed, edit) == "new"
    put_back = Edit(path, None, edit.keys, value_at(VALUE, edit) if way else VALUE)
    assert apply_edits(changed, [put_back]) == VALUE


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("input.itms[0]", "input has no 'itms'", "Did you mean 'items'?"),
        ("input.items[2].price", "input.items is a list of 2", "input.items[0] to input.items[1]"),
        ("input.items.price", "input.items is a list of 2", "items[0]"),
        ("input.empty[0]", "input.empty is a list of 0", "input=JSON"),
        ("input.n.x", "input.n is a number", "input=JSON"),
        ('input["a key"]["x.y"].z', 'input["a key"]["x.y"] is null', "input=JSON"),
        ("input[0]", "input has no 0", None),
    ],
)
def test_a_path_that_leads_nowhere_says_how_far_it_leads(path: str, message: str, hint: str | None) -> None:
    with pytest.raises(InvalidArgument) as caught:
        apply_edits(canonical.decode(canonical.encode(VALUE)), read_edits({path: 1}, {}, SHOP.steps))
    assert message in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


@given(st.lists(st.text(max_size=8) | st.integers(0, 99), max_size=5))
def test_every_way_can_be_written_and_read_back(keys: list[str | int]) -> None:
    (edit,) = read_edits({written("reserve", keys): 1}, {}, SHOP.steps)
    assert list(edit.keys) == keys


def test_a_step_whose_name_holds_dots_is_found_before_a_shorter_one() -> None:
    graph = graph_of(**{"a": "", "a.b": "a", "c": ""})
    (edit,) = read_edits({"a.b.c": 1}, {}, graph.steps)
    assert (edit.step, edit.keys) == ("a.b", ("c",))


def test_a_parent_is_read_from_its_log_and_a_fork_of_it_folds() -> None:
    story = Story(SHOP).claim().start("reserve", "audit").finish("reserve").start("charge").fail("charge")
    history = [decode(row) for row in story.rows]
    found = read_parent(PARENT, len(history), history)
    assert found.outputs == {"reserve": Origin(PARENT, 5, OUTPUT.size, OUTPUT.digest, False)}
    chosen = plan_fork(found, SHOP, "charge", read_edits({"audit": 7}, {}, SHOP.steps))
    seven = Payload.of(b"7")
    events = fork_events(chosen, {"audit": seven}, {"audit": 7}, "ann", "fixed")
    assert events[0] == RunForked(parent=PARENT, root=PARENT, parent_seq=len(history), from_step="charge",
                                  author="ann", reason="fixed", edits={"audit": 7})  # fmt: skip
    log = [Recorded(i, NOON, event) for i, event in enumerate([scheduled(SHOP, trigger="fork"), *events], 1)]
    state = project(RUN_ID, SHOP, log)
    assert state.steps_in(state.steps["reserve"].status) == ["reserve", "audit"]
    assert state.steps["reserve"].output == OUTPUT
    assert list(state.ready) == ["pack", "charge"]

    again = read_parent("child", len(log), log)
    assert again.root == PARENT
    assert again.outputs["reserve"].run == PARENT
    assert again.outputs["audit"].run == "child"


def test_a_fork_with_nothing_to_run_is_done_when_it_is_claimed() -> None:
    outputs = dict.fromkeys(SHOP.steps, Payload.of(b"7"))
    given_ones = read_edits({}, dict.fromkeys(list(SHOP.steps)[1:], 7), SHOP.steps)
    chosen = plan_fork(parent("reserve"), SHOP, "email", given_ones)
    events = [scheduled(SHOP, trigger="fork"), *fork_events(chosen, outputs, {}, "ann", "")]
    log = [Recorded(i, NOON, event) for i, event in enumerate(events, 1)]
    state = project(RUN_ID, SHOP, log)
    answer = decide(state, ClaimRun("w1", 1), NOON)
    assert isinstance(answer, list)
    assert [type(event) for event in answer] == [RunStarted, RunDone]
    done = project(RUN_ID, SHOP, [*log, *(Recorded(len(log) + i, NOON, e) for i, e in enumerate(answer, 1))])
    assert done.status is RunStatus.DONE
    assert done.outputs == {sink: done.steps[sink].done_seq for sink in SHOP.sinks}


def test_a_log_without_its_beginning_is_no_parent() -> None:
    with pytest.raises(HistoryError, match="does not begin"):
        read_parent(PARENT, 3, [])


def test_long_inheritances_come_in_chunks_by_the_run_that_did_the_work() -> None:
    graph = graph_of(**{f"s{i}": "" for i in range(2 * CHUNK)}, last="")
    origins = {f"s{i}": Origin("x" if i % 2 else "y", i, 5, "00" * 32, False) for i in range(2 * CHUNK)}
    chosen = plan_fork(Parent(PARENT, 9, PARENT, scheduled(graph), origins), graph, "last")
    chunks = [event for event in fork_events(chosen, {}, {}, "", "") if isinstance(event, StepsInherited)]
    assert [(chunk.run, len(chunk.outputs)) for chunk in chunks] == [("y", CHUNK), ("x", CHUNK)]
    assert output_in(chunks[0], "s0") == origins["s0"].payload
    assert output_in(chunks[0], "s1") is None


@given(json_values)
def test_the_whole_of_a_value_can_be_given(value: Any) -> None:
    (edit,) = read_edits({"reserve": value}, {}, SHOP.steps)
    assert apply_edits({"old": 1}, [edit]) == value
