"""pdb for a replayed step: it begins in the user's function, shows the user's frames, and knows the record.

Stops where it is told; who arms and disarms it is `terminal`. One object for each thread, because each stands
somewhere else; they share their breakpoints and a `Session`.
"""

from __future__ import annotations

import bdb
import contextlib
import pdb
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

from kairos.replay.stopping.ended import exceptions_of, last_user_frame, user_traceback
from kairos.replay.stopping.facts import argument_lines, difference_lines, effect_lines, recorded_lines, value_lines
from kairos.replay.stopping.session import DebuggerQuit, Session, printable
from kairos.usercode import is_user_file

HELP = "  n next, s step into, c continue, q quit | run inp rec ddiff EXPR fx: what was recorded | ? NAME explains"
HELP_ON_EXCEPTIONS = "  exceptions lists them, exceptions N goes there; u and d move between frames"


class KairosPdb(pdb.Pdb):
    """pdb with the commands `run`, `inp`, `rec`, `ddiff`, `fx`, and `exceptions` also for groups and on 3.11."""

    # Typed by hand: the annotations of the standard library leave these out.
    stack: list[tuple[FrameType, int]]
    curindex: int
    currentbp: int

    def __init__(self, session: Session) -> None:
        # No .pdbrc: a file that lies in the folder must not run as code.
        super().__init__(nosigint=True, readrc=False)
        self.session = session
        self.prompt = "(kairos) "
        self._caller: FrameType | None = None
        self._silent = self._was_interrupted = False
        self._reason: str | None = None
        self._failure: BaseException | None = None
        self._exceptions: list[tuple[str, BaseException]] = []
        self._begin_at(None)

    # -- where it stops

    def run_from(self, frame: FrameType) -> None:
        """Trace what `frame` calls, up to the first breakpoint; also in threads that start from now on."""
        self._begin_at(frame)
        self._caller = frame
        if self.breaks:
            threading.settrace(self._in_new_thread)
            sys.settrace(self.trace_dispatch)

    @property
    def caller(self) -> FrameType | None:
        """The frame that called the step, where the user's part of the stack ends."""
        return self._caller

    @property
    def is_tracing(self) -> bool:
        """Whether it was told to stop somewhere, and not yet to let everything run."""
        return self.botframe is not None

    def stop_tracing(self) -> None:
        """Let everything run."""
        sys.settrace(None)
        threading.settrace(None)
        self._begin_at(None)

    def stop_in(self, frame: FrameType, reason: str) -> None:
        """Prompt in a frame that runs now, outside of any trace event; `n` and `s` go on from there."""
        self._reason = reason
        if self.botframe is None:
            self._begin_at(_outermost(frame))
        below: FrameType | None = frame
        while below is not None and below is not self.botframe:
            below.f_trace = self.trace_dispatch
            below = below.f_back
        sys.settrace(self.trace_dispatch)
        self.interaction(frame, None)

    def examine(self, exc: BaseException, number: int) -> None:
        """Prompt in the frames of an exception that has ended the step; begin with that number of what it holds."""
        self._exceptions = exceptions_of(exc)
        self._failure = self._exceptions[number][1]
        self.reset()
        try:
            self.interaction(None, self._failure.__traceback__)
        finally:
            self._exceptions, self._failure = [], None

    def _begin_at(self, frame: FrameType | None) -> None:
        self.reset()
        self.botframe = frame
        self._set_stopinfo(frame, None, -1)  # type: ignore[attr-defined]

    def _in_new_thread(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not self.breaks:
            sys.settrace(None)
            return None
        other = KairosPdb(self.session)
        other.breaks = self.breaks
        other._begin_at(frame.f_back or frame)
        sys.settrace(other.trace_dispatch)
        return other.trace_dispatch(frame, event, arg)

    def stop_here(self, frame: FrameType) -> bool:
        """Stepping ends in the user's code and in what that calls, not in Kairos or in an event loop."""
        return bool(super().stop_here(frame)) and self._is_inside(frame)

    def _is_inside(self, frame: FrameType) -> bool:
        if _is_kairos(frame):
            return False
        above: FrameType | None = frame
        while above is not None and above is not self.botframe:
            if is_user_file(above.f_code.co_filename):
                return True
            above = above.f_back
        return False

    def break_here(self, frame: FrameType) -> bool:
        """As pdb; a condition that cannot be evaluated stops there and says why."""
        here = bdb.Breakpoint.bplist.get((self.canonic(frame.f_code.co_filename), frame.f_lineno), ())
        conditions = {point.number: point.cond for point in here}
        self._silent = True  # a temporary one is deleted, with a message that nobody needs
        try:
            if not super().break_here(frame):
                return False
        finally:
            self._silent = False
        if condition := conditions.get(self.currentbp):
            try:
                eval(condition, frame.f_globals, frame.f_locals)
            except Exception as exc:
                self._reason = f"the condition {condition!r} raised {type(exc).__name__}: {exc}"
        return True

    # -- the prompt

    def interaction(self, frame: FrameType | None, tb_or_exc: Any) -> None:
        """One prompt at a time, on the terminal, whatever the step did to stdin and stdout."""
        with self.session.lock, self._on_terminal(), _default_interrupt():
            if self.session.quit:
                self._leave()
            if self.session.alone:
                self.set_continue()
                return
            self.session.prompting = threading.get_ident()
            try:
                self._greet()
                super().interaction(frame, tb_or_exc)
            finally:
                self.session.prompting = None
        if self.quitting:
            self._end_replay()

    def cmdloop(self, intro: Any = None) -> None:
        """Until a command goes on. Ctrl-C clears the line; a second one in a row ends the replay."""
        self._was_interrupted = False
        while True:
            try:
                return super().cmdloop(intro)
            except KeyboardInterrupt:
                if self._was_interrupted:
                    self.message("")
                    self.set_quit()
                    return None
                self._was_interrupted = True
                self.message("\nCtrl-C again, or q, ends the replay")

    def precmd(self, line: str) -> str:
        """A line was typed after all."""
        self._was_interrupted = False
        return str(super().precmd(line))

    def get_stack(self, f: FrameType | None, t: TracebackType | None) -> tuple[list[tuple[FrameType, int]], int]:
        """From the user's outermost frame on; of an exception, the user's innermost frame is the current one."""
        stack, index = super().get_stack(f, user_traceback(t) if f is None else t)
        start = next((i for i, (frame, _) in enumerate(stack) if self._is_shown(frame)), 0)
        if f is None and (last := last_user_frame(t)) is not None:
            # The frame may stand there many times (recursion); the innermost is meant.
            index = max(i for i, (frame, _) in enumerate(stack) if frame is last.tb_frame)
        start = min(start, index)
        return stack[start:], index - start

    def _is_shown(self, frame: FrameType) -> bool:
        return frame is not self._caller and is_user_file(frame.f_code.co_filename)

    def message(self, msg: str) -> None:
        """Print to the terminal; what it cannot show is escaped."""
        if not self._silent:
            super().message(printable(str(msg), self.stdout))

    def error(self, msg: str) -> None:
        """Print a complaint."""
        super().error(printable(str(msg), self.stdout))

    def _greet(self) -> None:
        facts = self.session.facts
        if facts is not None and not self.session.greeted:
            self.session.greeted = True
            if self._failure is None:
                self.message(f"[replay] stopped in {facts.title}")
            for line in argument_lines(facts):
                self.message(line)
            self.message(HELP)
            if len(self._exceptions) > 1:
                self.message(HELP_ON_EXCEPTIONS)
        thread = threading.current_thread().name
        if thread != self.session.last_thread:
            self.session.last_thread = thread
            self.message(f"[thread {thread}]")
        if self._reason is not None:
            self.message(f"[replay] {self._reason}")
            self._reason = None

    @contextlib.contextmanager
    def _on_terminal(self) -> Iterator[None]:
        before = sys.stdin, sys.stdout
        sys.stdin, sys.stdout = self.stdin, self.stdout
        try:
            yield
        finally:
            sys.stdin, sys.stdout = before

    def _end_replay(self) -> None:
        self.session.quit = True
        threading.settrace(None)
        main = threading.main_thread()
        if threading.current_thread() is not main and main.ident is not None:
            # It may wait for this thread, or for anything else.
            with contextlib.suppress(OSError):
                signal.pthread_kill(main.ident, signal.SIGINT)
        self._leave()

    def _leave(self) -> NoReturn:
        if threading.current_thread() is not threading.main_thread():
            raise SystemExit  # the only exception that ends a thread in silence
        raise DebuggerQuit(0)

    # -- commands; their docstrings are what `help` prints

    def do_run(self, arg: str) -> None:
        """run

        Which run, step and attempt this is.
        """
        if facts := self._facts():
            self.message(facts.title)

    def do_restart(self, arg: str) -> None:
        """restart

        Not in a replay: quit, and start `kairos replay` again.
        """
        self.error("a replay cannot be restarted from inside; q, then run the same command again")

    def do_inp(self, arg: str) -> None:
        """inp [NAME|all]

        The recorded inputs, as plain JSON values, whatever the step has done to its arguments since.
        """
        if (facts := self._facts()) is None:
            return
        name = arg.strip()
        if name and name != "all" and name not in facts.inputs:
            self.error(f"no recorded input {name!r}; there are: {', '.join(facts.inputs) or 'none'}")
            return
        for key in [name] if name in facts.inputs else facts.inputs:
            lines = list(value_lines(facts.inputs[key], everything=bool(name)))
            self._lines([f"{key} = {lines[0]}", *lines[1:]])

    def do_rec(self, arg: str) -> None:
        """rec [all]

        What the step gave when it was recorded: its output, or its error with the locals of then.
        """
        if facts := self._facts():
            self._lines(recorded_lines(facts, everything=arg.strip() == "all"))

    def do_ddiff(self, arg: str) -> None:
        """ddiff EXPR

        How the value of an expression differs from the recorded output of the step.
        """
        if (facts := self._facts()) is None:
            return
        if not arg.strip():
            self.error("ddiff needs an expression: the value to compare with the recorded output")
            return
        if facts.output is None:
            self.error("no output was recorded to compare with; `rec` shows what was")
            return
        frame = self.stack[self.curindex][0]
        try:
            found = difference_lines(facts, eval(arg, frame.f_globals, frame.f_locals))
        except Exception as exc:
            self.error(f"{type(exc).__name__}: {exc}")
            return
        self._lines(found or ["no difference"])

    def do_fx(self, arg: str) -> None:
        """fx

        The effects that were recorded in this attempt, in order, with what they answered.
        """
        if facts := self._facts():
            self._lines(effect_lines(facts))

    def do_exceptions(self, arg: str) -> None:
        """exceptions [N]

        The exception, its causes and the members of groups, by number; with a number, go to its frames.
        """
        if not self._exceptions:
            self.error("no exception is looked at")
        elif not arg.strip():
            for number, (how, exc) in enumerate(self._exceptions):
                mark = ">" if exc is self._failure else " "
                self.message(f"{mark} {number:2}  {how}{' ' if how else ''}{type(exc).__name__}: {exc}"[:200])
        elif not arg.strip().isdecimal() or int(arg) >= len(self._exceptions):
            self.error(f"there is none of that number; 0 to {len(self._exceptions) - 1}")
        elif (exc := self._exceptions[int(arg)][1]).__traceback__ is None:
            self.error("it was never raised, so it has no frames")
        else:
            self._failure = exc
            self.setup(None, exc.__traceback__)
            self.print_stack_entry(self.stack[self.curindex])

    def do_EOF(self, arg: str) -> Any:
        """EOF

        Ctrl-D ends the replay. At the end of a file or pipe it goes on, and stops no more.
        """
        if not self.stdin.isatty():
            self.message("\nend of input: nobody is at the prompt; the replay goes on and stops no more")
            self.session.alone = True
            return self.do_continue("")
        self.message("\nend of input: the replay ends here")
        self.set_quit()
        return True

    def _facts(self) -> Any:
        if self.session.facts is None:
            self.error("no step runs now")
        return self.session.facts

    def _lines(self, lines: Any) -> None:
        for line in lines:
            self.message(line)


@contextlib.contextmanager
def _default_interrupt() -> Iterator[None]:
    """At the prompt Ctrl-C belongs to the prompt, whoever has it otherwise."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_kairos(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "kairos"


def _outermost(frame: FrameType) -> FrameType:
    while frame.f_back is not None:
        frame = frame.f_back
    return frame
