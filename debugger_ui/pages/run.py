"""The run page and what it is made of: events in columns, the state at a moment, the graph."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from debugger_ui import words
from debugger_ui.family import count_forks
from debugger_ui.graph import picture
from debugger_ui.groups import group_steps, members_of
from debugger_ui.histories import Entry, History
from debugger_ui.hits import list_hits
from debugger_ui.moments import Moment, failure_seq, read_moment
from debugger_ui.pages.panes import inspect
from debugger_ui.provenance import of_moment
from debugger_ui.story import verdict_of
from debugger_ui.timeline import columns, machine, note, skeleton
from debugger_ui.ui import Ui, ui_of
from kairos.domain.documents import state_json
from kairos.domain.projection import RunState
from kairos.errors import InvalidArgument

WINDOW: Final = 40
"""Events before and after the playhead that the page holds without a script."""
MAX_ROWS: Final = 200
"""Steps that the page lists without a script."""


async def load(request: Request, *, upto: int | None = None) -> tuple[Ui, History]:
    """The run of an address. Raises RunNotFound, AmbiguousRun."""
    ui = ui_of(request)
    run_id = await ui.histories.find(request.path_params["run"])
    return ui, await ui.histories.get(run_id, upto=upto)


async def page(request: Request) -> Response:
    """The whole page, as of the moment in the address."""
    ui, history = await load(request)
    if request.path_params["run"] != str(history.run_id):
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/runs/{history.run_id}{query}", 303)
    moment = read_moment(history, request.query_params)
    state = history.state_at(moment.at)
    inspected = await inspect(ui, history, moment, state)
    traced, untraced = await of_moment(ui, history, moment)
    facts: dict[str, Any] = {
        "history": history,
        "moment": moment,
        "state": state,
        "final": history.state,
        "base": f"/runs/{history.run_id}",
        "events": _window(history, moment.at),
        "rows": _rows(history, state, moment),
        "note": note,
        "verdict": await verdict_of(ui, history),
        "forks": await count_forks(ui, history.run_id),
        "failure": failure_seq(history),
        "notice": moment.notice,
        "answer": traced,
        "problem": untraced,
        "listing": await list_hits(ui.searches, history, moment) if moment.q.strip() else None,
        "picture": picture(history.definition.graph, moment.opened.split(",")) if moment.view == "graph" else None,
        **inspected,
    }
    return ui.page(request, "run.html", **facts)


async def head(request: Request) -> Response:
    """What stands at the top of the page: it changes while the run goes on."""
    ui, history = await load(request)
    facts: dict[str, Any] = {
        "history": history,
        "final": history.state,
        "base": f"/runs/{history.run_id}",
        "forks": await count_forks(ui, history.run_id),
        "notice": None,
    }
    return ui.page(request, "run_head.html", verdict=await verdict_of(ui, history), **facts)


async def index(request: Request) -> Response:
    """The events in columns; with the graph and the transition table when asked from the beginning."""
    after = _number(request, "after", 0)
    ui, history = await load(request)
    etag = f'"{history.run_id.hex}-{after}-{history.seq}-{ui.version}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    facts = columns(history, min(after, history.seq))
    if not after:
        facts |= {"graph": skeleton(history.definition.graph), "machine": machine()}
    return JSONResponse(facts, headers={"ETag": etag, "Cache-Control": "no-cache"})


async def state(request: Request) -> Response:
    """The state at a seq, by the fold that the engine uses."""
    at = _number(request, "at", -1)
    _, history = await load(request, upto=at if at >= 0 else None)
    if at > history.seq:
        raise InvalidArgument(f"at={at}: the last event is {history.seq}")
    return JSONResponse(state_json(history.state_at(history.seq if at < 0 else at)))


async def graph(request: Request) -> Response:
    """The graph as SVG, coloured as of the moment in the address."""
    ui, history = await load(request)
    moment = read_moment(history, request.query_params)
    facts: dict[str, Any] = {
        "history": history,
        "moment": moment,
        "state": history.state_at(moment.at),
        "picture": picture(history.definition.graph, moment.opened.split(",")),
        "base": f"/runs/{history.run_id}",
    }
    return ui.page(request, "graph.html", **facts)


async def machine_json(request: Request) -> Response:
    """The transition tables."""
    return JSONResponse(machine())


def _window(history: History, at: int) -> list[Entry]:
    first = max(0, min(at - WINDOW, history.seq - 2 * WINDOW))
    return history.entries[first : first + 2 * WINDOW]


def _rows(history: History, state: RunState, moment: Moment) -> list[dict[str, Any]]:
    """What the list of steps shows without a script: steps, and closed groups of like steps."""
    groups = members_of(group_steps(history.definition.graph))
    rows: list[dict[str, Any]] = []
    for name in history.definition.graph.steps:
        group = groups.get(name)
        if group is None or moment.step == name:
            rows.append({"name": name, "status": status_of(state, name), "attempt": _attempt(state, name)})
        elif name == group.members[0]:
            counts: dict[str, int] = {}
            for member in group.members:
                counts[status_of(state, member)] = counts.get(status_of(state, member), 0) + 1
            rows.append({"group": group, "counts": counts})
        if len(rows) >= MAX_ROWS:
            break
    return rows


def status_of(state: RunState, name: str) -> str:
    """The status of a step; PENDING before the first event."""
    step = state.steps.get(name)
    return "PENDING" if step is None else step.status.value


def _attempt(state: RunState, name: str) -> int:
    step = state.steps.get(name)
    return 0 if step is None else step.attempt


def _number(request: Request, name: str, otherwise: int) -> int:
    text = request.query_params.get(name)
    if text is None or text == "":
        return otherwise
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidArgument(f"{name}={words.one_line(text, 40)!r} is not a number of an event")
    return int(text)
