"""The Code pane: the source as recorded, where it failed, what has changed since, and a line trace to step in."""

from __future__ import annotations

from typing import Any

from debugger_ui.attempts import Attempt
from debugger_ui.changes import changes_since
from debugger_ui.histories import History
from debugger_ui.moments import Moment
from debugger_ui.opened import OpenedTrace
from debugger_ui.sources import find_crash, lines_of, raised_in
from debugger_ui.stepping import facts_of
from debugger_ui.ui import Ui
from kairos.errors import KairosError


async def code_pane(ui: Ui, history: History, moment: Moment, attempt: Attempt | None) -> dict[str, Any]:
    """What the template needs; with a line in the address, the trace of the attempt instead of the plain source."""
    assert moment.step is not None
    source = history.definition.sources.get(moment.step, "")
    error = attempt.error if attempt else None
    crash = find_crash(source, error)
    traces = ui.files.traces_of(history.id, moment.step, attempt.number if attempt else None)
    shown: dict[str, Any] | None = None
    trouble: str | None = None
    if traces and moment.line:
        try:
            shown = facts_of(ui, traces[0], {"line": "" if moment.line == "here" else moment.line})
        except KairosError as exc:
            trouble = exc.message
    return {
        "lines": [] if shown else lines_of(source, crash),
        "error": error,
        "crash": crash,
        "raised": raised_in(error.frames) if error else None,
        "changes": [] if shown else await changes_since(ui, history, moment.step),
        "traces": traces,
        "trace": shown,
        "trouble": trouble,
        "other_code": bool(shown) and _has_other_code(traces[0], source),
    }


def _has_other_code(opened: OpenedTrace, source: str) -> bool:
    """Whether the trace was recorded with other code of the step than the run was."""
    wanted = [line.strip() for line in source.splitlines() if line.strip()]
    functions = opened.trace.header.functions
    return bool(wanted) and not any(
        [line.strip() for line in function.source.splitlines() if line.strip()] == wanted for function in functions
    )
