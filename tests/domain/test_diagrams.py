"""The drawings of the two machines show each move of the tables, and no other."""

from __future__ import annotations

import re

import pytest

from kairos.domain.diagram import document, mermaid
from kairos.domain.states import RUN_TRANSITIONS, STEP_TRANSITIONS


@pytest.mark.parametrize("table", [STEP_TRANSITIONS, RUN_TRANSITIONS], ids=["steps", "runs"])
def test_a_drawing_has_an_arrow_for_every_move_and_names_every_event(table: dict) -> None:  # type: ignore[type-arg]
    first, *arrows = mermaid(table).splitlines()
    assert first == "stateDiagram-v2"
    drawn = {}
    for arrow in arrows:
        match = re.fullmatch(r" {4}(\w+) --> (\w+): (.+)", arrow)
        assert match
        drawn.update({(match[1], kind): match[2] for kind in match[3].split(", ")})
    assert drawn == {(before.value, kind): after.value for (before, kind), after in table.items()}
    assert len(arrows) == len({(before, after) for (before, _), after in table.items()})


def test_the_document_has_a_row_for_every_move() -> None:
    listed = re.findall(r"^\| (\w+) \| `(\w+)` \| (\w+) \|$", document(), re.MULTILINE)
    moves = [
        (a.value, kind, b.value) for table in (RUN_TRANSITIONS, STEP_TRANSITIONS) for (a, kind), b in table.items()
    ]
    assert listed == moves
