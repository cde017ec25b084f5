"""Search in the values of a run: hits as a list, each a jump to its moment and place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from debugger_ui.histories import History
from debugger_ui.hits import PAGE, Listing, Row, list_hits
from debugger_ui.moments import MAX_QUERY, Moment, read_moment
from debugger_ui.pages.run import load
from debugger_ui.ui import Ui
from kairos.errors import InvalidArgument


async def page(request: Request) -> Response:
    """Hits as a fragment; as a page without scripts, the run page itself shows them (`?q=`)."""
    ui, history = await load(request)
    moment = read_moment(history, request.query_params)
    listing = await _asked(request, ui, history, moment)
    facts: dict[str, Any] = {
        "history": history,
        "moment": moment,
        "base": f"/runs/{history.run_id}",
        "listing": listing,
    }
    name = "found.html" if request.headers.get("hx-request") else "found_page.html"
    response = ui.page(request, name, **facts)
    response.headers["Vary"] = "HX-Request"
    return response


async def json(request: Request) -> Response:
    """The same for programs."""
    ui, history = await load(request)
    listing = await _asked(request, ui, history, read_moment(history, request.query_params))
    found = listing.found
    return JSONResponse(
        {
            "q": listing.text,
            "count": len(found.matches),
            "capped": found.is_capped,
            "hits": [_hit_json(row) for row in listing.rows],
            "next": listing.next,
            "unread": [
                {"seq": spot.seq, "part": spot.part, "step": spot.step, "why": why} for spot, why in found.unread
            ],
            "searched_to": found.stopped,
        }
    )


async def _asked(request: Request, ui: Ui, history: History, moment: Moment) -> Listing:
    query = request.query_params
    if len(query.get("q", "")) > MAX_QUERY:
        raise InvalidArgument(f"q is longer than {MAX_QUERY} characters")
    offset, after = _number(query.get("offset"), "offset"), _number(query.get("after"), "after")
    limit = _number(query.get("limit"), "limit", PAGE)
    if not 1 <= limit <= 1_000:
        raise InvalidArgument("limit must be from 1 to 1,000")
    if "at" not in query:
        moment = replace(moment, at=history.seq)
    return await list_hits(ui.searches, history, moment, offset=offset, after=after, limit=limit)


def _number(text: str | None, name: str, otherwise: int = 0) -> int:
    if text is None or text == "":
        return otherwise
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidArgument(f"{name} is not a number")
    return int(text)


def _hit_json(row: Row) -> dict[str, Any]:
    spot, hit = row.match.spot, row.match.hit
    return {
        "seq": spot.seq,
        "step": spot.step,
        "attempt": spot.attempt,
        "in": spot.label,
        "part": spot.part or None,
        "pointer": row.pointer if spot.part else None,
        "path": row.where,
        "key": hit.in_key,
        "before": hit.before,
        "found": hit.found,
        "after": hit.after,
        "later": row.is_later,
    }
