"""Files for programs: what is open, the blocks of a trace, one of its positions."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from debugger_ui import tracing
from debugger_ui.opened import NotOpen, OpenedFile, OpenedRun, OpenedTrace
from debugger_ui.pages.api import number
from debugger_ui.stepping import count_of, place_of
from debugger_ui.ui import ui_of
from kairos.replay.trace.history import Event, Trace

MAX_EVENTS: Final = 1_024


async def files(request: Request) -> Response:
    """The bundles and traces that are open."""
    return JSONResponse({"files": [_file_json(file) for file in ui_of(request).files.all]})


async def trace(request: Request) -> Response:
    """A trace: of what it is, files, functions, where it failed."""
    opened = _opened(request)
    return JSONResponse(trace_json(opened))


async def events(request: Request) -> Response:
    """A block of events from number `from`, at most `n`."""
    opened = _opened(request)
    return await _events(request, opened)


async def moment(request: Request) -> Response:
    """One position: source line, stack, locals, value. `line=FILE:LINE~HIT` or `at=N`; `move` steps from there."""
    opened = _opened(request)
    position, level = place_of(opened.trace, request.query_params, count_of(request.query_params.get("level"), 0, 60))
    return JSONResponse(tracing.look(opened.trace, position, level).to_json())


async def step(request: Request) -> Response:
    """A block of events of the trace of an attempt of a step of a run, if one is open."""
    ui = ui_of(request)
    history = await ui.histories.get(await ui.histories.find(request.path_params["run"]))
    step, attempt = request.path_params["step"], count_of(request.path_params["attempt"], 0, 2**31)
    found = [t for t in ui.files.traces_of(history.id, step, attempt) if t.trace.header.about.attempt == attempt]
    if not found:
        raise NotOpen(
            f"no trace of {step[:80]!r}, attempt {attempt}, is open here",
            hint=f"kairos replay {history.id} --trace {step[:80]} --trace-out FILE, then open FILE.",
        )
    return await _events(request, found[0])


async def _events(request: Request, opened: OpenedTrace) -> Response:
    total = len(opened.trace)
    start = number(request, "from", 1, 1, total)
    count = number(request, "n", 512, 1, MAX_EVENTS)
    events = await asyncio.to_thread(opened.trace.page, start - 1, count)
    following = start + count if start + count <= total else None
    listed = [_event_json(opened.trace, event) for event in events]
    return JSONResponse({"trace": opened.key, "events": listed, "next": following})


def trace_json(opened: OpenedTrace) -> dict[str, Any]:
    """The facts of a trace."""
    trace = opened.trace
    header, about = trace.header, trace.header.about
    return {
        "key": opened.key,
        "name": opened.name,
        "run": about.run,
        "workflow": about.workflow,
        "step": about.step,
        "attempt": about.attempt,
        "events": len(trace),
        "python": header.python,
        "recorded_at": header.recorded_at,
        "complete": not header.is_full and header.trouble is None,
        "files": [trace.label(file) for file in range(len(header.files))],
        "functions": [function.name for function in header.functions],
        "threads": header.threads,
        "failed_at": None if trace.failure is None else trace.failure + 1,
    }


def _file_json(file: OpenedFile) -> dict[str, Any]:
    if isinstance(file, OpenedTrace):
        return {"kind": "trace", "href": file.href, "size": file.size, **trace_json(file)}
    assert isinstance(file, OpenedRun)
    return {"kind": "bundle", "href": file.href, "size": file.size, **bundle_json(file)}


def _opened(request: Request) -> OpenedTrace:
    return ui_of(request).files.trace(request.path_params["trace"])


def bundle_json(file: OpenedRun) -> dict[str, Any]:
    """The facts of a bundle: what it says of itself, and what was redacted."""
    return {
        "key": file.key,
        "name": file.name,
        **file.report.to_json(),
        "file": file.name,
        "address": str(file.address),
    }


def _event_json(trace: Trace, event: Event) -> dict[str, Any]:
    changed = {name: tracing.part_of(name, value).to_json() for name, value in event.changed.items()}
    return {
        "position": event.position + 1,
        "kind": event.kind.name.lower(),
        "function": event.function,
        "file": trace.label(event.file),
        "line": event.line,
        "frame": event.frame,
        "thread": event.thread,
        "at_us": event.at_us,
        "changed": changed,
        "value": None if trace.file.values[event.position] < 0 else tracing.part_of("", event.value).to_json(),
    }


ROUTES: Final = (
    Route("/api/v1/files", files),
    Route("/api/v1/traces/{trace}", trace),
    Route("/api/v1/traces/{trace}/events", events),
    Route("/api/v1/traces/{trace}/moment", moment),
    Route("/api/v1/runs/{run}/trace/{step}/{attempt}", step),
)
