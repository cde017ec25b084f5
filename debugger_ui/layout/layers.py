"""Which layer each node stands in, and in which order: few crossings, by weighted medians.

Nodes are numbers from 0; edges lead from a lower layer to a higher one. Long edges are cut into pieces by dummy nodes,
one for each layer that they pass.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

Edge = tuple[int, int]

SWEEPS: Final = 8
BIG: Final = 1_500
"""Nodes, dummies included, from which on fewer sweeps are made."""


@dataclass
class Layers:
    """A layered graph. Nodes from `real` on are dummies.

    Attributes:
        rows: layer -> its nodes, in order.
        above, below: node -> its neighbours one layer up and one layer down.
        chains: edge -> the nodes that it passes, both ends included.
    """

    real: int
    rows: list[list[int]]
    layer: list[int]
    above: list[list[int]]
    below: list[list[int]]
    chains: dict[Edge, list[int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Nodes, dummies included."""
        return len(self.layer)


def arrange(count: int, edges: Sequence[Edge]) -> Layers:
    """Layer and order the nodes of a DAG."""
    layers = _with_dummies(count, edges, _assign(count, edges))
    _order(layers)
    return layers


def _assign(count: int, edges: Sequence[Edge]) -> list[int]:
    below: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for a, b in edges:
        below[a].append(b)
        waiting[b] += 1
    layer = [0] * count
    ready = [n for n in range(count) if not waiting[n]]
    sources = list(ready)
    for node in ready:  # grows while it is walked
        for other in below[node]:
            layer[other] = max(layer[other], layer[node] + 1)
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    for node in sources:
        if below[node]:
            # A source that only a late step needs stands next to that step, not at the far end.
            layer[node] = min(layer[other] for other in below[node]) - 1
    return layer


def _with_dummies(count: int, edges: Sequence[Edge], layer: list[int]) -> Layers:
    depth = max(layer, default=-1) + 1
    rows: list[list[int]] = [[] for _ in range(depth)]
    for node in range(count):
        rows[layer[node]].append(node)
    layers = Layers(count, rows, layer, [[] for _ in range(count)], [[] for _ in range(count)])
    for a, b in dict.fromkeys(edges):
        chain = [a]
        for level in range(layer[a] + 1, layer[b]):
            dummy = len(layers.layer)
            layers.layer.append(level)
            layers.above.append([])
            layers.below.append([])
            rows[level].append(dummy)
            chain.append(dummy)
        chain.append(b)
        layers.chains[a, b] = chain
        for upper, lower in pairwise(chain):
            layers.below[upper].append(lower)
            layers.above[lower].append(upper)
    return layers


def _order(layers: Layers) -> None:
    best = [list(row) for row in layers.rows]
    least = crossings(layers)
    for sweep in range(SWEEPS if layers.count < BIG else 3):
        if not least:
            break
        is_down = sweep % 2 == 0
        neighbours = layers.above if is_down else layers.below
        for row in layers.rows[1:] if is_down else layers.rows[-2::-1]:
            _sort(row, neighbours, layers)
        found = crossings(layers)
        if found < least:
            least, best = found, [list(row) for row in layers.rows]
    for row, kept in zip(layers.rows, best, strict=True):
        row[:] = kept


def _sort(row: list[int], neighbours: list[list[int]], layers: Layers) -> None:
    level = next((layers.layer[n] for node in row for n in neighbours[node]), None)
    if level is None:
        return
    place = {node: i for i, node in enumerate(layers.rows[level])}
    own = {node: i for i, node in enumerate(row)}
    middle = {node: _median(sorted(place[n] for n in neighbours[node]), own[node]) for node in row}
    row.sort(key=lambda node: (middle[node], own[node]))


def _median(places: list[int], otherwise: float) -> float:
    if not places:
        return otherwise
    middle = len(places) // 2
    if len(places) % 2:
        return float(places[middle])
    if len(places) == 2:
        return (places[0] + places[1]) / 2
    left, right = places[middle - 1] - places[0], places[-1] - places[middle]
    if left + right == 0:
        return (places[middle - 1] + places[middle]) / 2
    return (places[middle - 1] * right + places[middle] * left) / (left + right)


def crossings(layers: Layers) -> int:
    """How many pairs of edge pieces cross."""
    total = 0
    for upper, lower in pairwise(layers.rows):
        place = {node: i for i, node in enumerate(lower)}
        seen: list[int] = []
        for node in upper:
            ends = sorted(place[n] for n in layers.below[node])
            for end in ends:
                total += len(seen) - _at_most(seen, end)
            for end in ends:
                insort(seen, end)
    return total


def _at_most(ordered: list[int], value: int) -> int:
    return bisect_left(ordered, value + 1)
