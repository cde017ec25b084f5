"""Boxes and lines of a graph, ready to be written as SVG.

Lines leave a box at its end, bend only in the gap between two layers, and run straight through the layers they pass:
so none of them goes through a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from debugger_ui.layout.coordinates import place
from debugger_ui.layout.layers import Edge, arrange

GAP: Final = 18.0
"""Between boxes of one layer."""
LAYER_GAP: Final = 44.0
MARGIN: Final = 12.0
WIDE: Final = 2.2
"""A drawing that would be wider than this times its height, from top to bottom, is drawn from left to right."""


@dataclass(frozen=True, slots=True)
class Box:
    """One node: its upper left corner and size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Line:
    """One edge as an SVG path, and the numbers of the nodes that it joins."""

    start: int
    end: int
    path: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A graph as drawn; lengths in CSS pixels."""

    width: float
    height: float
    boxes: list[Box]
    lines: list[Line]
    is_sideways: bool


def draw(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[Edge],
    *,
    sideways: bool | None = None,
    layer_gap: float = LAYER_GAP,
) -> Drawing:
    """Draw a DAG of boxes of these (width, height).

    Args:
        sideways: from left to right instead of from top to bottom; None means whatever fits a screen better.
        layer_gap: between one layer and the next.
    """
    layers = arrange(len(sizes), edges)
    if sideways is None:
        upright = _size(layers.rows, sizes, False)
        lying = _size(layers.rows, sizes, True)
        sideways = abs(_shape(lying)) <= abs(_shape(upright))
    across = [height if sideways else width for width, height in sizes]
    along = [width if sideways else height for width, height in sizes]
    centre = place(layers, across, GAP)
    starts: list[float] = []
    thick: list[float] = []
    at = MARGIN
    for row in layers.rows:
        thickness = max((along[n] for n in row if n < layers.real), default=0.0)
        starts.append(at)
        thick.append(thickness)
        at += thickness + layer_gap
    boxes = []
    for node, (width, height) in enumerate(sizes):
        level = layers.layer[node]
        main = starts[level] + (thick[level] - along[node]) / 2
        cross = centre[node] - across[node] / 2 + MARGIN
        boxes.append(Box(main, cross, width, height) if sideways else Box(cross, main, width, height))
    lines = []
    for (a, b), chain in layers.chains.items():
        points = [
            (centre[n] + MARGIN, starts[layers.layer[n]], starts[layers.layer[n]] + thick[layers.layer[n]])
            for n in chain
        ]
        inset = [(thick[layers.layer[n]] - along[n]) / 2 for n in (a, b)]
        lines.append(Line(a, b, _path(points, inset[0], inset[1], sideways)))
    length = at - layer_gap + MARGIN
    breadth = max((centre[n] + across[n] / 2 for n in range(layers.real)), default=0.0) + 2 * MARGIN
    dummies = max((centre[n] for n in range(layers.real, layers.count)), default=0.0) + 2 * MARGIN
    breadth = max(breadth, dummies)
    width, height = (length, breadth) if sideways else (breadth, length)
    return Drawing(width, height, boxes, lines, sideways)


def _size(rows: Sequence[Sequence[int]], sizes: Sequence[tuple[float, float]], sideways: bool) -> tuple[float, float]:
    real = len(sizes)
    along = across = 0.0
    for row in rows:
        boxes = [sizes[n] for n in row if n < real]
        along += max((w if sideways else h for w, h in boxes), default=0.0) + LAYER_GAP
        across = max(across, sum((h if sideways else w) + GAP for w, h in boxes))
    return (along, across) if sideways else (across, along)


def _shape(size: tuple[float, float]) -> float:
    """How far from the shape of the pane; 0 is right."""
    width, height = max(size[0], 1.0), max(size[1], 1.0)
    ratio = width / height / WIDE
    return ratio - 1 if ratio >= 1 else 1 - 1 / ratio


def _path(points: Sequence[tuple[float, float, float]], leave: float, arrive: float, sideways: bool) -> str:
    """A line through layers, given as (place across, begin of the layer, its end).

    `leave`, `arrive`: how far the boxes at both ends stand back from the edges of their layers.
    """

    def point(cross: float, main: float) -> str:
        x, y = (main, cross) if sideways else (cross, main)
        return f"{x:.1f},{y:.1f}"

    cross, _, main = points[0]
    parts = [f"M{point(cross, main - leave)}"]
    if leave:
        parts.append(f"L{point(cross, main)}")
    for index, (to, begin, end) in enumerate(points[1:], 2):
        if abs(to - cross) < 0.5:
            parts.append(f"L{point(to, begin)}")
        else:
            half = (main + begin) / 2
            parts.append(f"C{point(cross, half)} {point(to, half)} {point(to, begin)}")
        if index < len(points):
            parts.append(f"L{point(to, end)}")
        elif arrive:
            parts.append(f"L{point(to, begin + arrive)}")
        cross, main = to, end
    return "".join(parts)
