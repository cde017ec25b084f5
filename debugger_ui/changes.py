"""Whether the code of a step has changed since a run: against the app at hand, or the newest registered version."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from debugger_ui.histories import History
from debugger_ui.sources import Pieces, paint
from debugger_ui.ui import Ui
from kairos.domain.fingerprint import Definition
from kairos.errors import KairosError
from kairos.replay.results import Code

CONTEXT: Final = 3
MAX_LINES: Final = 1_000
MAX_COMPARED: Final = 2_000
"""Lines of each source that are compared: the time that it takes grows with their square."""
_WORDS: Final = {
    "gone": "no longer has this step",
    "code changed": "has other code for this step",
    "type changed": "declares another type for what this step returns",
    "options changed": "has other options for this step",
}


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a difference. `kind`: `old`, `new`, `same`, or `gap` where lines were left out."""

    kind: str
    old: int | None
    new: int | None
    pieces: Pieces


@dataclass(frozen=True, slots=True)
class Change:
    """How a step is defined elsewhere.

    Attributes:
        where: what it is held against: `the app at hand (shop:app)`, `version 3f2a9c1d, registered later,`.
        what: how that differs, in words; empty if it does not.
        trouble: why nothing can be said.
    """

    where: str
    what: str = ""
    lines: tuple[DiffLine, ...] = ()
    trouble: str = ""


async def changes_since(ui: Ui, history: History, step: str) -> list[Change]:
    """What is known of this step's code beside what was recorded with the run; the app at hand first."""
    found: list[Change] = []
    workflow = history.definition.workflow
    if ui.app is not None:
        now = await ui.app.definition(workflow)
        where = f"the app at hand ({ui.app.spec})"
        if ui.app.trouble:
            found.append(Change(where, trouble=ui.app.trouble))
        elif now is None:
            found.append(Change(where, trouble=f"it has no workflow {workflow!r}"))
        else:
            found.append(await asyncio.to_thread(compare_step, history.definition, now, step, where))
    newest = await _newest(ui, workflow)
    if newest is not None and newest[0] != history.fingerprint:
        where = f"version {newest[0][:8]}, which was registered later,"
        found.append(await asyncio.to_thread(compare_step, history.definition, newest[1], step, where))
    return found


async def _newest(ui: Ui, workflow: str) -> tuple[str, Definition] | None:
    if not ui.has_database:
        return None
    try:
        async with ui.reads.reader() as reader:
            return await reader.latest_definition(workflow)
    except KairosError:
        return None  # the pane shows the code in any case


def compare_step(then: Definition, now: Definition, step: str, where: str) -> Change:
    """One step in two definitions."""
    what = _WORDS.get(Code(then, now).change(step), "")
    old, new = then.sources.get(step, ""), now.sources.get(step, "")
    lines = tuple(_lines(old, new))[:MAX_LINES] if what and new and old != new else ()
    return Change(where, what, lines)


def _lines(old: str, new: str) -> Iterator[DiffLine]:
    before, after = old.splitlines()[:MAX_COMPARED], new.splitlines()[:MAX_COMPARED]
    painted = paint(old), paint(new)
    groups = list(SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(CONTEXT))
    for index, group in enumerate(groups):
        if index:
            yield DiffLine("gap", None, None, [])
        for tag, a, b, c, d in group:
            if tag == "equal":
                for i, j in zip(range(a, b), range(c, d), strict=True):
                    yield DiffLine("same", i + 1, j + 1, _row(painted[1], j))
                continue
            yield from (DiffLine("old", i + 1, None, _row(painted[0], i)) for i in range(a, b))
            yield from (DiffLine("new", None, j + 1, _row(painted[1], j)) for j in range(c, d))


def _row(rows: list[Pieces], index: int) -> Pieces:
    return rows[index] if index < len(rows) else []
