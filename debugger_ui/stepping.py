"""What the templates of a trace need: a place in an address, read and looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from debugger_ui import tracing
from debugger_ui.opened import OpenedTrace
from debugger_ui.ui import Ui
from kairos.errors import TraceError
from kairos.replay.trace.history import Trace

MAX_TIMES: Final = 1_000
MAX_NAME: Final = 200


def facts_of(ui: Ui, opened: OpenedTrace, query: Mapping[str, str]) -> dict[str, Any]:
    """What the templates of a trace need at the place that an address says. What is not there becomes a notice."""
    trace = opened.trace
    notice: str | None = None
    level = count_of(query.get("level"), 0, tracing.MAX_LEVELS)
    try:
        position, level = place_of(trace, query, level)
    except TraceError as exc:
        notice, position = " ".join(filter(None, (exc.message + ".", exc.hint))), tracing.begin(trace)
        if query.get("at", "").isdecimal() and 1 <= int(query["at"][:9]) <= len(trace):
            position = int(query["at"][:9]) - 1
    stop = tracing.look(trace, position, level)
    return {
        "opened": opened,
        "header": trace.header,
        "stop": stop,
        "notice": notice,
        "failure": None if trace.failure is None else trace.failure + 1,
        "shape": opened.shape,
        "run_href": _run_href(ui, opened),
        "probe": _probe(trace, position, query),
        **code_facts(opened, stop.file),
    }


def code_facts(opened: OpenedTrace, file: int) -> dict[str, Any]:
    """The code of one file."""
    return {"code": tracing.code_of(opened, file), "file": file, "label": opened.trace.label(file)}


def place_of(trace: Trace, query: Mapping[str, str], level: int) -> tuple[int, int]:
    """The position and the frame that an address means, after its move. Raises TraceError."""
    position = tracing.begin(trace)
    if query.get("line"):
        position = tracing.read_place(trace, query["line"])
    elif query.get("at"):
        position = tracing.position_of(trace, count_of(query["at"], 0, 2**31))
    if query.get("write"):
        return tracing.last_write(trace, position, query["write"], level), 0
    if query.get("move"):
        times = count_of(query.get("times"), 1, MAX_TIMES)
        return tracing.move(trace, position, query["move"], level, times), 0
    return position, level


def _probe(trace: Trace, position: int, query: Mapping[str, str]) -> tracing.Probe | None:
    text = query.get("probe", "")
    if not text:
        return None
    name, _, line = text.rpartition(":")
    try:
        place = tracing.file_of(trace, name), count_of(line, 0, 2**31)
    except TraceError:
        return None
    start = count_of(query["start"], 0, 2**31) if query.get("start") else None
    return tracing.probe(trace, position, place, query.get("name", "").strip()[:MAX_NAME], start)


def count_of(text: str | None, otherwise: int, most: int) -> int:
    """A number of an address, at most `most`; `otherwise` if it is none."""
    is_number = text is not None and text.isascii() and text.isdecimal() and len(text) < 10
    return min(int(text), most) if is_number and text is not None else otherwise


def _run_href(ui: Ui, opened: OpenedTrace) -> str | None:
    """The step that the trace says that it is of."""
    about = opened.trace.header.about
    href = ui.href_of(about.run)
    attempt = f"&attempt={about.attempt}" if about.attempt else ""
    return None if href is None else f"{href}?at=last&step={segment(about.step)}{attempt}&pane=code"


def segment(text: str) -> str:
    """A text as part of an address."""
    return quote(text, safe="")
