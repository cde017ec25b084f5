"""The checked DAG: what is refused, and what is derived from it."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from readable_tables import rows
from run_stories import graph_of, spec

from kairos.domain import canonical, graph
from kairos.domain.graph import MAX_STEPS, Graph, StepSpec
from kairos.domain.retry import Retry
from kairos.errors import DefinitionError

SHAPES = """
    shape     steps                    roots  sinks  order
    one       a:                       a      a      a
    chain     a: b:a c:b               a      c      a b c
    diamond   a: b:a c:a d:b,c         a      d      a b c d
    islands   a: b: c:                 a b c  a b c  a b c
    backward  c:b b:a a:               a      c      a b c
    mixed     d: c:d b: a:b            d b    c a    d c b a
    early     z:y y: x:                y x    z x    y z x
    fan       a: b:a c:a d:a           a      b c d  a b c d
"""


def parse(steps: str) -> Graph:
    pairs = (item.split(":") for item in steps.split())
    return graph_of(**{name: upstream.replace(",", " ") for name, upstream in pairs})


@pytest.mark.parametrize(("shape", "steps", "roots", "sinks", "order"), rows(SHAPES))
def test_roots_sinks_and_order_follow_the_definition(
    shape: str, steps: str, roots: str, sinks: str, order: str
) -> None:
    built = parse(steps)
    assert " ".join(built.roots) == roots
    assert " ".join(built.sinks) == sinks
    assert " ".join(built.order) == order


CYCLES = """
    steps                     cycle
    a:a                       a -> a
    a:b b:a                   a -> b -> a
    a: b:a,d c:b d:c          b -> c -> d -> b
    x: a:c b:a c:b y:c        a -> b -> c -> a
"""


@pytest.mark.parametrize(("steps", "cycle"), rows(CYCLES))
def test_a_cycle_is_spelled_out_whole(steps: str, cycle: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(steps)
    shown = caught.value.facts["cycle"].split(" -> ")
    expected = cycle.split(" -> ")
    turns = [expected[:-1][i:] + expected[:-1][:i] for i in range(len(expected) - 1)]
    assert shown[0] == shown[-1]
    assert shown[:-1] in turns
    assert caught.value.facts["cycle"] in str(caught.value)


def test_a_step_that_does_not_exist_cannot_be_waited_for() -> None:
    with pytest.raises(DefinitionError, match="step 'a' waits for 'ghost', which is not a step"):
        graph_of(a="ghost")
    with pytest.raises(DefinitionError, match="'ghost'"):
        Graph.build("w", {"a": StepSpec(name="a", needs={"x": "ghost"})})


def test_a_workflow_has_at_least_one_step_and_not_endlessly_many(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DefinitionError, match="has no steps"):
        Graph.build("w", {})
    assert MAX_STEPS == 20_000
    monkeypatch.setattr(graph, "MAX_STEPS", 2)
    graph_of(a="", b="")
    with pytest.raises(DefinitionError, match="has 3 steps; the limit is 2"):
        graph_of(a="", b="", c="")


def test_a_step_needed_twice_is_waited_for_once() -> None:
    steps = {"a": StepSpec(name="a"), "b": StepSpec(name="b", needs={"x": "a", "y": "a"}, after=("a",))}
    built = Graph.build("w", steps)
    assert built.steps["b"].upstream == ("a",)
    assert built.upstream_count == {"a": 0, "b": 1}
    assert built.downstream == {"a": ("b",), "b": ()}


@pytest.mark.parametrize("shape", ["chain", "fan out and in", "layers"])
def test_a_thousand_steps_are_no_trouble(shape: str) -> None:
    n = 1000
    if shape == "chain":
        steps = {f"s{i}": f"s{i - 1}" if i else "" for i in range(n)}
    elif shape == "fan out and in":
        steps = {"s0": "", **{f"s{i}": "s0" for i in range(1, n - 1)}}
        steps[f"s{n - 1}"] = " ".join(f"s{i}" for i in range(1, n - 1))
    else:
        steps = {f"s{i}": " ".join(f"s{j}" for j in range(i // 10 * 10 - 10, i // 10 * 10) if j >= 0) for i in range(n)}
    built = graph_of(**steps)
    _check_derived(built)
    assert Graph.from_json(canonical.decode(canonical.encode(built.to_json()))) == built


def test_a_thousand_steps_in_one_cycle_are_spelled_out_too() -> None:
    with pytest.raises(DefinitionError) as caught:
        graph_of(**{f"s{i}": f"s{(i - 1) % 1000}" for i in range(1000)})
    assert len(caught.value.facts["cycle"].split(" -> ")) == 1001


@given(st.data())
def test_a_graph_is_built_exactly_if_it_has_no_cycle(data: Any) -> None:
    names = [f"s{i}" for i in range(data.draw(st.integers(1, 7)))]
    upstream = {name: data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True)) for name in names}
    steps = {name: " ".join(ups) for name, ups in upstream.items()}
    if _has_cycle(upstream):
        with pytest.raises(DefinitionError) as caught:
            graph_of(**steps)
        path = caught.value.facts["cycle"].split(" -> ")
        assert path[0] == path[-1]
        assert len(set(path)) == len(path) - 1
        assert all(up in upstream[down] for up, down in pairwise(path))
    else:
        _check_derived(graph_of(**steps))


durations = st.none() | st.timedeltas(timedelta(0), timedelta(days=36500))
specs = st.builds(
    StepSpec,
    name=st.just("a"),
    retry=st.builds(Retry, attempts=st.integers(1, 9), jitter=st.floats(0, 1), factor=st.floats(1, 9)),
    timeout=durations,
    queue=st.none() | st.just("mail"),
    priority=st.none() | st.integers(1, 10),
    ttl=durations,
    crash_limit=st.integers(1, 9),
    transactional=st.booleans(),
)


@given(specs)
def test_a_graph_reads_back_as_it_was(step: StepSpec) -> None:
    other = StepSpec(name="b", needs={"z": "a", "y": "a"}, after=("a",))
    built = Graph.build("w", {"a": step, "b": other})
    again = Graph.from_json(canonical.decode(canonical.encode(built.to_json())))
    assert again == built
    assert list(again.steps) == list(built.steps)
    assert again.to_json() == built.to_json()


def test_what_was_pinned_before_there_were_transactional_steps_still_reads() -> None:
    data = graph_of(a=spec("a")).to_json()
    del data["steps"][0]["transactional"]
    assert Graph.from_json(data).steps["a"].transactional is False


def _check_derived(built: Graph) -> None:
    edges = {(up, name) for name, step in built.steps.items() for up in step.upstream}
    assert {(up, below) for up, all_below in built.downstream.items() for below in all_below} == edges
    assert built.upstream_count == {name: sum(below == name for _, below in edges) for name in built.steps}
    assert set(built.roots) == set(built.steps) - {below for _, below in edges}
    assert set(built.sinks) == set(built.steps) - {up for up, _ in edges}
    place = {name: i for i, name in enumerate(built.order)}
    assert place.keys() == built.steps.keys()
    assert all(place[up] < place[below] for up, below in edges)


def _has_cycle(upstream: dict[str, list[str]]) -> bool:
    left = {name: set(ups) for name, ups in upstream.items()}
    while free := [name for name, ups in left.items() if not ups]:
        for name in free:
            del left[name]
        for ups in left.values():
            ups.difference_update(free)
    return bool(left)
