"""What the JSON API changes: forks and cancellations. Each goes through the client, as the pages do."""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from debugger_ui.forks.commands import fork_line
from debugger_ui.pages.acting import MAX_REASON, must_act
from debugger_ui.ui import ui_of
from kairos.errors import InvalidArgument

FORK_FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "from_step": (str,),
    "set": (dict,),
    "output": (dict,),
    "version": (str,),
    "reason": (str,),
    "key": (str, type(None)),
    "dry_run": (bool,),
}
CANCEL_FIELDS: Final[dict[str, tuple[type, ...]]] = {"reason": (str,)}


async def fork(request: Request) -> Response:
    """Fork a run: 201 with the fork and its plan; with `dry_run`, 200 with the plan alone."""
    ui = ui_of(request)
    must_act(ui)
    run_id = await ui.histories.find(request.path_params["run"])
    given = await _body(request, FORK_FIELDS)
    if not given.get("from_step"):
        raise InvalidArgument("from_step is missing", hint="The step to go on from.", path="from_step")
    is_dry = given.pop("dry_run", False)
    key = given.pop("key", None) or request.headers.get("idempotency-key")
    client = await ui.client()
    planned = await client.plan_fork(run_id, key=key, **given)
    asked = planned.request
    line = fork_line(
        run_id, asked.from_step, set=asked.set, output=asked.output, version=asked.version, reason=asked.reason
    )
    facts: dict[str, Any] = {"plan": planned.to_json(), "command": line}
    if is_dry:
        return JSONResponse(facts)
    run = await client.start_fork(planned)
    facts |= {"run": run.info.to_json(), "url": f"{ui.url}/runs/{run.id}"}
    return JSONResponse(facts, 201, headers={"Location": f"/api/v1/runs/{run.id}"})


async def cancel(request: Request) -> Response:
    """Ask for a run to stop. Asking twice changes nothing."""
    ui = ui_of(request)
    must_act(ui)
    run_id = await ui.histories.find(request.path_params["run"])
    given = await _body(request, CANCEL_FIELDS, may_be_empty=True)
    reason = " ".join(given.get("reason", "").split())[:MAX_REASON]
    status = await (await ui.client()).cancel(run_id, reason or "cancelled by the API")
    return JSONResponse({"id": str(run_id), "status": status.value})


async def _body(request: Request, fields: dict[str, tuple[type, ...]], *, may_be_empty: bool = False) -> dict[str, Any]:
    """The JSON object of a request, its fields checked by name and type. Raises InvalidArgument."""
    raw = await request.body()
    if not raw and may_be_empty:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":
        raise InvalidArgument("the body must be JSON", hint="Send Content-Type: application/json.")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise InvalidArgument(f"the body is not JSON: {str(exc)[:120]}") from None
    if not isinstance(found, dict):
        raise InvalidArgument("the body must be a JSON object")
    for name, value in found.items():
        if name not in fields:
            raise InvalidArgument(f"unknown field {name[:60]!r}", hint=f"Known: {', '.join(fields)}.", path=name[:60])
        if not isinstance(value, fields[name]):
            raise InvalidArgument(f"{name} has the wrong type: {type(value).__name__}", path=name)
    return found
