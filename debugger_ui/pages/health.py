"""Probes, and the page that asks for the token."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from debugger_ui.guards import cookie, local_path, same
from debugger_ui.pages.forms import read_form
from debugger_ui.ui import ui_of
from kairos.errors import KairosError


async def healthz(request: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """The database answers too."""
    ui = ui_of(request)
    if not ui.has_database:
        return JSONResponse({"status": "ok", "files": len(ui.files.all)})
    try:
        async with ui.reads.reader() as reader:
            await reader.heads([])
    except KairosError as exc:
        return JSONResponse({"status": "unavailable", "error": exc.message}, 503)
    return JSONResponse({"status": "ok", "viewers": ui.watcher.viewers})


async def login(request: Request) -> Response:
    """A form for the token; a right one is remembered in a cookie."""
    ui = ui_of(request)
    target = local_path(request.query_params.get("next", "/"))
    if ui.access.token is None:
        return RedirectResponse(target, 303)
    if request.method == "POST":
        form = await read_form(request)
        target = local_path(str(form.get("next", "/")))
        if same(str(form.get("token", "")), ui.access.token):
            return RedirectResponse(target, 303, headers={"Set-Cookie": cookie(ui.access)})
        return ui.page(request, "login.html", status=403, target=target, is_wrong=True)
    return ui.page(request, "login.html", target=target, is_wrong=False)
