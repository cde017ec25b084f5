"""The tree of forks that a run belongs to."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from debugger_ui.family import read_tree
from debugger_ui.reads import NoDatabase
from debugger_ui.ui import Ui, ui_of


async def lineage(request: Request) -> Response:
    """The page."""
    ui = _with_others(ui_of(request))
    run_id = await ui.histories.find(request.path_params["run"])
    return ui.page(request, "lineage.html", family=await read_tree(ui, run_id), run_id=run_id)


def _with_others(ui: Ui) -> Ui:
    """A bundle holds one run. Raises NoDatabase."""
    if not ui.has_database:
        raise NoDatabase
    return ui


async def lineage_json(request: Request) -> Response:
    """The same for programs."""
    ui = _with_others(ui_of(request))
    family = await read_tree(ui, await ui.histories.find(request.path_params["run"]))
    return JSONResponse(family.to_json())
