"""Where the events come from: `sys.monitoring` from Python 3.12 on, `sys.settrace` before. One shape of events."""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final, Protocol

from kairos.errors import KairosError
from kairos.replay.trace.layout import Kind
from kairos.replay.trace.recorder import Tape
from kairos.replay.trace.scope import Scope

_NOISE: Final = (StopIteration, StopAsyncIteration, GeneratorExit)
"""How generators and awaits end. As an unwinding they are recorded all the same."""


class Backend(Protocol):
    """Reports to a tape what runs between `start` and `stop`."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


def choose(tape: Tape, scope: Scope) -> Backend:
    """The one for this Python."""
    return Monitoring(tape, scope) if sys.version_info >= (3, 12) else Tracing(tape, scope)


class Monitoring:
    """PEP 669. Lives beside pdb, debugpy and coverage; sees every thread. Code that is not recorded costs one look."""

    _TOOLS: Final = (3, 4)

    def __init__(self, tape: Tape, scope: Scope) -> None:
        self._tape = tape
        self._scope = scope
        # By id, and the code itself to hold it: hashing code is slow.
        self._wanted: dict[int, CodeType] = {}
        self._tool = 0
        self._outer: list[FrameType] = []

    def start(self) -> None:
        """Report from here on.

        Raises:
            KairosError: other tools hold both of the tool ids that are free by convention.
        """
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
        free = [tool for tool in self._TOOLS if monitoring.get_tool(tool) is None]
        if not free:
            raise KairosError(
                "this process is being monitored by other tools already",
                hint=f"Tools {', '.join(str(monitoring.get_tool(t)) for t in self._TOOLS)} hold the ids 3 and 4 of "
                "sys.monitoring. Trace without them.",
            )
        self._tool = free[0]
        monitoring.use_tool_id(self._tool, "kairos")
        self._disable = monitoring.DISABLE
        self._set_local = monitoring.set_local_events
        events = monitoring.events
        self._local = events.LINE | events.PY_RETURN | events.PY_YIELD
        for event, callback in (
            (events.PY_START, self._on_start), (events.PY_RESUME, self._on_resume), (events.PY_THROW, self._on_throw),
            (events.LINE, self._on_line), (events.PY_RETURN, self._on_return), (events.PY_YIELD, self._on_yield),
            (events.RAISE, self._on_raise), (events.PY_UNWIND, self._on_unwind),
        ):  # fmt: skip
            monitoring.register_callback(self._tool, event, callback)
        # Who runs the recorder is no part of what is recorded, though exceptions may arrive there.
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            self._outer.append(frame)
            frame = frame.f_back
        # What another recorder has disabled is asked for anew.
        monitoring.restart_events()
        entries = events.PY_START | events.PY_RESUME | events.PY_THROW | events.RAISE | events.PY_UNWIND
        monitoring.set_events(self._tool, entries)

    def stop(self) -> None:
        """Report no more; nothing stays behind in any code."""
        self._outer.clear()
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
        monitoring.set_events(self._tool, 0)
        for code in self._wanted.values():
            monitoring.set_local_events(self._tool, code, 0)
        monitoring.free_tool_id(self._tool)

    def _wants(self, code: CodeType) -> bool:
        if id(code) in self._wanted:
            return True
        wanted = self._scope.has(code)
        if wanted:
            self._wanted[id(code)] = code
            self._set_local(self._tool, code, self._local)
        return wanted

    def _on_start(self, code: CodeType, _: int) -> Any:
        if self._wants(code) and self._tape.take(Kind.CALL, sys._getframe(1)):
            return None
        return self._disable

    def _on_resume(self, code: CodeType, _: int) -> Any:
        if self._wants(code) and self._tape.take(Kind.RESUME, sys._getframe(1)):
            return None
        return self._disable

    def _on_throw(self, code: CodeType, _: int, __: BaseException) -> None:
        if self._wants(code):
            self._tape.take(Kind.RESUME, sys._getframe(1))

    # These three are asked for of recorded code alone, but beside a user of sys.settrace they come for any.

    def _on_line(self, code: CodeType, _: int) -> Any:
        if id(code) in self._wanted and self._tape.take(Kind.LINE, sys._getframe(1)):
            return None
        return self._disable

    def _on_return(self, code: CodeType, _: int, value: object) -> Any:
        if id(code) not in self._wanted:
            return self._disable
        frame = sys._getframe(1)
        if self._tape.is_known(frame):
            self._tape.take(Kind.RETURN, frame, value)
        return None

    def _on_yield(self, code: CodeType, _: int, value: object) -> Any:
        if id(code) in self._wanted and self._tape.take(Kind.SUSPEND, sys._getframe(1), value):
            return None
        return self._disable

    def _on_raise(self, code: CodeType, _: int, exc: BaseException) -> None:
        if not issubclass(type(exc), _NOISE) and self._scope.has(code):
            frame = sys._getframe(1)
            if not any(frame is outer for outer in self._outer) and self._wants(code):
                self._tape.take(Kind.EXCEPTION, frame, exc)

    def _on_unwind(self, code: CodeType, _: int, exc: BaseException) -> None:
        frame = sys._getframe(1)
        if id(code) in self._wanted and self._tape.is_known(frame):
            self._tape.take(Kind.UNWIND, frame, exc)


_OPCODES: Final = dis.opmap
_YIELD: Final = _OPCODES["YIELD_VALUE"]
_RETURN: Final = _OPCODES["RETURN_VALUE"]
_RESUME: Final = _OPCODES["RESUME"]
_Local = Callable[[FrameType, str, Any], Any]

FOLLOWED: Final = 100_000
"""Unrecorded hits of lines that are followed to the end of their loop, per trace: a tenth of a second or two."""


class _Code:
    """What is known of one code object: its plain opcodes, lines that are passed over, frames in an exception."""

    __slots__ = ("code", "is_capped", "opcodes", "passed", "raising")

    def __init__(self, code: CodeType) -> None:
        # Held, so that no other code can get the same id.
        self.code = code
        self.opcodes = code.co_code
        self.passed: dict[int, int] = {}
        self.raising = 0
        self.is_capped = False


class Tracing:
    """`sys.settrace`, for 3.11: this thread and those that start from here on; pdb and coverage see nothing meanwhile.

    Lines of a frame can only be switched off all together. So a line that was recorded often enough is still
    reported and passed over, until `FOLLOWED` such hits; then the frame keeps quiet until it calls recorded
    code, raises or returns.
    """

    def __init__(self, tape: Tape, scope: Scope) -> None:
        self._tape = tape
        self._scope = scope
        self._codes: dict[int, _Code] = {}
        self._left = FOLLOWED
        self._is_on = False
        self._before: tuple[Any, Any] = (None, None)

    def start(self) -> None:
        """Report from here on."""
        self._before = (sys.gettrace(), threading.gettrace())
        self._is_on = True
        threading.settrace(self._on_call)
        sys.settrace(self._on_call)

    def stop(self) -> None:
        """Report no more, and give the hook back to whoever had it."""
        self._is_on = False
        if sys.gettrace() != self._on_call and self._tape.trouble is None:
            self._tape.trouble = "the code, or the limit of recursion, took the trace function away"
        sys.settrace(self._before[0])
        threading.settrace(self._before[1])
        for number, known in self._codes.items():
            self._tape.elided.update({(number, line): count for line, count in known.passed.items()})

    def _on_call(self, frame: FrameType, _: str, __: Any) -> _Local | None:
        code = frame.f_code
        if not self._is_on or not self._scope.has(code):
            return None
        known = self._codes.get(id(code))
        if known is None:
            known = self._codes[id(code)] = _Code(code)
        self._wake_caller(frame)
        if known.is_capped:
            # Its calls are recorded no more; its lines are, as long as they are followed.
            self._left -= 1
            return self._on_event if self._left > 0 or self._tape.state_of(frame) is not None else None
        at = frame.f_lasti
        is_start = known.opcodes[at] == _RESUME and known.opcodes[at + 1] == 0
        known.is_capped = not self._tape.take(Kind.CALL if is_start else Kind.RESUME, frame)
        return self._on_event

    def _on_event(self, frame: FrameType, event: str, value: Any) -> _Local | None:
        if event == "line":
            known = self._codes[id(frame.f_code)]
            line = frame.f_lineno
            if line in known.passed:
                self._pass(frame, known, line)
            elif self._is_on and not self._tape.take(Kind.LINE, frame):
                known.passed[line] = 1
            if known.raising:
                self._calm(frame, known)
        elif not self._is_on:
            return None
        elif event == "exception":
            self._raise(frame, value)
        elif event == "return":
            self._leave(frame, value)
        return self._on_event

    def _pass(self, frame: FrameType, known: _Code, line: int) -> None:
        self._left -= 1
        if self._left < 0 or self._tape.is_full or not self._is_on:
            frame.f_trace_lines = False
            known.passed[line] = -1
        elif known.passed[line] > 0:
            known.passed[line] += 1

    def _raise(self, frame: FrameType, value: Any) -> None:
        frame.f_trace_lines = True
        is_noise = issubclass(value[0], _NOISE)
        if not is_noise:
            self._tape.take(Kind.EXCEPTION, frame, value[1])
        if (state := self._tape.state_of(frame)) is not None:
            if is_noise:
                self._tape.note_raised(state, value[1])
            self._codes[id(frame.f_code)].raising += not state.raising
            state.raising = True

    def _calm(self, frame: FrameType, known: _Code) -> None:
        """This frame has gone on to a line: it may yield, which is no unwinding, though both end at the same opcode."""
        state = self._tape.state_of(frame)
        if state is not None and state.raising:
            state.raising = False
            known.raising -= 1

    def _leave(self, frame: FrameType, value: Any) -> None:
        state = self._tape.state_of(frame)
        if state is None:
            return
        known = self._codes[id(frame.f_code)]
        opcode = known.opcodes[frame.f_lasti]
        if opcode == _RETURN:
            self._tape.take(Kind.RETURN, frame, value)
        elif opcode == _YIELD and not state.raising:
            known.is_capped = not self._tape.take(Kind.SUSPEND, frame, value)
        else:
            self._tape.take(Kind.UNWIND, frame)
        known.raising -= state.raising

    def _wake_caller(self, frame: FrameType) -> None:
        caller = frame.f_back
        if caller is not None and not caller.f_trace_lines and not self._tape.is_full and caller.f_trace is not None:
            caller.f_trace_lines = True
