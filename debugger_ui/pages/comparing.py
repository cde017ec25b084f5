"""Two runs side by side: `/compare?a=RUN&b=RUN`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from debugger_ui.comparing import LAST_GOOD, MAX_LISTED, Comparison, listed, read_moments, value_groups
from debugger_ui.ui import Ui, ui_of
from kairos.errors import AmbiguousRun, InvalidArgument, KairosError, RunNotFound

MAX_SOURCE = 400
MAX_STEPS = 300


async def compare(request: Request) -> Response:
    """The page; without two runs, or with one that is not there, a form that asks for them."""
    ui = ui_of(request)
    a, b = request.query_params.get("a", ""), request.query_params.get("b", "")
    facts: dict[str, Any] = {"a": a, "b": b, "problem": None, "comparison": None, "last_good": LAST_GOOD}
    if not a and not b:
        return ui.page(request, "compare.html", **facts)
    status = 200
    try:
        facts["comparison"] = await _found(ui, a, b)
    except (RunNotFound, AmbiguousRun, InvalidArgument) as exc:
        facts["problem"] = exc
        status = _status(exc)
    helpers: dict[str, Any] = {"listed": listed, "groups": value_groups, "most": MAX_LISTED}
    return ui.page(
        request, "compare.html", status=status, **facts, **helpers, max_source=MAX_SOURCE, max_steps=MAX_STEPS
    )


def _status(exc: KairosError) -> int:
    if isinstance(exc, RunNotFound):
        return 410 if "removed_at" in exc.facts else 404
    return 404 if isinstance(exc, AmbiguousRun) else 400


async def _found(ui: Ui, a: str, b: str) -> Comparison:
    first, second = await read_moments(ui, a, b)
    return await ui.comparisons.get(ui.reads, first, second)


async def compare_json(request: Request) -> Response:
    """The same for programs."""
    found = await _found(ui_of(request), request.query_params.get("a", ""), request.query_params.get("b", ""))
    return JSONResponse(found.to_json())
