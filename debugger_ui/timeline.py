"""What the browser folds: a run's events in columns, and the transition table to fold them by.

The table is made from `kairos.domain.states`, so the fold in `static/fold.js` knows no rule of its own: a kind that
moves steps or runs there does so here, and both folds are compared on random histories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from debugger_ui import words
from debugger_ui.groups import group_steps
from debugger_ui.histories import Entry, History
from kairos.domain.events import (
    EVENT_TYPES,
    EffectRecorded,
    LeaseLost,
    LogEmitted,
    MetricEmitted,
    RunForked,
    StepDead,
    StepFailed,
    StepsInherited,
)
from kairos.domain.graph import Graph
from kairos.domain.states import RUN_TRANSITIONS, STEP_TRANSITIONS, RunStatus, StepStatus

KINDS: Final = tuple(EVENT_TYPES)
MAX_NOTE: Final = 100
ALWAYS_NOTED: Final = 2_000
"""Log lines and effects of a run that are noted in the index; of the rest, only what went wrong."""


def machine() -> dict[str, Any]:
    """The transition tables as JSON: status -> kind -> status, with the statuses in order of definition."""
    return {
        "steps": [status.value for status in StepStatus],
        "runs": [status.value for status in RunStatus],
        "stepMoves": _table(STEP_TRANSITIONS),
        "runMoves": _table(RUN_TRANSITIONS),
        "endedSteps": [status.value for status in StepStatus if status.is_terminal],
        "endedRuns": [status.value for status in RunStatus if status.is_terminal],
    }


def _table(moves: Mapping[Any, Any]) -> dict[str, dict[str, str]]:
    table: dict[str, dict[str, str]] = {}
    for (before, kind), after in moves.items():
        table.setdefault(before.value, {})[kind] = after.value
    return table


def skeleton(graph: Graph) -> dict[str, Any]:
    """The graph: names, upstream steps by number, groups of like steps."""
    number = {name: i for i, name in enumerate(graph.steps)}
    return {
        "steps": list(graph.steps),
        "needs": [[number[up] for up in spec.upstream] for spec in graph.steps.values()],
        "groups": [{"name": group.name, "members": [number[m] for m in group.members]} for group in group_steps(graph)],
    }


def columns(history: History, after: int = 0, upto: int | None = None) -> dict[str, Any]:
    """Events with `after` < seq <= `upto`, column by column.

    `kind` and `step` are numbers (step -1: of the run itself; kind -1: unknown here), `t` microseconds since the
    event before (of the first: since 1970), `many` seq -> the steps that one event moves, `notes` seq -> words.
    """
    last = history.seq if upto is None else min(upto, history.seq)
    entries = history.entries[after:last]
    number = {name: i for i, name in enumerate(history.definition.graph.steps)}
    kinds = {kind: i for i, kind in enumerate(KINDS)}
    before = _micros(history.entries[after - 1]) if after else 0
    times: list[int] = []
    for entry in entries:
        now = _micros(entry)
        times.append(now - before)
        before = now
    return {
        "after": after,
        "seq": last,
        "over": history.is_over,
        "grows": history.grows,
        "kinds": KINDS,
        "kind": [kinds.get(entry.kind, -1) for entry in entries],
        "step": [number.get(entry.step, -1) if entry.step else -1 for entry in entries],
        "attempt": [entry.attempt or 0 for entry in entries],
        "t": times,
        "many": dict(_many(entries, number)),
        "notes": dict(_notes(entries)),
    }


def _many(entries: Iterable[Entry], number: Mapping[str, int]) -> Iterable[tuple[int, list[int]]]:
    for entry in entries:
        if entry.recorded is not None and isinstance(entry.recorded.event, StepsInherited):
            yield entry.seq, [number[name] for name in entry.recorded.event.outputs]


def _notes(entries: Iterable[Entry]) -> Iterable[tuple[int, str]]:
    room = ALWAYS_NOTED
    for entry in entries:
        event = None if entry.recorded is None else entry.recorded.event
        is_plain = isinstance(event, LogEmitted | MetricEmitted | EffectRecorded)
        if is_plain and room <= 0 and not (isinstance(event, EffectRecorded) and event.error):
            continue
        text = note(entry)
        if text:
            room -= is_plain
            yield entry.seq, text


def note(entry: Entry) -> str:
    """What an event says beside its kind and step, in a few words."""
    if entry.recorded is None:
        return "cannot be read by this version of Kairos"
    event: Any = entry.recorded.event
    match event:
        case StepFailed():
            text = event.error.summary
        case StepDead():
            text = event.reason
        case LogEmitted():
            text = f"{event.level}: {event.message}" if event.level != "info" else event.message
        case MetricEmitted():
            text = f"{event.name} = {event.value:g}"
        case EffectRecorded():
            text = f"{event.name} #{event.ordinal}" + (f": {event.error.summary}" if event.error else "")
        case LeaseLost():
            text = " ".join(filter(None, (words.LOST.get(event.reason, event.reason), event.signal)))
        case RunForked():
            text = f"from {event.from_step} of {event.parent[-8:]} at #{event.parent_seq}"
        case StepsInherited():
            text = f"{words.plural(len(event.outputs), 'step')} of {event.run[-8:]}"
        case _:
            text = getattr(event, "reason", None) or ""
    return words.one_line(text, MAX_NOTE)


def _micros(entry: Entry) -> int:
    return words.micros(entry.at)
