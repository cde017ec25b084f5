"""The only place that touches what debugpy keeps private: breakpoints set by the debuggee itself (its bundled pydevd).

Checked against debugpy 1.8.22; should it move, `BreakpointsUnavailable` is raised and `attaching` stops another way.
"""

from __future__ import annotations

import contextlib
import itertools
from types import FrameType
from typing import Any

_IDS = itertools.count(990_001)  # far above what editors count up


class BreakpointsUnavailable(Exception):
    """This debugpy does not take breakpoints from inside."""


def prepare() -> None:
    """Do now what stopping would do later, when the guards are on: it looks up localhost, once."""
    with contextlib.suppress(ImportError, AttributeError):
        from _pydev_bundle import pydev_localhost

        pydev_localhost.get_localhost()


def add_breakpoint(file: str, line: int, condition: str | None) -> tuple[str, int]:
    """Stop whoever comes to this line, if the condition is true. Returns what `remove_breakpoint` wants."""
    number = next(_IDS)
    try:
        api, debugger = _api()
        api.add_breakpoint(
            debugger,
            original_filename=file,
            breakpoint_type="python-line",
            breakpoint_id=number,
            line=line,
            condition=condition,
            func_name="None",  # in whatever function
            expression=None,
            suspend_policy="NONE",
            hit_condition=None,  # it would stop whatever the condition says
            is_logpoint=False,
        )
    except (ImportError, AttributeError, TypeError) as exc:
        raise BreakpointsUnavailable(str(exc)) from exc
    return file, number


def remove_breakpoint(handle: tuple[str, int]) -> None:
    """Undo `add_breakpoint`; nothing happens if the client has removed it meanwhile."""
    file, number = handle
    api, debugger = _api()
    api.remove_breakpoint(debugger, file, "python-line", number)


def stop_in(frame: FrameType) -> None:
    """Stop at the next line of a running frame."""
    import pydevd  # found once debugpy is loaded

    pydevd.settrace(suspend=True, stop_at_frame=frame, wait_for_ready_to_run=False)


def _api() -> tuple[Any, Any]:
    import pydevd
    from _pydevd_bundle.pydevd_api import PyDevdAPI

    debugger = pydevd.get_global_debugger()
    if debugger is None:
        raise BreakpointsUnavailable("no client is attached")
    return PyDevdAPI(), debugger
