"""Forking a run from its page: a form that says what would happen, and a button that makes it happen."""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from debugger_ui import values
from debugger_ui.forks.view import GLYPHS, WORDS, View, view_fork
from debugger_ui.pages.acting import must_act
from debugger_ui.pages.forms import read_form
from debugger_ui.pages.run import load

MAX_FIELDS: Final = 1_200


async def fork(request: Request) -> Response:
    """The form; a POST with `do=fork` starts the fork, any other one says what it would be."""
    ui, history = await load(request)
    must_act(ui)
    is_post = request.method == "POST"
    given = await read_form(request, MAX_FIELDS) if is_post else dict(request.query_params)
    view = await view_fork(ui, history, given)
    if given.get("do") == "fork" and is_post and view.planned is not None:
        run = await (await ui.client()).start_fork(view.planned)
        return _to_fork(request, UUID(run.id), view, given)
    facts = {
        "history": history,
        "base": f"/runs/{history.run_id}",
        "view": view,
        "ask": view.ask,
        "nonce": view.ask.nonce or secrets.token_hex(8),
        "given": given,
        "summary": values.summary,
        "becoming_words": WORDS,
        "becoming_glyphs": GLYPHS,
    }
    name = "fork_form.html" if request.headers.get("hx-request") else "fork.html"
    # What a script asks for while somebody types is a question, and the answer that it does not fit is no error.
    is_question = given.get("do") != "fork" and name == "fork_form.html"
    status = 422 if is_post and not view.ask.is_fine and not is_question else 200
    return ui.page(request, name, status=status, **facts)


def _to_fork(request: Request, run_id: UUID, view: View, given: dict[str, str]) -> Response:
    """To the fork, looked at as its parent was."""
    facts = {"at": "live", "step": view.ask.from_step}
    if given.get("view") == "graph":
        facts |= {"view": "graph", "open": given.get("open", "")[:200]}
    path = f"/runs/{run_id}?{urlencode({k: v for k, v in facts.items() if v})}"
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={"HX-Redirect": path})
    return RedirectResponse(path, 303)
