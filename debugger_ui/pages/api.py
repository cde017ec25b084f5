"""The JSON API: what the pages show, for programs."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from debugger_ui import values
from debugger_ui.openapi import document
from debugger_ui.pages import api_acting, origin, search
from debugger_ui.pages.comparing import compare_json
from debugger_ui.pages.lineage import lineage_json
from debugger_ui.pages.run import load
from debugger_ui.pages.runs import list_page, resolve
from debugger_ui.ui import ui_of
from debugger_ui.wanted import read_wanted
from kairos.domain.documents import event_json, moment, state_json
from kairos.errors import InvalidArgument

MAX_PAGE: Final = 1_000


async def openapi(request: Request) -> Response:
    """This API, described."""
    return JSONResponse(document())


async def runs(request: Request) -> Response:
    """A page of runs, newest first; the filters are those of the list of runs."""
    ui = ui_of(request)
    limit = number(request, "limit", 50, 1, MAX_PAGE)
    query = dict(request.query_params)
    if text := query.pop("q", "").strip():
        meant = await resolve(ui, text, query)
        if not isinstance(meant, str):
            return JSONResponse({"runs": [info.to_json() for info in meant], "next": None, "previous": None})
        path, _, rest = meant.partition("?")
        if path != "/runs":
            async with ui.reads.reader() as reader:
                info = await reader.run(await reader.find(path.rpartition("/")[2]))
            return JSONResponse({"runs": [info.to_json()], "next": None, "previous": None})
        query |= dict(parse_qsl(rest))
    listed = await list_page(ui.reads, read_wanted(query), limit)
    facts: dict[str, Any] = {
        "runs": [info.to_json() for info in listed.infos],
        "next": None if listed.older is None else str(listed.older),
        "previous": None if listed.newer is None else str(listed.newer),
    }
    if (search := listed.search) is not None:
        back_to = None if search.back_to is None else moment(search.back_to)
        facts["searched"] = {"runs": search.looked, "back_to": back_to, "skipped": search.skipped}
    return JSONResponse(facts)


async def run(request: Request) -> Response:
    """One run as it is now."""
    ui, history = await load(request)
    async with ui.reads.reader() as reader:
        info = await reader.run(history.run_id)
    facts = {**info.to_json(), "url": f"{ui.url}/runs/{history.run_id}"}
    if ui.file is not None:
        facts["bundle"] = ui.file.report.to_json() | {"file": ui.file.name}
    return JSONResponse(facts)


async def events(request: Request) -> Response:
    """Events of a run with seq greater than `after`, at most `limit` of them."""
    _, history = await load(request)
    after = number(request, "after", 0, 0, 2**31 - 1)
    limit = number(request, "limit", 500, 1, MAX_PAGE)
    found = history.entries[after : after + limit]
    listed = [
        event_json(e.recorded)
        if e.recorded is not None
        else {"seq": e.seq, "at": moment(e.at), "kind": e.kind, "step": e.step, "unreadable": True}
        for e in found
    ]
    return JSONResponse({"events": listed, "next": after + limit if history.seq > after + limit else None})


async def state(request: Request) -> Response:
    """The state of a run after event `at`; default: now."""
    _, history = await load(request)
    at = number(request, "at", history.seq, 0, 2**31 - 1)
    if at > history.seq:
        raise InvalidArgument(f"at={at}: the last event is {history.seq}")
    return JSONResponse(state_json(history.state_at(at)))


async def value(request: Request) -> Response:
    """A value, or what a JSON pointer leads to in it."""
    ui, history = await load(request)
    seq = number(request, "seq", 0, 1, max(history.seq, 1))
    payload = values.payload_at(history.entries[seq - 1], request.query_params.get("part", ""))
    found = values.walk(await values.read_value(ui.reads, payload), request.query_params.get("path", ""))
    return JSONResponse({"value": found})


def number(request: Request, name: str, otherwise: int, low: int, high: int) -> int:
    """A whole number of the query. Raises InvalidArgument."""
    text = request.query_params.get(name, "")
    value = int(text) if text.isascii() and text.isdecimal() and len(text) < 11 else otherwise if not text else -1
    if not low <= value <= high:
        raise InvalidArgument(f"{name}={text[:40]!r}: must be a whole number from {low:,} to {high:,}")
    return value


ROUTES: Final = (
    Route("/api/v1/openapi.json", openapi),
    Route("/api/v1/runs", runs),
    Route("/api/v1/runs/{run}", run),
    Route("/api/v1/runs/{run}/events", events),
    Route("/api/v1/runs/{run}/state", state),
    Route("/api/v1/runs/{run}/value", value),
    Route("/api/v1/runs/{run}/origin", origin.json),
    Route("/api/v1/runs/{run}/search", search.json),
    Route("/api/v1/runs/{run}/lineage", lineage_json),
    Route("/api/v1/runs/{run}/fork", api_acting.fork, methods=["POST"]),
    Route("/api/v1/runs/{run}/cancel", api_acting.cancel, methods=["POST"]),
    Route("/api/v1/compare", compare_json),
)
