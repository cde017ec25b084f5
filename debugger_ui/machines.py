"""The two state machines as pictures, drawn from their tables: what is not in a table cannot be in a picture.

Moves that lead on are laid out like a graph, from left to right; those that lead back run below the boxes, each in a
lane of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeVar

from debugger_ui.layout.drawing import Box, Drawing, Line, draw
from kairos.domain.states import RUN_TRANSITIONS, STEP_TRANSITIONS, RunStatus, StepStatus

Status = TypeVar("Status", RunStatus, StepStatus)
Move = tuple[str, str]

SIZE: Final = (112.0, 46.0)
GAP: Final = 150.0
"""Between two layers: the names of the moves stand there."""
LANE: Final = 24.0
ASIDE: Final = 12.0
CURVE: Final = 8.0


@dataclass(frozen=True, slots=True)
class State:
    """One box."""

    name: str
    box: Box
    is_final: bool


@dataclass(frozen=True, slots=True)
class Arrow:
    """One move, or several between the same two states. `words` stand at (x, y), by the end that `anchor` says."""

    before: str
    after: str
    kinds: tuple[str, ...]
    path: str
    words: str
    x: float
    y: float
    anchor: str
    is_back: bool


@dataclass(frozen=True, slots=True)
class Diagram:
    """A state machine as drawn; lengths in CSS pixels."""

    name: str
    width: float
    height: float
    states: list[State]
    arrows: list[Arrow]


@cache
def diagrams() -> tuple[Diagram, Diagram]:
    """Of runs, and of steps."""
    return diagram("run", RUN_TRANSITIONS, RunStatus), diagram("step", STEP_TRANSITIONS, StepStatus)


def diagram(name: str, table: Mapping[tuple[Status, str], Status], statuses: Iterable[Status]) -> Diagram:
    """Draw one table. The first status is where everything begins."""
    names = [status.value for status in statuses]
    final = {status.value for status in statuses if status.is_terminal}
    moves: dict[Move, list[str]] = {}
    for (before, kind), after in table.items():
        moves.setdefault((before.value, after.value), []).append(kind)
    back = back_moves(names, moves)
    number = {status: i for i, status in enumerate(names)}
    onward = [(number[a], number[b]) for a, b in moves if (a, b) not in back]
    drawing = draw([SIZE] * len(names), onward, sideways=True, layer_gap=GAP)
    states = [State(status, box, status in final) for status, box in zip(names, drawing.boxes, strict=True)]
    arrows = [_onward(line, names, moves, drawing) for line in drawing.lines]
    lanes = [_back(move, moves[move], states, number, drawing.height, lane) for lane, move in enumerate(sorted(back))]
    height = drawing.height + LANE * len(back) + (CURVE if back else 0)
    return Diagram(name, drawing.width, height, states, arrows + lanes)


def back_moves(names: list[str], moves: Iterable[Move]) -> set[Move]:
    """The moves that close a circle, walking from the first state in the order of the table."""
    below: dict[str, list[str]] = {name: [] for name in names}
    for before, after in moves:
        below[before].append(after)
    found: set[Move] = set()
    open_, seen = set[str](), set[str]()

    def walk(state: str) -> None:
        open_.add(state)
        seen.add(state)
        for after in below[state]:
            if after in open_:
                found.add((state, after))
            elif after not in seen:
                walk(after)
        open_.discard(state)

    for name in names:
        if name not in seen:
            walk(name)
    return found


def short(kind: str) -> str:
    """`step_started` as `started`: what the picture is of need not be said at each arrow."""
    return kind.removeprefix("step_").removeprefix("run_").replace("_", " ")


def _onward(line: Line, names: list[str], moves: Mapping[Move, list[str]], drawing: Drawing) -> Arrow:
    """Its names stand before the first bend's end: there, no two arrows from one state meet."""
    move = (names[line.start], names[line.end])
    kinds = tuple(moves[move])
    start = drawing.boxes[line.start]
    x = start.x + start.width + GAP - ASIDE
    y = _end_of_first_bend(line)
    return Arrow(*move, kinds, line.path, _named(kinds), x, y - 4, "end", False)


def _end_of_first_bend(line: Line) -> float:
    """Where the line is, across, when it has come to the next layer."""
    piece = line.path[1:].replace("C", "L").split("L")[1]
    return float(piece.split(" ")[-1].split(",")[1])


def _back(
    move: Move, kinds: list[str], states: list[State], number: Mapping[str, int], bottom: float, lane: int
) -> Arrow:
    """Out of the left side, down between two layers, back in a lane of its own, up again and in from the right."""
    start, end = states[number[move[0]]].box, states[number[move[1]]].box
    out = start.x - ASIDE - 5.0 * lane
    into = end.x + end.width + ASIDE + 5.0 * lane
    top, low = start.y + start.height * 0.72, bottom + LANE * lane + LANE / 2
    arrive = end.y + end.height * 0.72
    path = (
        f"M{start.x:.1f},{top:.1f}L{out + CURVE:.1f},{top:.1f}Q{out:.1f},{top:.1f} {out:.1f},{top + CURVE:.1f}"
        f"L{out:.1f},{low - CURVE:.1f}Q{out:.1f},{low:.1f} {out - CURVE:.1f},{low:.1f}"
        f"L{into + CURVE:.1f},{low:.1f}Q{into:.1f},{low:.1f} {into:.1f},{low - CURVE:.1f}"
        f"L{into:.1f},{arrive + CURVE:.1f}Q{into:.1f},{arrive:.1f} {into - CURVE:.1f},{arrive:.1f}"
        f"L{end.x + end.width:.1f},{arrive:.1f}"
    )
    return Arrow(*move, tuple(kinds), path, _named(kinds), into + CURVE + 6, low - 4, "start", True)


def _named(kinds: Iterable[str]) -> str:
    return ", ".join(short(kind) for kind in kinds)
