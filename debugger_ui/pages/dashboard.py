"""The first page: how things stand, and what goes wrong most."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from debugger_ui import words
from debugger_ui.ui import Ui, ui_of
from kairos.client.facts import read_queues, read_workers
from kairos.domain.states import RunStatus

SPANS: Final = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}
KEPT_FOR: Final = 3.0
"""Seconds for which a dashboard is shown to all who ask: counting is not to be done once per viewer."""


async def dashboard(request: Request) -> Response:
    """The page; a fragment of it when a script asks for news."""
    ui = ui_of(request)
    chosen = request.query_params.get("span", "24h")
    span = chosen if chosen in SPANS else "24h"
    facts = await read_facts(ui, span)
    name = "dashboard_body.html" if request.headers.get("hx-request") else "dashboard.html"
    return ui.page(request, name, span=span, spans=list(SPANS), statuses=list(RunStatus), **facts)


async def read_facts(ui: Ui, span: str) -> dict[str, Any]:
    """Counts, groups of failures, queues and workers; at most `KEPT_FOR` seconds old."""
    known = ui.kept.get(span)
    if known is not None and time.monotonic() - known[0] < KEPT_FOR:
        return known[1]
    since = words.now() - SPANS[span]
    async with ui.reads.reader() as reader:
        facts: dict[str, Any] = {
            "counts": await reader.status_counts(since),
            "groups": await reader.failure_groups(since),
            "workers": await read_workers(reader),
            "queues": await read_queues(reader),
            "latest": await reader.list_runs(limit=8),
        }
    ui.kept[span] = (time.monotonic(), facts)
    return facts
