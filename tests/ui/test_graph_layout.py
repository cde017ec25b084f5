"""The drawing of graphs: everything flows one way, nothing overlaps, no line goes through a box."""

from __future__ import annotations

import re
from random import Random

import pytest

from debugger_ui.graph import picture
from debugger_ui.groups import group_steps
from debugger_ui.layout.coordinates import pooled
from debugger_ui.layout.drawing import Box, draw
from debugger_ui.layout.layers import arrange, crossings
from kairos.domain.graph import Graph, StepSpec

NUMBER = re.compile(r"-?\d+\.?\d*")


def random_graph(seed: int, count: int) -> list[tuple[int, int]]:
    dice = Random(seed)
    return sorted(
        {(up, node) for node in range(1, count) for up in dice.sample(range(node), min(node, dice.randint(0, 3)))}
    )


def points(path: str, steps: int = 24) -> list[tuple[float, float]]:
    """Points along an SVG path of M, L and C."""
    found: list[tuple[float, float]] = []
    for letter, rest in re.findall(r"([MLC])([^MLC]*)", path):
        numbers = [float(n) for n in NUMBER.findall(rest)]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        if letter == "M":
            found.append(pairs[0])
            continue
        start = found[-1]
        if letter == "L":
            found += [
                (start[0] + (pairs[0][0] - start[0]) * t / steps, start[1] + (pairs[0][1] - start[1]) * t / steps)
                for t in range(1, steps + 1)
            ]
            continue
        a, b, c = pairs
        for t in (i / steps for i in range(1, steps + 1)):
            u = 1 - t
            found.append(
                tuple(  # type: ignore[arg-type]
                    u**3 * start[k] + 3 * u * u * t * a[k] + 3 * u * t * t * b[k] + t**3 * c[k] for k in (0, 1)
                )
            )
    return found


def holds(box: Box, point: tuple[float, float]) -> bool:
    return box.x + 0.5 < point[0] < box.x + box.width - 0.5 and box.y + 0.5 < point[1] < box.y + box.height - 0.5


@pytest.mark.parametrize("sideways", [True, False])
@pytest.mark.parametrize(("seed", "count"), [(1, 1), (2, 2), (3, 12), (4, 40), (5, 90)])
def test_no_boxes_overlap_and_no_line_goes_through_one(seed: int, count: int, sideways: bool) -> None:
    dice = Random(seed)
    edges = random_graph(seed, count)
    drawing = draw([(dice.randint(80, 200), 34) for _ in range(count)], edges, sideways=sideways)
    for i, one in enumerate(drawing.boxes):
        assert one.x >= 0
        assert one.y >= 0
        assert one.x + one.width <= drawing.width
        assert one.y + one.height <= drawing.height
        for other in drawing.boxes[i + 1 :]:
            apart = (
                one.x + one.width <= other.x + 0.01
                or other.x + other.width <= one.x + 0.01
                or one.y + one.height <= other.y + 0.01
                or other.y + other.height <= one.y + 0.01
            )
            assert apart
    assert {(line.start, line.end) for line in drawing.lines} == set(edges)
    for line in drawing.lines:
        for point in points(line.path):
            assert not any(holds(box, point) for box in drawing.boxes)


def test_every_edge_leads_forward() -> None:
    for seed in range(20):
        edges = random_graph(seed, 30)
        layers = arrange(30, edges)
        assert all(layers.layer[a] < layers.layer[b] for a, b in edges)
        assert sorted(n for row in layers.rows for n in row) == list(range(layers.count))


def test_a_ladder_that_can_be_drawn_without_crossings_is() -> None:
    edges = [(0, 3), (1, 2), (2, 5), (3, 4)]
    assert crossings(arrange(6, edges)) == 0


def test_the_same_graph_is_drawn_the_same() -> None:
    edges = random_graph(7, 60)
    sizes = [(100.0, 34.0)] * 60
    assert draw(sizes, edges) == draw(sizes, edges)


def test_values_are_pooled_into_the_nearest_ascending_ones() -> None:
    assert pooled([3, 1, 2], [1, 1, 1]) == [2, 2, 2]
    assert pooled([1, 5, 2, 9], [1, 1, 1, 1]) == [1, 3.5, 3.5, 9]
    assert pooled([], []) == []


def graph_of(steps: dict[str, str]) -> Graph:
    return Graph.build("w", {n: StepSpec(name=n, after=tuple(ups.split())) for n, ups in steps.items()})


def test_like_steps_are_one_group_and_a_chain_is_not() -> None:
    fan = graph_of(
        {"plan": "", **{f"send_{i}": "plan" for i in range(5)}, "end": " ".join(f"send_{i}" for i in range(5))}
    )
    assert [(g.name, len(g.members)) for g in group_steps(fan)] == [("send_*", 5)]
    chain = graph_of({"page_0": "", **{f"page_{i}": f"page_{i - 1}" for i in range(1, 9)}})
    assert group_steps(chain) == []
    few = graph_of({f"send_{i}": "" for i in range(4)})
    assert group_steps(few) == []


def test_a_closed_group_is_one_box_and_an_opened_one_is_many() -> None:
    graph = graph_of({"plan": "", **{f"send_{i}": "plan" for i in range(100)}})
    closed, opened = picture(graph), picture(graph, ["send_*"])
    assert closed is not None
    assert opened is not None
    assert [node.label for node in closed.nodes] == ["plan", "send_*"]
    assert len(closed.nodes[1].steps) == 100
    assert len(opened.nodes) == 101


def test_a_graph_beyond_all_measure_is_not_drawn() -> None:
    names = [f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(1_600)]
    assert picture(graph_of(dict.fromkeys(names, ""))) is None
