"""What changes something. Everything goes through the client, and says so in the log."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from debugger_ui.pages.forms import read_form
from debugger_ui.ui import Ui, ui_of
from kairos.errors import Refused

MAX_REASON = 500


def must_act(ui: Ui) -> None:
    """Raise Refused if this debugger changes nothing, or the run is a file."""
    must_be_stored(ui)
    if not ui.may_act:
        raise Refused("this debugger only looks", hint="Start it without --read-only to act.")


def must_be_stored(ui: Ui) -> None:
    """Raise Refused if the run was opened from a file: what needs a database is not there then."""
    if ui.file is not None:
        raise Refused("a bundle is read only", hint="`kairos import FILE` takes the run into a database.")


async def cancel(request: Request) -> Response:
    """Ask for a run to stop. Asking twice changes nothing."""
    ui = ui_of(request)
    must_act(ui)
    run_id = await ui.histories.find(request.path_params["run"])
    form = await read_form(request)
    reason = " ".join(str(form.get("reason", "")).split())[:MAX_REASON]
    client = await ui.client()
    await client.cancel(run_id, reason or "cancelled in the debugger")
    return RedirectResponse(f"/runs/{run_id}", 303)
