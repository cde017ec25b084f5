"""Line traces: the page, and the fragments that it steps by."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from debugger_ui.opened import OpenedTrace
from debugger_ui.pages.api import number
from debugger_ui.stepping import code_facts, facts_of, segment
from debugger_ui.ui import Ui, ui_of
from kairos.errors import TraceError


async def page(request: Request) -> Response:
    """The whole page at the place in the address; a move leads to the address of where it ends."""
    ui, opened = _opened(request)
    facts = facts_of(ui, opened, request.query_params)
    if _is_moved(request.query_params):
        stop = facts["stop"]
        level = f"&level={stop.level}" if stop.level else ""
        return RedirectResponse(f"{opened.href}?line={segment(stop.place)}{level}", 303)
    return ui.page(request, "trace.html", **facts)


async def moment(request: Request) -> Response:
    """One position as a fragment: what changes with every step."""
    ui, opened = _opened(request)
    return ui.page(request, "trace_moment.html", **facts_of(ui, opened, request.query_params))


async def source(request: Request) -> Response:
    """The code of one file as a fragment: asked for when a step leads into it."""
    ui, opened = _opened(request)
    file = number(request, "file", 0, 0, len(opened.trace.header.files) - 1)
    return ui.page(request, "trace_source.html", opened=opened, stop=None, **code_facts(opened, file))


async def hits(request: Request) -> Response:
    """The hits of a line with the values of a name, as a fragment; as the whole page to who has no script."""
    ui, opened = _opened(request)
    facts = facts_of(ui, opened, request.query_params)
    if facts["probe"] is None:
        raise TraceError("which line?", hint="probe=FILE:LINE")
    if not request.headers.get("hx-request"):
        return ui.page(request, "trace.html", **facts)
    return ui.page(request, "trace_hits.html", **facts)


def _is_moved(query: Mapping[str, str]) -> bool:
    return bool(query.get("move") or query.get("write"))


def _opened(request: Request) -> tuple[Ui, OpenedTrace]:
    ui = ui_of(request)
    return ui, ui.files.trace(request.path_params["trace"])
