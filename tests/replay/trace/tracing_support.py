"""What the tests of the trace share: record a function, and look at what came of it."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from kairos.authoring.redaction import Redactor
from kairos.replay.trace.capture import Limits
from kairos.replay.trace.history import Trace
from kairos.replay.trace.layout import About, Kind
from kairos.replay.trace.recording import Recorder
from kairos.replay.trace.values import render


def record(function: Callable[..., Any], *arguments: Any, **options: Any) -> Trace:
    """The trace of one call; what it raises is swallowed, as the recorder sees it all the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.ktrace"
        save(path, function, *arguments, **options)
        # The file is held open: it may go.
        return Trace.open(path)


def save(
    path: Path,
    function: Callable[..., Any],
    *arguments: Any,
    about: About = About(step="sample"),  # noqa: B008
    redactor: Redactor | None = None,
    limits: Limits | None = None,
    into: tuple[str, ...] = (),
) -> Recorder:
    """Record one call into a file."""
    recorder = Recorder(into=into, redactor=redactor, limits=limits)
    with contextlib.suppress(Exception), recorder:
        function(*arguments)
    recorder.save(path, about)
    return recorder


def story(trace: Trace, function: str | None = None) -> list[str]:
    """Every event as `kind line {changes} value`, with lines counted from the function's first."""
    told = []
    for event in trace.page(0, len(trace)):
        if function is None or event.function.rpartition(".")[2] == function:
            first = trace.function(event.position).first_line
            changed = ", ".join(f"{name}={render(value)}" for name, value in sorted(event.changed.items()))
            value = "" if trace.file.values[event.position] < 0 else f" -> {render(event.value)}"
            told.append(f"{event.kind.name.lower()} {event.line - first} {{{changed}}}{value}")
    return told


def kinds(trace: Trace, function: str) -> list[str]:
    """The kinds of a function's events that are not lines."""
    return [k for k in (told.split()[0] for told in story(trace, function)) if k != "line"]


def shown_locals(trace: Trace, position: int) -> dict[str, str]:
    """The locals at a position, as text."""
    return {name: render(value) for name, value in trace.locals_at(position).items()}


def positions(trace: Trace, function: str, kind: Kind = Kind.LINE) -> list[int]:
    """Where a function has events of a kind."""
    return [
        at for at in range(len(trace))
        if trace.kind(at) is kind and trace.function(at).name.rpartition(".")[2] == function
    ]  # fmt: skip


Look = Callable[[FrameType], Any]


def forward_run(function: Callable[..., Any], file: str, look: Look) -> list[tuple[str, int, Any]]:
    """The lines that a plain tracer meets in a file: function, line, and what `look` makes of the frame there."""
    if sys.version_info >= (3, 12):
        return _monitored_run(function, file, look)
    met: list[tuple[str, int, Any]] = []

    def on_event(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != file:
            return None
        if event == "line":
            met.append((frame.f_code.co_qualname, frame.f_lineno, look(frame)))
        return on_event

    before = sys.gettrace()
    sys.settrace(on_event)
    try:
        with contextlib.suppress(Exception):
            function()
    finally:
        sys.settrace(before)
    return met


def _monitored_run(function: Callable[..., Any], file: str, look: Look) -> list[tuple[str, int, Any]]:
    # Where sys.settrace is built on sys.monitoring it reports lines anew at each turn of a comprehension.
    met: list[tuple[str, int, Any]] = []
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]

    def on_line(code: Any, line: int) -> Any:
        if code.co_filename != file:
            return monitoring.DISABLE
        met.append((code.co_qualname, line, look(sys._getframe(1))))
        return None

    monitoring.use_tool_id(2, "test")
    monitoring.register_callback(2, monitoring.events.LINE, on_line)
    monitoring.restart_events()
    monitoring.set_events(2, monitoring.events.LINE)
    try:
        with contextlib.suppress(Exception):
            function()
    finally:
        monitoring.set_events(2, 0)
        monitoring.free_tool_id(2)
    return met
