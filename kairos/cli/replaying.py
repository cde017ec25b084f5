"""`kairos replay`: has a child load the app and, meanwhile, loads what reads the run."""

from __future__ import annotations

import sys

from kairos.cli.ending import orderly
from kairos.cli.replay_request import Request, choice_of, settings_of
from kairos.cli.terminal import err, print_error, safe
from kairos.errors import (
    AppUnavailable,
    BreakpointError,
    DatabaseUnavailable,
    GuardUnavailable,
    HistoryError,
    InvalidArgument,
    KairosError,
    PayloadError,
    ReplayError,
    WorkflowNotFound,
)
from kairos.replay.plan import Mode
from kairos.replay.replayer import Replayer
from kairos.replay.verdicts import STOPPED, UNREADABLE, USAGE


def replay_run(request: Request) -> int:
    """Replay, and print what comes of it. The exit codes are those of `verdicts`."""
    with orderly():
        return _replay(request)


def _replay(request: Request) -> int:
    try:
        choice = choice_of(request)
        with Replayer(settings_of(request, choice)) as replayer:
            if choice.mode is not Mode.LIVE:
                replayer.launch()
            from kairos.cli.replay_session import ReplaySession  # the database driver, rich: the child does not wait

            return ReplaySession(request, choice, replayer).run()
    except (InvalidArgument, PayloadError, WorkflowNotFound, ReplayError, BreakpointError) as exc:
        if isinstance(exc, AppUnavailable) and not request.as_json:
            from kairos.cli.replay_lines import Lines

            sys.stderr.write(safe(getattr(exc, "trace", "")))
            Lines(err(), "").leaks(getattr(exc, "leaks", ()), "the import of the app")
        return _refuse(exc, request, STOPPED if getattr(exc, "leaks", ()) else USAGE)
    except GuardUnavailable as exc:
        return _refuse(exc, request, STOPPED)
    except (HistoryError, DatabaseUnavailable) as exc:
        return _refuse(exc, request, UNREADABLE)


def _refuse(exc: KairosError, request: Request, code: int) -> int:
    print_error(exc.message, exc.hint, as_json=request.as_json, kind=type(exc).__name__)
    return code
