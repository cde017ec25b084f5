"""The graph of a definition as boxes: one per step, or one per group of like steps until it is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from debugger_ui.groups import Group, group_steps, members_of
from debugger_ui.layout.drawing import Box, Drawing, draw
from kairos.domain.graph import Graph
from kairos.domain.projection import RunState

HEIGHT: Final = 34.0
GROUP_HEIGHT: Final = 46.0
CHARACTER: Final = 7.0
"""Width of one character of a label in CSS pixels, about."""
LEAST: Final = 84.0
TALL_LEAST: Final = 112.0
"""Width of a box with a second line."""
MOST: Final = 210.0
MAX_BOXES: Final = 1_500
"""Boxes up to which a graph is drawn."""


@dataclass(frozen=True, slots=True)
class Node:
    """One box. `steps`: what it stands for; several if it is a closed group, whose name is `group`."""

    label: str
    steps: tuple[str, ...]
    numbers: tuple[int, ...]
    box: Box
    group: str = ""

    @property
    def shown(self) -> str:
        """The label, cut to fit into the box."""
        room = int((self.box.width - 34) // CHARACTER)
        return self.label if len(self.label) <= room else self.label[: room - 1] + "…"

    def tally(self, state: RunState) -> list[tuple[str, int]]:
        """How many of its steps are in each status."""
        counts = Counter(state.steps[s].status.value if s in state.steps else "PENDING" for s in self.steps)
        return list(counts.items())


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn graph. `lines`: path, and the numbers of the steps at both ends (for highlighting)."""

    drawing: Drawing
    nodes: list[Node]
    lines: list[tuple[str, Node, Node]]


def picture(graph: Graph, opened: Iterable[str] = (), *, is_tall: bool = False) -> Picture | None:
    """Draw a graph; groups named in `opened` box by box. None if there are too many boxes.

    Args:
        is_tall: every box has room for a second line.
    """
    is_open = set(opened)
    groups = {g.name: g for g in group_steps(graph) if g.name not in is_open}
    of = members_of(groups.values())
    number = {name: i for i, name in enumerate(graph.steps)}
    place: dict[str, int] = {}
    parts: list[tuple[str, tuple[str, ...], str]] = []
    for name in graph.steps:
        group = of.get(name)
        if group is None:
            place[name] = len(parts)
            parts.append((name, (name,), ""))
        elif name == group.members[0]:
            place.update(dict.fromkeys(group.members, len(parts)))
            parts.append((group.name, group.members, group.name))
    if len(parts) > MAX_BOXES:
        return None
    edges = {(place[up], place[s.name]): None for s in graph.steps.values() for up in s.upstream}
    drawing = draw([_size(label, len(members) > 1, is_tall) for label, members, _ in parts], list(edges))
    nodes = [
        Node(label, members, tuple(number[m] for m in members), drawing.boxes[i], group)
        for i, (label, members, group) in enumerate(parts)
    ]
    return Picture(drawing, nodes, [(line.path, nodes[line.start], nodes[line.end]) for line in drawing.lines])


def _size(label: str, is_group: bool, is_tall: bool) -> tuple[float, float]:
    least = LEAST if not is_tall else MOST if is_group else TALL_LEAST
    return max(least, min(len(label) * CHARACTER + 40, MOST)), (GROUP_HEIGHT if is_tall or is_group else HEIGHT)


def named(groups: Iterable[Group]) -> list[str]:
    """Their names."""
    return [group.name for group in groups]
