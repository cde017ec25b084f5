"""Files: what is open, a place to drop another one, and letting it go."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from debugger_ui import words
from debugger_ui.opened import MAX_DROPPED, MAX_FILES, OpenedRun
from debugger_ui.ui import ui_of
from kairos.errors import BundleError, KairosError, TraceError

FIELD: Final = "file"


async def listing(request: Request) -> Response:
    """What is open, and where to drop a file."""
    return _page(request)


async def drop(request: Request) -> Response:
    """Open what was dropped, and go there; or say what is wrong with it."""
    ui = ui_of(request)
    try:
        form = await request.form(max_files=2, max_fields=4)
    except HTTPException as exc:
        return _page(request, TraceError(f"what was sent cannot be read as a form: {exc.detail}"))
    try:
        sent = form.get(FIELD)
        if not isinstance(sent, UploadFile) or not sent.filename:
            return _page(request, TraceError("no file was chosen", hint="Choose a .kairos bundle or a .ktrace trace."))
        if (sent.size or 0) > MAX_DROPPED:
            hint = "Open it from the command line: kairos ui --file FILE."
            return _page(request, TraceError(f"files of more than {words.size(MAX_DROPPED)} are not taken", hint=hint))
        opened = await asyncio.to_thread(ui.files.take, sent.filename, sent.file)
    except (BundleError, TraceError) as exc:
        return _page(request, exc)
    finally:
        await form.close()
    return RedirectResponse(opened.href, 303)


async def close(request: Request) -> Response:
    """Let go of a file that was dropped."""
    ui_of(request).files.close(request.path_params["key"])
    return RedirectResponse("/open", 303)


def _page(request: Request, problem: KairosError | None = None) -> Response:
    ui = ui_of(request)
    opened = list(reversed(ui.files.all))
    facts: dict[str, Any] = {
        "bundles": [file for file in opened if isinstance(file, OpenedRun)],
        "traces": list(reversed(ui.files.traces.values())),
        "problem": problem,
        "field": FIELD,
        "most": MAX_DROPPED,
        "most_files": MAX_FILES,
    }
    return ui.page(request, "open.html", status=422 if problem else 200, **facts)
