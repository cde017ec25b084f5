"""One client's session: its requests answered over a trace. Knows nothing of sockets.

The trace is always stopped somewhere. Whatever moves it is answered, then followed by a `stopped` event.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from kairos.errors import TraceError
from kairos.replay.trace.breakpoints import Breakpoint, line_that_ran, run
from kairos.replay.trace.dap.variables import Variables
from kairos.replay.trace.expressions import evaluate
from kairos.replay.trace.history import Level, Trace
from kairos.replay.trace.layout import Kind
from kairos.replay.trace.stepper import Stepper
from kairos.replay.trace.values import Unbound, Value, render, type_of

Arguments = dict[str, Any]
Message = dict[str, Any]
_Move = Callable[[int], int | None]

RAISED: Final = "raised"
CAPABILITIES: Final = {
    "supportsConfigurationDoneRequest": True,
    "supportsStepBack": True,
    "supportsConditionalBreakpoints": True,
    "supportsEvaluateForHovers": True,
    "supportsRestartRequest": True,
    "supportsTerminateRequest": True,
    "supportsExceptionInfoRequest": True,
    "supportsDelayedStackTraceLoading": True,
    "exceptionBreakpointFilters": [{"filter": RAISED, "label": "Raised exceptions", "default": False}],
}
_COMMANDS: Final = ("when", "last", "hits", "where", "goto", "list", "locals", "help")
"""Commands of the terminal stepper that the console of the IDE takes, too."""


class Session:
    """Answers the requests of one client.

    Attributes:
        is_over: the client has said goodbye.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.is_over = False
        self._stepper = Stepper(trace)
        self._variables = Variables()
        self._frames: list[Level] = []
        self._breakpoints: dict[int, list[Breakpoint]] = {}
        self._numbered = 0
        self._raises = False
        self._position = trace.first

    def handle(self, request: Any) -> Iterator[Message]:
        """The answer to a request and the events that follow it, without their sequence numbers."""
        if not isinstance(request, dict) or request.get("type") != "request":
            return
        command = request.get("command")
        answer = {"type": "response", "request_seq": request.get("seq", 0), "command": command}
        try:
            body, events = self._obey(command, request.get("arguments"))
        except (TraceError, LookupError, ValueError, TypeError, AttributeError) as exc:
            yield {**answer, "success": False, **_refusal(exc)}
            return
        yield {**answer, "success": True, **({} if body is None else {"body": body})}
        yield from events

    def _obey(self, command: Any, arguments: Any) -> tuple[Any, list[Message]]:
        requests: dict[str, Callable[[Arguments], Any]] = {
            "threads": self._threads, "stackTrace": self._stack, "scopes": self._scopes, "source": self._source,
            "variables": self._open, "evaluate": self._evaluate, "setBreakpoints": self._set_breakpoints,
            "setExceptionBreakpoints": self._set_raises, "exceptionInfo": self._exception,
        }  # fmt: skip
        moves: dict[str, Callable[[Arguments], list[Message]]] = {
            "initialize": lambda _: [_event("initialized")], "launch": self._greet, "attach": self._greet,
            "configurationDone": lambda _: [self._stopped("entry")], "restart": self._restart,
            "next": self._moving(self.trace.next), "stepIn": self._moving(self.trace.step),
            "stepOut": self._moving(self.trace.out), "stepBack": self._moving(self.trace.previous),
            "continue": lambda _: self._run(backwards=False), "reverseContinue": lambda _: self._run(backwards=True),
            "pause": lambda _: [self._stopped("pause")], "disconnect": self._leave, "terminate": self._leave,
        }  # fmt: skip
        arguments = {} if arguments is None else arguments
        if not isinstance(arguments, dict):
            raise ValueError("`arguments` is no object")
        if command in requests:
            before = self._stepper.position = self._position
            body = requests[command](arguments)
            if self._stepper.position != before:
                # A command of the console has moved.
                return body, self._go(self._stepper.position, "goto")
            return body, []
        if command in moves:
            bodies = {"initialize": CAPABILITIES, "continue": {"allThreadsContinued": True}}
            return bodies.get(command), moves[command](arguments)
        raise ValueError(f"a trace does not know the request {command!r}")

    # Coming and going

    def _greet(self, arguments: Arguments) -> list[Message]:
        at = arguments.get("stopAt", "failure")
        places = {"failure": self.trace.failure, "first": self.trace.first, "last": self.trace.last}
        if at not in places:
            raise ValueError(f"stopAt is one of {', '.join(places)}, not {at!r}")
        found = places[at]
        self._position = self.trace.first if found is None else found
        return [_output("".join(text for text, _ in line) + "\n") for line in self._stepper.begin()[:2]]

    def _leave(self, _: Arguments) -> list[Message]:
        self.is_over = True
        return [_event("terminated")]

    def _restart(self, _: Arguments) -> list[Message]:
        return self._go(self.trace.first, "entry")

    # Moving

    def _moving(self, move: _Move) -> Callable[[Arguments], list[Message]]:
        def go(arguments: Arguments) -> list[Message]:
            at = self._position_of(arguments)
            to = move(at)
            return self._go(at, "step", "nothing further in this direction") if to is None else self._go(to, "step")

        return go

    def _run(self, *, backwards: bool) -> list[Message]:
        breakpoints = [found for of_file in self._breakpoints.values() for found in of_file]
        for found in breakpoints:
            found.failures.clear()
        to = run(self.trace, self._position, breakpoints, raises=self._raises, backwards=backwards)
        notes = [
            _output(f"breakpoint on line {b.line}: its condition failed {len(b.failures)} times: {why}\n", "stderr")
            for b in breakpoints
            for why in list(b.failures.values())[:1]
        ]
        if to is None:
            end = self.trace.first if backwards else self.trace.last
            return [*notes, *self._go(end, "step", f"the {'beginning' if backwards else 'end'} of the trace")]
        is_raise = self.trace.kind(to) is Kind.EXCEPTION
        return [*notes, *self._go(to, "exception" if is_raise else "breakpoint")]

    def _go(self, position: int, reason: str, note: str | None = None) -> list[Message]:
        self._position = position
        self._variables.forget()
        self._frames.clear()
        return [self._stopped(reason, note)]

    def _stopped(self, reason: str, note: str | None = None) -> Message:
        at, value = self._position, self.trace.value(self._position)
        if self.trace.kind(at) is Kind.EXCEPTION:
            reason = "exception"
            note = note or render(value, 300)
        body = {"reason": reason, "threadId": self._thread(at), "allThreadsStopped": True}
        return _event("stopped", body if note is None else {**body, "description": note, "text": note})

    # Looking

    def _threads(self, _: Arguments) -> Any:
        return {"threads": [{"id": n, "name": name} for n, name in enumerate(self.trace.header.threads, 1)]}

    def _thread(self, position: int) -> int:
        return self.trace.file.threads[position] + 1

    def _position_of(self, arguments: Arguments) -> int:
        """Where the thread of a request stands: at its last event up to here, or its first."""
        wanted = arguments.get("threadId", self._thread(self._position))
        if self._thread(self._position) == wanted:
            return self._position
        of_thread = lambda at: self._thread(at) == wanted  # noqa: E731
        found = self.trace.run(self._position, of_thread, backwards=True)
        found = self.trace.run(self._position, of_thread) if found is None else found
        if found is None:
            raise LookupError(f"there is no thread {wanted!r}")
        return found

    def _stack(self, arguments: Arguments) -> Any:
        at = self._position_of(arguments)
        levels = self.trace.stack(at)
        start, count = int(arguments.get("startFrame") or 0), int(arguments.get("levels") or 0)
        chosen = levels[start : start + count if count else None]
        return {"stackFrames": [self._frame(level) for level in chosen], "totalFrames": len(levels)}

    def _frame(self, level: Level) -> Any:
        self._frames.append(level)
        function = self.trace.function(level.position)
        number = len(self._frames)
        source = self._source_of(function.file)
        return {
            "id": number,
            "name": function.name,
            "line": self.trace.line(level.position),
            "column": 1,
            "source": source,
        }

    def _level(self, number: Any) -> Level:
        if number is None:
            return Level(self.trace.file.frames[self._position], self._position)
        if not isinstance(number, int) or not 1 <= number <= len(self._frames):
            raise LookupError(f"there is no frame {number!r} at this position")
        return self._frames[number - 1]

    def _scopes(self, arguments: Arguments) -> Any:
        level = self._level(arguments.get("frameId"))
        named: list[tuple[str, Value, str | None]] = []
        value, kind = self.trace.value(level.position), self.trace.kind(level.position)
        if not isinstance(value, Unbound):
            named.append(({Kind.RETURN: "(returns)", Kind.SUSPEND: "(yields)"}.get(kind, "(raises)"), value, None))
        named += [(name, value, name) for name, value in self.trace.locals_at(level.position, level.frame).items()]
        is_running = level.frame == self.trace.file.frames[level.position] and level.position == self._position
        name = "Locals" if is_running else "Locals (when it made the call)"
        return {"scopes": [{"name": name, "presentationHint": "locals", "expensive": False,
                            "variablesReference": self._variables.reference(named)}]}  # fmt: skip

    def _open(self, arguments: Arguments) -> Any:
        start, count = int(arguments.get("start") or 0), int(arguments.get("count") or 0)
        return {"variables": self._variables.opened(int(arguments["variablesReference"]), max(start, 0), max(count, 0))}

    def _evaluate(self, arguments: Arguments) -> Any:
        text = str(arguments["expression"]).strip()
        if arguments.get("context") == "repl" and text.split(" ")[0] in _COMMANDS and not text.isidentifier():
            lines = self._stepper.answer(text)
            return {"result": "\n".join("".join(piece for piece, _ in line) for line in lines), "variablesReference": 0}
        level = self._level(arguments.get("frameId"))
        value = evaluate(text, self.trace.locals_at(level.position, level.frame))
        return {"result": render(value, 1_000), **self._variables.describe(value, text)}

    def _exception(self, _: Arguments) -> Any:
        value = self.trace.value(self._position)
        if self.trace.kind(self._position) not in (Kind.EXCEPTION, Kind.UNWIND):
            raise ValueError("no exception is raised here")
        return {"exceptionId": type_of(value), "description": render(value, 1_000), "breakMode": "always"}

    # Breakpoints

    def _set_raises(self, arguments: Arguments) -> Any:
        self._raises = RAISED in arguments.get("filters", [])
        return {"breakpoints": [{"verified": name == RAISED} for name in arguments.get("filters", [])]}

    def _set_breakpoints(self, arguments: Arguments) -> Any:
        wanted = arguments.get("breakpoints") or [{"line": line} for line in arguments.get("lines", [])]
        file = self._file(arguments["source"])
        if file is None:
            return {"breakpoints": [self._unmet("nothing of this file was recorded") for _ in wanted]}
        set_here = self._breakpoints[file] = []
        return {"breakpoints": [self._set_breakpoint(file, one, set_here) for one in wanted]}

    def _set_breakpoint(self, file: int, wanted: Arguments, into: list[Breakpoint]) -> Message:
        line = line_that_ran(self.trace, file, int(wanted["line"]))
        if line is None:
            return self._unmet("this line did not run")
        try:
            self._numbered += 1
            into.append(Breakpoint(self._numbered, file, line, wanted.get("condition") or None))
        except TraceError as exc:
            return self._unmet(exc.message)
        return {"id": self._numbered, "verified": True, "line": line}

    def _unmet(self, why: str) -> Message:
        self._numbered += 1
        return {"id": self._numbered, "verified": False, "message": why}

    # Source

    def _file(self, source: Arguments) -> int | None:
        number = source.get("sourceReference")
        files = self.trace.header.files
        if isinstance(number, int) and 1 <= number <= len(files):
            return number - 1
        path = str(source.get("path") or source.get("name") or "")
        for index, known in enumerate(files):
            if known == path or os.path.realpath(known) == os.path.realpath(path):
                return index
        # Recorded on another machine: the same file has another folder there.
        endings = [index for index, known in enumerate(files) if _shared_end(known, path) >= 2]
        return endings[0] if len(endings) == 1 else None

    def _source_of(self, file: int) -> Message:
        path = self.trace.header.files[file]
        name = os.path.basename(path)
        if self._is_unchanged(file):
            return {"name": name, "path": path}
        return {"name": f"{name} (as recorded)", "path": path, "sourceReference": file + 1}

    def _is_unchanged(self, file: int) -> bool:
        try:
            lines = Path(self.trace.header.files[file]).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return False
        recorded = self.trace.source(file)
        return all(number <= len(lines) and lines[number - 1] == text for number, text in recorded.items())

    def _source(self, arguments: Arguments) -> Any:
        number = (arguments.get("source") or {}).get("sourceReference") or arguments["sourceReference"]
        if not isinstance(number, int) or not 1 <= number <= len(self.trace.header.files):
            raise LookupError(f"there is no source {number!r}")
        recorded = self.trace.source(number - 1)
        last = max(recorded, default=0)
        # Lines that were not recorded are left empty, so that those that were have their own numbers.
        return {
            "content": "\n".join(recorded.get(line, "") for line in range(1, last + 1)),
            "mimeType": "text/x-python",
        }


def _shared_end(one: str, other: str) -> int:
    a, b = Path(one).parts[::-1], Path(other).parts[::-1]
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _refusal(exc: Exception) -> Message:
    message = exc.message if isinstance(exc, TraceError) else str(exc)
    message = f"`{message[1:-1]}` is missing" if type(exc) is KeyError else message
    return {"message": message, "body": {"error": {"id": 1, "format": message.replace("{", "(").replace("}", ")")}}}


def _event(name: str, body: Message | None = None) -> Message:
    return {"type": "event", "event": name, **({} if body is None else {"body": body})}


def _output(text: str, category: str = "console") -> Message:
    return _event("output", {"category": category, "output": text})
