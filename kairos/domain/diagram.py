"""Draws the two state machines from their tables: Mermaid text for documents, and rows for pages."""

from __future__ import annotations

from collections.abc import Mapping

from kairos.domain.states import RUN_TRANSITIONS, STEP_TRANSITIONS, RunStatus, StepStatus


def mermaid(table: Mapping[tuple[StepStatus, str], StepStatus] | Mapping[tuple[RunStatus, str], RunStatus]) -> str:
    """A Mermaid `stateDiagram-v2`; moves between the same two states share one arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (before, kind), after in table.items():
        arrows.setdefault((before.value, after.value), []).append(kind)
    lines = [f"    {before} --> {after}: {', '.join(kinds)}" for (before, after), kinds in arrows.items()]
    return "\n".join(["stateDiagram-v2", *lines])


def document() -> str:
    """The text of docs/states.md."""
    parts = [
        "# State machines",
        "",
        "Generated from `kairos/domain/states.py` by `make docs`. Every write asks this table; "
        "a move that is not in it",
        "raises `InvalidTransition`. `upstream_done` follows from other events; "
        "everything else is an event in the log.",
    ]
    for name, table, statuses in (
        ("Run", RUN_TRANSITIONS, RunStatus),
        ("Step", STEP_TRANSITIONS, StepStatus),
    ):
        parts += ["", f"## {name}", "", "```mermaid", mermaid(table), "```", ""]
        parts += ["| from | event | to |", "|---|---|---|"]
        parts += [f"| {before.value} | `{kind}` | {after.value} |" for (before, kind), after in table.items()]
        final = [s.value for s in statuses if s.is_terminal]
        parts += ["", f"Final: {', '.join(final)}."]
    return "\n".join(parts) + "\n"
