"""pdb as a backend of `Stops`: arms it around one call of a step, takes Ctrl-C, and serves `breakpoint()`."""

from __future__ import annotations

import asyncio
import bdb
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from kairos.replay.stopping.breakpoints import Breakpoint
from kairos.replay.stopping.ended import begin_with, exceptions_of, failure_lines
from kairos.replay.stopping.facts import Facts
from kairos.replay.stopping.lines import Place
from kairos.replay.stopping.session import DebuggerQuit, Session
from kairos.usercode import is_user_file

if TYPE_CHECKING:
    from kairos.replay.stopping.console import KairosPdb


class OnTerminal:
    """The debugger of this terminal."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._console: KairosPdb | None = None

    @property
    def console(self) -> KairosPdb:
        """The prompt. Made when it is first wanted: loading pdb takes as long as replaying some hundred steps."""
        if self._console is None:
            from kairos.replay.stopping.console import KairosPdb

            self._console = KairosPdb(self.session)
        return self._console

    def attach(self) -> None:
        """From now on, `breakpoint()` in the user's code opens this debugger (unless PYTHONBREAKPOINT=0)."""
        if os.environ.get("PYTHONBREAKPOINT") != "0":
            sys.breakpointhook = self._breakpoint

    @property
    def has_breakpoints(self) -> bool:
        """Whether some were set at the prompt."""
        return self._console is not None and bool(self._console.breaks)

    def disarm(self) -> None:
        """End what `breakpoint()` has begun in a step without breakpoints."""
        if self._console is not None and self._console.is_tracing:
            self._console.stop_tracing()

    @contextlib.contextmanager
    def armed(self, places: Sequence[tuple[Breakpoint, Place]], caller: FrameType) -> Iterator[None]:
        """Stop at these places, in what the frame `caller` calls."""
        console = self.console
        numbers = [self._set(wanted, place) for wanted, place in places]
        traced, threads_traced = sys.gettrace(), threading.gettrace()
        with self._interruptible():
            console.run_from(caller)
            try:
                yield
            finally:
                console.stop_tracing()
                sys.settrace(traced)
                threading.settrace(threads_traced)
                for number in numbers:
                    console.clear_bpbynumber(number)
                with self.session.lock:
                    pass  # a thread of the step may still stand at the prompt

    def examine(self, exc: BaseException, facts: Facts) -> None:
        """Stand in the user's frame of what the step raised."""
        for line in failure_lines(exc, facts):
            self.session.say(f"[replay] {line}" if not line.startswith(" ") else line)
        self.console.examine(exc, begin_with(exceptions_of(exc)))

    def stop_now(self, reason: str) -> None:
        """Prompt in the user's frame that has called the caller."""
        frame = user_frame(sys._getframe(1))
        if frame is not None:
            self.console.stop_in(frame, reason)

    def _set(self, wanted: Breakpoint, place: Place) -> int:
        before = set(_numbers())
        complaint = self.console.set_break(place.file, place.line, place.once, wanted.condition)
        if complaint:  # bdb looks the line up in the source, which need not be there
            bdb.Breakpoint(self.console.canonic(place.file), place.line, place.once, wanted.condition)
            self.console.breaks.setdefault(self.console.canonic(place.file), []).append(place.line)
        return next(iter(set(_numbers()) - before))

    def _breakpoint(self, *_: Any, **__: Any) -> None:
        self.console.stop_in(sys._getframe(1), "breakpoint() in the code")

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C while the step runs opens the prompt where it hangs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.session.quit:
            raise DebuggerQuit(0)
        if self.session.prompting is not None:
            self.session.say("another thread stands at the prompt")
            return
        where = user_frame(frame, self.console.caller) or _waiting_frame() or frame
        if where is not None:
            self.session.say("")
            self.console.stop_in(where, "interrupted here; c goes on, q ends the replay")


def _numbers() -> list[int]:
    return [number for number, point in enumerate(bdb.Breakpoint.bpbynumber) if point is not None]


def user_frame(frame: FrameType | None, below: FrameType | None = None) -> FrameType | None:
    """The innermost frame of the user's at or above this one, as far as it is called from `below`."""
    while frame is not None and not is_user_file(frame.f_code.co_filename):
        frame = frame.f_back
    return None if frame is below else frame


def _waiting_frame() -> FrameType | None:
    """Where a coroutine of the user waits, if the event loop is all that runs."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return None
    for task in tasks:
        frames: list[FrameType | None] = []
        body: Any = task.get_coro()
        while body is not None:
            frames.append(getattr(body, "cr_frame", None) or getattr(body, "gi_frame", None))
            body = getattr(body, "cr_await", None) or getattr(body, "gi_yieldfrom", None)
        own = [frame for frame in frames if frame is not None and is_user_file(frame.f_code.co_filename)]
        if own:
            return own[-1]
    return None
