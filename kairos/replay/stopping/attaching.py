"""debugpy as a backend of `Stops`: an IDE attaches over a loopback socket, and stops where pdb would."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any

from kairos.errors import BreakpointError
from kairos.replay.stopping import vendored
from kairos.replay.stopping.breakpoints import Breakpoint
from kairos.replay.stopping.ended import begin_with, exceptions_of, failure_lines, last_user_frame, up_to
from kairos.replay.stopping.facts import Facts
from kairos.replay.stopping.lines import Place
from kairos.replay.stopping.session import Session

_CONDITION = "__import__('kairos.replay.stopping.attaching', fromlist=['x']).WHEN[{key}](globals(), locals())"


class OverDap:
    """The debugger of an IDE."""

    has_breakpoints = False

    def __init__(self, session: Session, listen: tuple[str, int]) -> None:
        self.session = session
        self._listen = listen
        self._debugpy: Any = None

    def attach(self) -> None:
        """Listen, and wait for the client; `breakpoint()` stops there too from then on.

        Raises:
            BreakpointError: debugpy is not installed, or the port is taken.
        """
        try:
            import debugpy
        except ImportError:
            raise BreakpointError(
                "--debugger debugpy needs the package debugpy, which is not installed here",
                hint="pip install 'kairos[debug]'",
            ) from None
        self._debugpy = debugpy
        host, port = self._listen
        # Children of a replay are stopped by the guards; debugpy would rewrite their command lines.
        debugpy.configure(subProcess=False)
        try:
            host, port = debugpy.listen((host, port))
        except RuntimeError as exc:
            raise BreakpointError(
                f"debugpy cannot listen on {host}:{port}: {exc}",
                hint="Is another replay waiting there? --listen 127.0.0.1:0 takes any free port.",
            ) from None
        self.session.say(f"[replay] debugpy listens on {host}:{port}; attach your editor now (Ctrl-C gives up)")
        debugpy.wait_for_client()
        vendored.prepare()
        self.session.say("[replay] attached")

    def disarm(self) -> None:
        """Nothing to end: debugpy stays attached."""

    @contextlib.contextmanager
    def armed(self, places: Sequence[tuple[Breakpoint, Place]], caller: FrameType) -> Iterator[None]:
        """Stop at these places for the length of the block."""
        handles: list[tuple[str, int]] = []
        first: list[CodeType] = []
        for key, (wanted, place) in enumerate(self._wanted(places)):
            WHEN[key] = When(wanted.condition, place.once, self.session)
            condition = _CONDITION.format(key=key) if wanted.condition or place.once else None
            try:
                handles.append(vendored.add_breakpoint(place.file, place.line, condition))
            except vendored.BreakpointsUnavailable as exc:
                self._fall_back(wanted, place, first, exc)
            else:
                self.session.say(f"[replay] the debugger stops at {place.file}:{place.line} (--break-at {wanted})")
        with _FirstCall(first) if first else contextlib.nullcontext():
            try:
                yield
            finally:
                for handle in handles:
                    vendored.remove_breakpoint(handle)
                WHEN.clear()

    def _wanted(self, places: Sequence[tuple[Breakpoint, Place]]) -> Sequence[tuple[Breakpoint, Place]]:
        """None if the editor has gone: nobody could tell a thread that stops to go on."""
        if places and not self._debugpy.is_client_connected():
            self.session.say("[replay] no editor is attached any more; the replay runs on")
            return ()
        return places

    def examine(self, exc: BaseException, facts: Facts) -> None:
        """Show the exception in the IDE, in the user's frame, as one that was not caught."""
        for line in failure_lines(exc, facts):
            self.session.say(f"[replay] {line}" if not line.startswith(" ") else line)
        found = exceptions_of(exc)
        shown = found[begin_with(found)][1]
        traceback = shown.__traceback__
        if traceback is not None and (last := last_user_frame(traceback)) is not None:
            traceback = up_to(traceback, last)
        self._debugpy.trigger_exception_handler((type(shown), shown, traceback), as_uncaught=False)

    def stop_now(self, reason: str) -> None:
        """Stop at the next line of the user's frame that has called the caller."""
        from kairos.replay.stopping.terminal import user_frame

        frame = user_frame(sys._getframe(1))
        if frame is not None:
            self.session.say(f"[replay] {reason}")
            vendored.stop_in(frame)

    def _fall_back(self, wanted: Breakpoint, place: Place, first: list[CodeType], exc: Exception) -> None:
        why = f"this debugpy takes no breakpoints from inside ({exc})"
        if wanted.line is None and wanted.condition is None:
            first.append(place.code)
        else:
            self.session.say(f"[replay] --break-at {wanted}: {why}; set it in the editor: {place.file}:{place.line}")


class _FirstCall:
    """Stops at the first line of the first call of each function; by the profiling hook, which debugpy leaves alone."""

    def __init__(self, codes: Sequence[CodeType]) -> None:
        self._left = list(codes)
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = sys.getprofile()
        sys.setprofile(self._look)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _look(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code in self._left:
            self._left.remove(frame.f_code)
            sys.setprofile(self._before)
            vendored.stop_in(frame)


class When:
    """Whether to stop at a breakpoint this time. A condition that cannot be evaluated stops, and says why."""

    def __init__(self, condition: str | None, once: bool, session: Session) -> None:
        self._condition = condition
        self._once = once
        self._session = session
        self._over = False

    def __call__(self, module: dict[str, Any], local_names: Mapping[str, Any]) -> bool:
        """Asked by debugpy in the frame that has come there."""
        if self._over or not self._holds(module, local_names):
            return False
        self._over = self._once
        return True

    def _holds(self, module: dict[str, Any], local_names: Mapping[str, Any]) -> bool:
        try:
            return self._condition is None or bool(eval(self._condition, module, local_names))
        except Exception as exc:
            self._session.say(f"[replay] the condition {self._condition!r} raised {type(exc).__name__}: {exc}")
            return True


WHEN: dict[int, When] = {}
"""Of the breakpoints that are armed now, by number: what their conditions ask."""
