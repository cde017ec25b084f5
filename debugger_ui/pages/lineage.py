"""The tree of forks that a run belongs to."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from debugger_ui.family import read_tree
from debugger_ui.pages.acting import must_be_stored
from debugger_ui.ui import ui_of


async def lineage(request: Request) -> Response:
    """The page."""
    ui = ui_of(request)
    must_be_stored(ui)
    run_id = await ui.histories.find(request.path_params["run"])
    return ui.page(request, "lineage.html", family=await read_tree(ui, run_id), run_id=run_id)


async def lineage_json(request: Request) -> Response:
    """The same for programs."""
    ui = ui_of(request)
    must_be_stored(ui)
    family = await read_tree(ui, await ui.histories.find(request.path_params["run"]))
    return JSONResponse(family.to_json())
