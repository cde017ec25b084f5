"""What changes something. Everything goes through the client, and says so in the log."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from debugger_ui.pages.forms import read_form
from debugger_ui.ui import ui_of
from kairos.errors import Refused

MAX_REASON = 500


async def cancel(request: Request) -> Response:
    """Ask for a run to stop. Asking twice changes nothing."""
    ui = ui_of(request)
    if not ui.may_act and ui.file is None:
        raise Refused("this debugger only looks", hint="Start it without --read-only to act.")
    run_id = await ui.histories.find(request.path_params["run"])
    form = await read_form(request)
    reason = " ".join(str(form.get("reason", "")).split())[:MAX_REASON]
    client = await ui.client()
    await client.cancel(run_id, reason or "cancelled in the debugger")
    return RedirectResponse(f"/runs/{run_id}", 303)
