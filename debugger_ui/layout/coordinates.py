"""Where each node stands across its layer: close to its neighbours, never closer to the next than allowed.

Each round pulls every node towards the mean of its neighbours and solves the layer as a whole: least squares under
the order of the nodes, which is an isotonic regression (pool adjacent violators).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from debugger_ui.layout.layers import Layers

ROUNDS: Final = 12
DUMMY_WEIGHT: Final = 8.0
"""Long edges want to be straight more than boxes want to be centred."""


def place(layers: Layers, size: Sequence[float], gap: float) -> list[float]:
    """The centre of each node, dummies included. `size`: of the real nodes; dummies take a fifth of the gap."""
    sizes = [*size, *([gap / 5] * (layers.count - layers.real))]
    centre = [0.0] * layers.count
    for row in layers.rows:
        at = 0.0
        for node in row:
            centre[node] = at + sizes[node] / 2
            at += sizes[node] + gap
        shift = (at - gap) / 2
        for node in row:
            centre[node] -= shift
    for turn in range(ROUNDS):
        is_down = turn % 2 == 0
        rows = layers.rows if is_down else list(reversed(layers.rows))
        for row in rows:
            _settle(row, layers, centre, sizes, gap, is_last=turn >= ROUNDS - 2, is_down=is_down)
    low = min((centre[n] - sizes[n] / 2 for n in range(layers.count)), default=0.0)
    return [value - low for value in centre]


def _settle(
    row: list[int],
    layers: Layers,
    centre: list[float],
    sizes: list[float],
    gap: float,
    *,
    is_last: bool,
    is_down: bool,
) -> None:
    wanted, weights, offsets = [], [], []
    offset = 0.0
    for i, node in enumerate(row):
        if i:
            before = row[i - 1]
            offset += (sizes[before] + sizes[node]) / 2 + gap
        towards = layers.above[node] if is_down else layers.below[node]
        if is_last or not towards:
            towards = [*layers.above[node], *layers.below[node]]
        aim = sum(centre[n] for n in towards) / len(towards) if towards else centre[node]
        wanted.append(aim - offset)
        weights.append(DUMMY_WEIGHT if node >= layers.real else 1.0)
        offsets.append(offset)
    for node, value, off in zip(row, pooled(wanted, weights), offsets, strict=True):
        centre[node] = value + off


def pooled(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence nearest to `values` by weighted least squares."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            mean, mass, count = blocks.pop()
            total = mass + block[1]
            block = ((mean * mass + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    return [mean for mean, _, count in blocks for _ in range(count)]
