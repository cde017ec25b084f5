"""Where a value came from, and who consumed it: a panel of the run page, a page without scripts, JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from debugger_ui.focus import Focus
from debugger_ui.histories import History
from debugger_ui.moments import MAX_POINTER, Moment, read_moment
from debugger_ui.pages.run import load
from debugger_ui.provenance import Answer, answer
from debugger_ui.ui import Ui
from debugger_ui.values import EVENT, PARTS
from kairos.errors import InvalidArgument


async def page(request: Request) -> Response:
    """The panel as a fragment, or as a page."""
    ui, history = await load(request)
    moment = read_moment(history, request.query_params)
    found = await _asked(request, ui, history, moment)
    facts: dict[str, Any] = {
        "history": history,
        "moment": moment,
        "base": f"/runs/{history.run_id}",
        "answer": found,
        "problem": None,
    }
    name = "origin.html" if request.headers.get("hx-request") else "origin_page.html"
    response = ui.page(request, name, **facts)
    response.headers["Vary"] = "HX-Request"
    return response


async def json(request: Request) -> Response:
    """The same for programs."""
    ui, history = await load(request)
    found = await _asked(request, ui, history, read_moment(history, request.query_params))
    return JSONResponse(found.to_json())


async def _asked(request: Request, ui: Ui, history: History, moment: Moment) -> Answer:
    query = request.query_params
    seq, part, direction = query.get("seq", ""), query.get("part", ""), query.get("dir", "back")
    if not (seq.isascii() and seq.isdecimal() and len(seq) < 10):
        raise InvalidArgument("seq is not the number of an event")
    if part not in (*PARTS, EVENT):
        raise InvalidArgument(f"part={part[:40]!r}: must be one of {', '.join(PARTS)}")
    if direction not in ("back", "forward"):
        raise InvalidArgument(f"dir={direction[:40]!r}: must be back or forward")
    if "at" not in query:
        moment = replace(moment, at=history.seq)
    focus = Focus(int(seq), part, query.get("of", ""), query.get("path", "")[:MAX_POINTER])
    return await answer(ui, history, moment, focus, direction)
