"""The pictures of the state machines say what the tables say, and nothing overlaps in them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from debugger_ui.machines import Diagram, back_moves, diagrams
from kairos.domain.states import RUN_TRANSITIONS, STEP_TRANSITIONS, RunStatus, StepStatus

TABLES: dict[str, Any] = {"run": (RUN_TRANSITIONS, RunStatus), "step": (STEP_TRANSITIONS, StepStatus)}


@pytest.mark.parametrize("diagram", diagrams(), ids=lambda diagram: diagram.name)
def test_every_row_of_the_table_is_an_arrow_and_nothing_else_is(diagram: Diagram) -> None:
    table, statuses = TABLES[diagram.name]
    drawn = {(a.before, kind): a.after for a in diagram.arrows for kind in a.kinds}
    assert drawn == {(before.value, kind): after.value for (before, kind), after in table.items()}
    assert {state.name: state.is_final for state in diagram.states} == {s.value: s.is_terminal for s in statuses}


@pytest.mark.parametrize("diagram", diagrams(), ids=lambda diagram: diagram.name)
def test_no_boxes_overlap_and_all_is_inside(diagram: Diagram) -> None:
    for a, b in combinations((state.box for state in diagram.states), 2):
        apart = a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
        assert apart
    for state in diagram.states:
        assert state.box.x + state.box.width <= diagram.width
        assert state.box.y + state.box.height <= diagram.height
    places = [(round(a.x), round(a.y)) for a in diagram.arrows if a.words not in ("cancelled", "done")]
    assert len(places) == len(set(places)), "two names stand in one place"


def test_only_moves_that_close_a_circle_lead_back() -> None:
    assert back_moves(["A", "B", "C"], [("A", "B"), ("B", "C"), ("A", "C")]) == set()
    assert back_moves(["A", "B", "C"], [("A", "B"), ("B", "C"), ("C", "A"), ("B", "B")]) == {("C", "A"), ("B", "B")}
