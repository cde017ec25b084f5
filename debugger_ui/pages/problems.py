"""Errors as answers: what happened, why, and what to do; as a page, or as JSON for programs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from debugger_ui.opened import NotOpen
from debugger_ui.reads import NoDatabase
from debugger_ui.ui import ui_of
from kairos.errors import (
    AmbiguousRun,
    DatabaseUnavailable,
    HistoryError,
    InvalidArgument,
    KairosError,
    KeyConflict,
    MigrationError,
    PayloadError,
    Refused,
    RunNotFound,
    TraceError,
    WorkflowNotFound,
)

log = logging.getLogger("kairos.ui")


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, for people."""

    status: int
    title: str
    message: str
    hint: str | None = None
    again: bool = False
    """Whether the page should load itself again in a moment."""


async def handle(request: Request, exc: Exception) -> Response:
    """The answer for an error."""
    problem = _of(exc, request.method)
    if isinstance(exc, NoDatabase) and request.url.path in ("/", "/runs"):
        return RedirectResponse("/open", 303)
    if problem.status == 500:
        log.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    if wants_json(request):
        facts = {"status": problem.status, "title": problem.title, "detail": problem.message, "hint": problem.hint}
        facts |= _places(exc)
        return JSONResponse(facts, problem.status, media_type="application/problem+json")
    name = "fragment_problem.html" if request.headers.get("hx-request") else "problem.html"
    return ui_of(request).page(request, name, status=problem.status, problem=problem)


def wants_json(request: Request) -> bool:
    """Whether a program asks."""
    path = request.url.path
    return path.startswith("/api/") or path.endswith((".json", "/live"))


def _places(exc: Exception) -> dict[str, Any]:
    """What an error is about, if it tells: a path, or the places of a value that do not fit."""
    facts = exc.facts if isinstance(exc, KairosError) else {}
    found: dict[str, Any] = {name: facts[name] for name in ("path", "target") if name in facts}
    if "problems" in facts:
        found["errors"] = [{"keys": keys, "message": message} for keys, message in facts["problems"]]
    return found


def _of(exc: Exception, method: str) -> Problem:
    match exc:
        case RunNotFound():
            is_gone = "removed_at" in exc.facts
            title = "This run was removed" if is_gone else "No such run"
            return Problem(410 if is_gone else 404, title, exc.message, exc.hint)
        case AmbiguousRun():
            return Problem(404, "Several runs match", exc.message, exc.hint)
        case WorkflowNotFound():
            return Problem(404, "No such workflow", exc.message, exc.hint)
        case InvalidArgument() | PayloadError() if method == "POST":
            return Problem(422, "This does not fit", exc.message, exc.hint)
        case KeyConflict():
            return Problem(409, "This key is taken", exc.message, exc.hint)
        case InvalidArgument():
            return Problem(400, "This address means nothing here", exc.message, exc.hint)
        case NotOpen():
            return Problem(404, "That file is not open", exc.message, exc.hint)
        case NoDatabase():
            return Problem(404, "There is no database here", exc.message, exc.hint)
        case Refused():
            return Problem(403, "That was refused", exc.message, exc.hint)
        case TraceError():
            return Problem(400, "The trace does not tell that", exc.message, exc.hint)
        case MigrationError():
            return Problem(503, "The database needs a migration", exc.message, exc.hint)
        case DatabaseUnavailable():
            hint = exc.hint or "This page tries again by itself."
            return Problem(503, "The database cannot be reached", exc.message, hint, again=True)
        case HistoryError():
            return Problem(
                500, "The log of this run cannot be read", exc.message, exc.hint or "`kairos verify` says more."
            )
        case KairosError():
            return Problem(400, "That was refused", exc.message, exc.hint)
        case HTTPException():
            phrase = HTTPStatus(exc.status_code).phrase
            detail = "There is no page at this address." if exc.status_code == 404 else exc.detail
            return Problem(exc.status_code, phrase, detail)
        case _:
            return Problem(500, "Something is wrong here", "The debugger failed; its log has the traceback.")


HANDLERS: dict[Any, Any] = {
    KairosError: handle,
    HTTPException: handle,
    Exception: handle,
}
