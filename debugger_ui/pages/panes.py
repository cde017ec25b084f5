"""The inspector: what is known of a step, or of the run, as of the playhead. One pane at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from debugger_ui import values, words
from debugger_ui.attempts import Attempt, attempts_of, choose
from debugger_ui.focus import Focus, looked_at, read_value_word
from debugger_ui.forks.commands import replay_line
from debugger_ui.histories import Entry, History
from debugger_ui.moments import Moment, read_moment
from debugger_ui.pages.code import code_pane
from debugger_ui.timeline import note
from debugger_ui.ui import Ui, ui_of
from kairos.domain.documents import event_json
from kairos.domain.editing import INPUT
from kairos.domain.events import RunDone
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState
from kairos.errors import HistoryError, InvalidArgument

MAX_LOGS: Final = 500
MAX_FAILED: Final = 20
MAX_EFFECT: Final = 4_000
"""Bytes up to which what was asked and answered is shown in the list of effects."""
TITLES: Final = {
    "summary": "Summary",
    "input": "Input",
    "output": "Output",
    "error": "Error",
    "effects": "Effects",
    "logs": "Logs",
    "code": "Code",
    "event": "Event",
    "diff": "Diff",
}


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab of the inspector. `badge`: how many things it holds; `key`: the digit that opens it."""

    name: str
    title: str
    key: int
    badge: str = ""
    is_quiet: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """A value to show: `root` of its tree, or `missing` which says why there is none, with a moment to go to."""

    title: str
    seq: int = 0
    part: str = ""
    size: int = 0
    root: values.Node | None = None
    missing: str = ""
    jump: int | None = None
    step: str | None = None
    """The step that it came from."""
    of: str = ""
    """The step again, when the event holds the outputs of many."""
    chosen: str | None = None
    """The place in it that the address points at."""

    @property
    def value(self) -> str:
        """As addresses name it."""
        return Focus(self.seq, self.part, self.of).value

    @property
    def name(self) -> str:
        """What a path into it begins with, for `--set`; empty for what a fork cannot set."""
        return (self.step or INPUT) if self.part in ("input", "output") else ""


async def pane(request: Request) -> Response:
    """The inspector as a fragment: what changes when the playhead moves."""
    ui = ui_of(request)
    run_id = await ui.histories.find(request.path_params["run"])
    at = request.query_params.get("at", "")
    history = await ui.histories.get(run_id, upto=int(at) if at.isascii() and at.isdecimal() and len(at) < 10 else None)
    moment = read_moment(history, request.query_params)
    state = history.state_at(moment.at)
    facts: dict[str, Any] = {
        "history": history,
        "moment": moment,
        "state": state,
        "base": f"/runs/{run_id}",
        "note": note,
    }
    response = ui.page(request, "inspector.html", **facts, **await inspect(ui, history, moment, state))
    response.headers["Vary"] = "HX-Request"
    return response


async def value(request: Request) -> Response:
    """A part of a value: what opens under a closed node, or the next slice of a long one."""
    ui, history, entry, payload = await _addressed(request)
    path = request.query_params.get("path", "")
    whole = _plain(entry) if payload is None else await values.read_value(ui.reads, payload)
    offset = request.query_params.get("offset", "0")
    if not offset.isdecimal() or len(offset) > 9:
        raise InvalidArgument("offset is not a number")
    found = values.walk(whole, path)
    names = values.split(path)
    label = names[-1] if names else ""
    facts: dict[str, Any] = {
        "base": f"/runs/{history.run_id}",
        "seq": entry.seq,
        "part": request.query_params["part"],
        "is_more": int(offset) > 0,
    }
    if isinstance(found, str):
        start = int(offset)
        text = found[start : start + values.TEXT_SLICE]
        facts |= {"text": text, "next": start + len(text) if start + len(text) < len(found) else None, "path": path}
        return ui.page(request, "value_text.html", **facts)
    node = values.tree(found, path=path, label=label, offset=int(offset))
    if not request.headers.get("hx-request"):
        return ui.page(request, "value_page.html", node=node, history=history, **facts)
    return ui.page(request, "value_slice.html", node=node, **facts)


async def download(request: Request) -> Response:
    """A whole value as a file. Never shown by the browser as a page of ours."""
    ui, history, entry, payload = await _addressed(request)
    raw = json.dumps(_plain(entry)).encode() if payload is None else await values.read_bytes(ui.reads, payload)
    name = f"{history.run_id}-{entry.seq}-{request.query_params['part']}.json"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(raw, media_type="application/octet-stream", headers=headers)


async def _addressed(request: Request) -> tuple[Ui, History, Entry, Payload | None]:
    ui = ui_of(request)
    run_id = await ui.histories.find(request.path_params["run"])
    text = request.query_params.get("seq", "")
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidArgument("seq is not the number of an event")
    history = await ui.histories.get(run_id, upto=int(text))
    if not 1 <= int(text) <= history.seq:
        raise InvalidArgument(f"there is no event {int(text):,} in this run")
    entry = history.entries[int(text) - 1]
    if request.query_params.get("part") == values.EVENT:
        return ui, history, entry, None
    if entry.kind == "steps_inherited":
        return ui, history, entry, _inherited(history, request.query_params.get("of", ""))
    return ui, history, entry, values.payload_at(entry, request.query_params.get("part", ""))


def _inherited(history: History, step: str) -> Payload:
    found = history.state.steps.get(step)
    if found is None or found.output is None:
        raise InvalidArgument(f"there is no inherited output of {step[:80]!r}")
    return found.output


async def inspect(ui: Ui, history: History, moment: Moment, state: RunState) -> dict[str, Any]:
    """What the inspector's template needs."""
    tries = attempts_of(history, moment.step, moment.at) if moment.step else []
    later = attempts_of(history, moment.step)[len(tries) :] if moment.step else []
    attempt = choose(tries, moment.attempt)
    make = _STEP_PANES if moment.step else _RUN_PANES
    name = moment.pane if moment.pane in make else "summary"
    if name == "diff" and moment.mark is None:
        name = "summary"
    inside = _Inside(ui, history, moment, state, tries, attempt)
    return {
        "tabs": _tabs(inside, tuple(make)),
        "pane": name,
        "body": await make[name](inside),
        "tries": tries,
        "later": later,
        "attempt": attempt,
        "step": state.steps.get(moment.step) if moment.step else None,
        "spec": history.definition.graph.steps[moment.step] if moment.step else None,
        "entry": history.entries[moment.at - 1] if moment.at else None,
        "replay": replay_line(
            ui.file.name if ui.file else history.run_id, moment.step, attempt.number if attempt else None
        ),
    }


@dataclass(frozen=True, slots=True)
class _Inside:
    ui: Ui
    history: History
    moment: Moment
    state: RunState
    tries: list[Attempt]
    attempt: Attempt | None


def _tabs(inside: _Inside, names: tuple[str, ...]) -> list[Tab]:
    attempt, moment = inside.attempt, inside.moment
    badges = {"effects": len(attempt.effects) if attempt else 0, "logs": len(attempt.logs) if attempt else 0}
    if moment.step is None:
        badges = {}
    has_error = any(a.error or a.lost for a in inside.tries)
    if moment.step is None:
        has_error = any(step.error for step in inside.state.steps.values())
    shown = [name for name in names if name != "diff" or moment.mark is not None]
    return [
        Tab(name, TITLES[name], i, str(badges.get(name) or ""), name == "error" and not has_error)
        for i, name in enumerate(shown, 1)
    ]


async def _show(inside: _Inside, title: str, entry: Entry, part: str, step: str | None = None) -> Shown:
    if entry.kind == "steps_inherited":
        payload = _inherited(inside.history, step or "")
        part = "output"
    else:
        payload = values.payload_at(entry, part)
    if payload.size > values.MAX_TREE:
        text = f"This value is {words.size(payload.size)} long: too long for a page. Download it."
        return Shown(title, entry.seq, part, payload.size, missing=text, step=step)
    try:
        value = await values.read_value(inside.ui.reads, payload)
    except HistoryError as exc:
        return Shown(
            title, entry.seq, part, payload.size, missing=f"This value cannot be read: {exc.message}", step=step
        )
    of = step or "" if entry.kind == "steps_inherited" else ""
    focus = _focus(inside, entry.seq, part, of)
    chosen = None if focus is None else focus.path
    root = values.tree(value, toward=chosen or "")
    return Shown(title, entry.seq, part, payload.size, root, step=step, of=of, chosen=chosen)


def _focus(inside: _Inside, seq: int, part: str, of: str = "") -> Focus | None:
    """The place that the address points at, if it is in this value."""
    moment = inside.moment
    focus = read_value_word(moment.value, moment.path)
    if focus is None and moment.path:
        focus = looked_at(inside.history, moment.step, moment.pane, moment.path)
    return focus if focus is not None and (focus.seq, focus.part, focus.of) == (seq, part, of) else None


async def _run_input(inside: _Inside) -> Shown:
    if not inside.moment.at:
        return Shown("Input of the run", missing="The run does not exist yet at #0.", jump=1)
    return await _show(inside, "Input of the run", inside.history.entries[0], "input")


# -- a step --------------------------------------------------------------------------------------------------


async def _step_summary(inside: _Inside) -> dict[str, Any]:
    history, moment, state = inside.history, inside.moment, inside.state
    assert moment.step is not None
    graph = history.definition.graph
    begun = next((e.seq for e in history.of_step(moment.step) if e.kind == "step_started"), None)
    return {
        "needs": [(name, _status(state, name)) for name in graph.steps[moment.step].upstream],
        "below": [(name, _status(state, name)) for name in graph.downstream[moment.step]],
        "begins": begun if begun is not None and begun > moment.at else None,
        "means": words.STEP_MEANS[_status(state, moment.step)],
        "overridden": any(e.kind == "step_overridden" for e in history.of_step(moment.step, moment.at)),
        "inherited": next((e for e in history.of_step(moment.step, moment.at) if e.kind == "steps_inherited"), None),
    }


async def _step_input(inside: _Inside) -> dict[str, Any]:
    history, moment = inside.history, inside.moment
    assert moment.step is not None
    shown = []
    for parameter, upstream in history.definition.graph.steps[moment.step].needs.items():
        entry = values.step_output(history, upstream)
        title = parameter if parameter == upstream else f"{parameter} ← {upstream}"
        if entry is None:
            missing = f"{upstream} never produced an output." if history.is_over else f"{upstream} has no output yet."
            shown.append(Shown(title, missing=missing, step=upstream))
        elif entry.seq > moment.at:
            missing = f"{upstream} has not produced it yet at #{moment.at:,}."
            shown.append(Shown(title, missing=missing, jump=entry.seq, step=upstream))
        else:
            shown.append(await _show(inside, title, entry, "output", upstream))
    return {"found": [*shown, await _run_input(inside)]}


async def _step_output(inside: _Inside) -> dict[str, Any]:
    history, moment = inside.history, inside.moment
    assert moment.step is not None
    entry = values.step_output(history, moment.step)
    if entry is None:
        missing = "This step never produced an output." if history.is_over else "This step has no output yet."
        return {"found": [Shown("", missing=missing)]}
    if entry.seq > moment.at:
        return {"found": [Shown("", missing=f"Not produced yet at #{moment.at:,}.", jump=entry.seq)]}
    return {"found": [await _show(inside, "", entry, "output", moment.step)]}


async def _step_error(inside: _Inside) -> dict[str, Any]:
    history, moment, attempt = inside.history, inside.moment, inside.attempt
    assert moment.step is not None
    if attempt is not None and attempt.error is None and attempt.lost is None and moment.attempt is None:
        # Without a choice: the last one that has something to say, such as the failure before a retry.
        attempt = next((a for a in reversed(inside.tries) if a.error or a.lost), attempt)
    later = next((e for e in history.of_step(moment.step) if e.seq > moment.at and e.kind == "step_failed"), None)
    step = inside.state.steps.get(moment.step)
    return {"failed": attempt, "later": later, "reason": step.reason if step else None}


async def _effects(inside: _Inside) -> dict[str, Any]:
    rows = []
    for earlier, entry in _effects_of(inside):
        event: Any = entry.recorded.event if entry.recorded else None
        parts = {}
        for part in ("arguments", "result"):
            payload = getattr(event, part)
            if isinstance(payload, Payload):
                is_short = payload.data is not None and payload.size <= MAX_EFFECT
                parts[part] = await _show(inside, part, entry, part) if is_short else None
        rows.append({"entry": entry, "event": event, "parts": parts, "earlier": earlier})
    return {"rows": rows, "later": _has_later(inside, "effect_recorded")}


def _effects_of(inside: _Inside) -> list[tuple[int | None, Entry]]:
    """The effects that an attempt recorded; before them those of earlier attempts, whose answers it is given."""
    if inside.attempt is None:
        return []
    found: dict[tuple[str, int], tuple[int | None, Entry]] = {}
    for attempt in inside.tries:
        if attempt.seq > inside.attempt.seq:
            break
        is_own = attempt is inside.attempt
        for entry in attempt.effects:
            event: Any = entry.recorded.event if entry.recorded else None
            if is_own or event.error is None:
                found[event.name, event.ordinal] = (None if is_own else attempt.number, entry)
    return sorted(found.values(), key=lambda row: row[1].seq)


async def _logs(inside: _Inside) -> dict[str, Any]:
    if inside.moment.step is None:
        kinds = ("log_emitted", "metric_emitted")
        entries = [e for e in inside.history.entries[: inside.moment.at] if e.kind in kinds]
    else:
        attempt = inside.attempt
        entries = sorted([*attempt.logs, *attempt.metrics], key=lambda e: e.seq) if attempt else []
    return {
        "entries": entries[-MAX_LOGS:],
        "hidden": max(len(entries) - MAX_LOGS, 0),
        "later": _has_later(inside, "log_emitted"),
    }


def _has_later(inside: _Inside, kind: str) -> int | None:
    """Seq of the first event of this kind that lies behind the playhead."""
    history, moment = inside.history, inside.moment
    entries = history.of_step(moment.step) if moment.step else iter(history.entries[moment.at :])
    return next((e.seq for e in entries if e.seq > moment.at and e.kind == kind), None)


async def _code(inside: _Inside) -> dict[str, Any]:
    return await code_pane(inside.ui, inside.history, inside.moment, inside.attempt)


# -- the run -------------------------------------------------------------------------------------------------


async def _run_summary(inside: _Inside) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for name in inside.history.definition.graph.steps:
        status = _status(inside.state, name)
        counts[status] = counts.get(status, 0) + 1
    forked = inside.state.forked
    return {
        "counts": counts,
        "forked": forked,
        "edits": dict(forked.edits) if forked else {},
        "summary": values.summary,
    }


async def _only_input(inside: _Inside) -> dict[str, Any]:
    return {"found": [await _run_input(inside)]}


async def _run_output(inside: _Inside) -> dict[str, Any]:
    history, moment = inside.history, inside.moment
    last = history.entries[-1] if history.entries else None
    event = last.recorded.event if last is not None and last.recorded else None
    if not isinstance(event, RunDone) or last is None:
        word = "ended without an output" if history.is_over else "has no output yet"
        return {"found": [Shown("", missing=f"This run {word}.")]}
    if moment.at < last.seq:
        return {"found": [Shown("", missing=f"Not produced yet at #{moment.at:,}.", jump=last.seq)]}
    shown = []
    for step, seq in event.outputs.items():
        title = "" if len(event.outputs) == 1 else step
        shown.append(await _show(inside, title, history.entries[seq - 1], "output", step))
    return {"found": shown}


async def _run_error(inside: _Inside) -> dict[str, Any]:
    steps = inside.state.steps
    failed = [
        name for name, step in steps.items() if step.error is not None or step.status.value in ("DEAD", "EXPIRED")
    ]
    return {"failed": [(name, steps[name]) for name in failed[:MAX_FAILED]], "hidden": len(failed[MAX_FAILED:])}


# -- both ----------------------------------------------------------------------------------------------------


async def _event(inside: _Inside) -> dict[str, Any]:
    if not inside.moment.at:
        return {"node": None}
    entry = inside.history.entries[inside.moment.at - 1]
    if entry.recorded is None:
        raw = entry.row.body if entry.row else b""
        return {"node": None, "raw": bytes(raw)[:20_000].decode("utf-8", "replace")}
    # Through JSON: tuples and times become what the tree knows.
    focus = _focus(inside, entry.seq, values.EVENT)
    chosen = None if focus is None else focus.path
    return {"node": values.tree(_plain(entry), toward=chosen or ""), "chosen": chosen}


def _plain(entry: Entry) -> Any:
    """An event as JSON."""
    return json.loads(json.dumps(event_json(entry.recorded), default=str)) if entry.recorded is not None else {}


async def _diff(inside: _Inside) -> dict[str, Any]:
    mark = inside.moment.mark or 0
    before = inside.history.state_at(mark)
    rows = []
    for name in inside.history.definition.graph.steps:
        old, new = before.steps.get(name), inside.state.steps.get(name)
        was, is_now = _status(before, name), _status(inside.state, name)
        tries = (old.attempt if old else 0, new.attempt if new else 0)
        if was != is_now or tries[0] != tries[1]:
            rows.append({"name": name, "was": was, "now": is_now, "tries": tries})
    low, high = sorted((mark, inside.moment.at))
    kinds: dict[str, int] = {}
    for entry in inside.history.entries[low:high]:
        kinds[entry.kind] = kinds.get(entry.kind, 0) + 1
    span = inside.history.entries[high - 1].at - inside.history.entries[max(low, 1) - 1].at if high else None
    return {"rows": rows[:200], "hidden": len(rows[200:]), "kinds": kinds, "span": span, "before": before}


def _status(state: RunState, name: str) -> str:
    step = state.steps.get(name)
    return "PENDING" if step is None else step.status.value


_STEP_PANES: Final = {
    "summary": _step_summary,
    "input": _step_input,
    "output": _step_output,
    "error": _step_error,
    "effects": _effects,
    "logs": _logs,
    "code": _code,
    "event": _event,
    "diff": _diff,
}
_RUN_PANES: Final = {
    "summary": _run_summary,
    "input": _only_input,
    "output": _run_output,
    "error": _run_error,
    "logs": _logs,
    "event": _event,
    "diff": _diff,
}
