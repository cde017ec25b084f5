"""The stream of a run that goes on: what is new, in columns, from wherever the browser stands."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response

from debugger_ui.timeline import columns
from debugger_ui.ui import Ui, ui_of
from debugger_ui.watching import MAX_VIEWERS
from kairos.errors import DatabaseUnavailable, InvalidArgument, RunNotFound

BATCH: Final = 5_000
PING: Final = 15
SEND_TIMEOUT: Final = 10


async def stream(request: Request) -> Response:
    """SSE: `events` (columns; its id is the last seq), `end` with the run, `resync` when the browser is ahead of us.

    A run that has ended and of which the browser has everything is answered 204: browsers do not come back then.
    """
    ui = ui_of(request)
    run_id = await ui.histories.find(request.path_params["run"])
    after = max(_number(request.query_params.get("after")), _number(request.headers.get("last-event-id")))
    history = await ui.histories.get(run_id)
    if history.is_fixed or (history.is_over and after == history.seq):
        return Response(status_code=204)
    if ui.watcher.viewers >= MAX_VIEWERS or not ui.watcher.is_open:
        return Response("too many live pages\n", 503, headers={"Retry-After": "5"})
    return EventSourceResponse(
        _tell(ui, run_id, after), ping=PING, send_timeout=SEND_TIMEOUT, headers={"Cache-Control": "no-store"}
    )


async def _tell(ui: Ui, run_id: UUID, after: int) -> AsyncIterator[dict[str, Any]]:
    with ui.watcher.watch(run_id, after) as wake:
        while ui.watcher.is_open:
            wake.clear()
            try:
                history = await ui.histories.get(run_id)
            except DatabaseUnavailable:
                return  # the browser comes back, from where it stands
            except RunNotFound:
                yield {"event": "end", "data": "{}"}
                return
            if after > history.seq:
                yield {"event": "resync", "data": "{}"}
                return
            while after < history.seq:
                batch = columns(history, after, after + BATCH)
                after = batch["seq"]
                yield {"event": "events", "id": str(after), "data": json.dumps(batch, separators=(",", ":"))}
            if history.is_over:
                yield {"event": "end", "data": "{}"}
                return
            ui.watcher.seen(run_id, wake, after)
            await wake.wait()


def _number(text: str | None) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidArgument(f"after={text[:20]!r} is not the number of an event")
    return int(text)
