"""Groups of like steps: `send_1`, `send_2`, ... with the same upstream are shown as one until they are opened."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kairos.domain.graph import Graph

LEAST: Final = 5
"""Steps that make a group; fewer are shown one by one."""
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Group:
    """Steps whose names differ in a number only, and that wait for the same (kind of) steps."""

    name: str
    members: tuple[str, ...]


def group_steps(graph: Graph) -> list[Group]:
    """The groups of a graph, in order of definition."""
    found: dict[tuple[str, frozenset[str]], list[str]] = {}
    for spec in graph.steps.values():
        stem = stem_of(spec.name)
        if stem != spec.name:
            found.setdefault((stem, frozenset(map(stem_of, spec.upstream))), []).append(spec.name)
    return [
        Group(stem, tuple(members))
        for (stem, upstream), members in found.items()
        # A chain page_1 -> page_2 -> ... is like steps one after the other: as one box it would lose its sense.
        if len(members) >= LEAST and stem not in upstream
    ]


def stem_of(name: str) -> str:
    """`parse_12` as `parse_*`."""
    return _NUMBER.sub("*", name)


def members_of(groups: Iterable[Group]) -> dict[str, Group]:
    """step -> its group."""
    return {member: group for group in groups for member in group.members}
