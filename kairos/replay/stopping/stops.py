"""What the replay's child calls: before the guards, after the app's import, around each step, and when one differs.

    stops = Stops.from_json(job["stops"])
    stops.attach()                                  # before the guards: debugpy opens sockets
    stops.check({step.name: step.fn for ...})       # after the app's import; before anything runs
    with stops.observe(call):                       # or around(step.name, step.fn, facts)
        value = step.fn(**arguments)                # or the event loop's run_until_complete
    stops.returned(output)                          # as encoded; for --break-on diverge

`around` lets every exception of the step through, and raises `DebuggerQuit` once the user has quit in its
midst. Who quits when it has ended has seen what came of it: then `session.quit` says that nothing more is to be run.
Without a breakpoint for the step it does nothing: no tracing, no facts are made.
"""

from __future__ import annotations

import bdb
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol

from kairos.domain import canonical
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import EffectRecorded
from kairos.domain.payload import Payload
from kairos.errors import BreakpointError, EffectMismatch
from kairos.replay.stopping.breakpoints import Breakpoint, StopOptions, check_steps
from kairos.replay.stopping.ended import LastReturn, OutputDiverged, not_reproduced_lines
from kairos.replay.stopping.facts import Facts, compared, facts_of
from kairos.replay.stopping.lines import Place, find_place, user_code
from kairos.replay.stopping.session import DebuggerQuit, Session

if TYPE_CHECKING:
    from kairos.authoring.context import StepContext
    from kairos.authoring.step import Step


class Recorded(Protocol):
    """The attempt that is replayed, as recorded."""

    output: Payload | None
    error: ErrorInfo | None
    effects: list[EffectRecorded]


class Call(Protocol):
    """One call of a step; `arguments` is what `Step.bind` made, `recorded` None if the step had never started."""

    step: Step[..., Any]
    ctx: StepContext
    run_input: bytes
    upstream: Mapping[str, bytes]
    arguments: dict[str, Any]

    @property
    def recorded(self) -> Recorded | None:
        """The attempt that is replayed."""


class Backend(Protocol):
    """A debugger, as `Stops` uses it."""

    def attach(self) -> None:
        """Get ready, before the guards go on."""

    @property
    def has_breakpoints(self) -> bool:
        """Whether the user has set some in the debugger itself."""

    def armed(
        self, places: Sequence[tuple[Breakpoint, Place]], caller: FrameType
    ) -> contextlib.AbstractContextManager[None]:
        """Stop at these places, in what `caller` calls."""

    def disarm(self) -> None:
        """The step is over; it may have asked for the debugger itself."""

    def examine(self, exc: BaseException, facts: Facts) -> None:
        """Look at an exception that has ended the step."""

    def stop_now(self, reason: str) -> None:
        """Stop in the user's code that has called the caller."""


class Stops:
    """The breakpoints of one replay, and the debugger that they open."""

    def __init__(self, options: StopOptions, out: IO[str] | None = None) -> None:
        self.options = options
        self.session = Session(out or sys.stdout)
        self.not_reproduced: list[str] = []
        """Steps whose recorded failure did not come again; with --post-mortem this ends as diverged."""
        self.bytes_of: Callable[[Payload], bytes] = lambda payload: payload.data or b"null"
        """To be set for each run: the bytes of a payload that its record refers to."""
        self._backend: Backend | None = None
        self._places: dict[str, list[tuple[Breakpoint, Place]]] = {}
        self._last: Visit | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any], out: IO[str] | None = None) -> Stops:
        """As `StopOptions.to_json` gave it. `out`: where it speaks to the user, by default stdout."""
        return cls(StopOptions.from_json(data), out)

    def attach(self) -> None:
        """Make the debugger ready: pdb is set up, debugpy waits for its client. Must come before the guards.

        Raises:
            BreakpointError: debugpy is not installed, or cannot listen.
        """
        if self.options.debugger == "debugpy":
            from kairos.replay.stopping.attaching import OverDap

            self._backend = OverDap(self.session, self.options.listen)
        else:
            from kairos.replay.stopping.terminal import OnTerminal

            self._backend = OnTerminal(self.session)
        self._backend.attach()

    def check(self, functions: Mapping[str, Any]) -> list[str]:
        """Find the line of each breakpoint. `functions`: every step of the workflow, by name.

        Returns what the user should be told: lines that were moved.

        Raises:
            BreakpointError: no such step, or no such line.
        """
        check_steps(self.options.breakpoints, functions)
        self._places = {}
        notes = []
        for wanted in self.options.breakpoints:
            place = find_place(wanted, functions[wanted.step])
            self._places.setdefault(wanted.step, []).append((wanted, place))
            if place.note:
                notes.append(f"--break-at {wanted}: {place.note}")
        return notes

    def around(self, step: str, fn: Any, facts: Callable[[], Facts]) -> Visit:
        """For a `with` statement around one call of the step's function."""
        self._last = Visit(self, step, fn, facts)
        return self._last

    def observe(self, call: Call) -> Visit:
        """As `around`, with the facts taken from the call."""
        return self.around(call.step.name, call.step.fn, lambda: self._facts_of(call))

    def returned(self, output: bytes, missing: Sequence[str] = ()) -> None:
        """The step that was just visited gave this, as canonical JSON: stop if it differs and that was asked for.

        `missing`: the effects of the record that it has not asked for.
        """
        if "diverge" in self.options.break_on and self._last is not None:
            facts = self._last.facts()
            lines: list[object] = [f"the effect {name} of the record was not asked for" for name in missing]
            if facts.output is not None and facts.output != output:
                lines += compared(facts, canonical.decode(output))
            self.diverged(lines)

    def unrecorded(self, effect: str) -> None:
        """The step asks for an effect (`NAME #ORDINAL`) that its record does not have: stop if that was asked for."""
        self.diverged([f"the record has no effect {effect}"])

    def diverged(self, differences: Sequence[object]) -> None:
        """The step that runs, or has just returned, does not do what was recorded: stop if that was asked for."""
        if "diverge" in self.options.break_on and self._last is not None and differences:
            self._last.diverged(differences)

    def _facts_of(self, call: Call) -> Facts:
        then = call.recorded
        output = None if then is None or then.output is None else self.bytes_of(then.output)
        return facts_of(
            call.step, call.ctx, call.run_input, call.upstream, call.arguments,
            output=output,
            error=None if then is None else then.error,
            effects=() if then is None else then.effects,
            ignore=(*self.options.ignore, *call.step.workflow.replay_ignore),
            bytes_of=self.bytes_of,
        )  # fmt: skip

    @property
    def backend(self) -> Backend:
        """The debugger. Raises BreakpointError before `attach`."""
        if self._backend is None:
            raise BreakpointError("the debugger is not attached yet")
        return self._backend

    def places(self, step: str) -> Sequence[tuple[Breakpoint, Place]]:
        """Where to stop in this step."""
        return self._places.get(step, ())


class Visit:
    """One call of one step."""

    def __init__(self, stops: Stops, step: str, fn: Any, facts: Callable[[], Facts]) -> None:
        self._stops = stops
        self._places = stops.places(step)
        self._make_facts = facts
        self._facts: Facts | None = None
        self._code = user_code(fn) if "diverge" in stops.options.break_on else None
        self._returned: LastReturn | None = None
        self._held: contextlib.ExitStack | None = None

    def __enter__(self) -> Visit:
        stops, session = self._stops, self._stops.session
        if session.quit:
            raise DebuggerQuit(0)
        session.greeted = False
        session.make_facts = self.facts
        armed = self._places or stops.options.break_on or stops.options.post_mortem or stops.backend.has_breakpoints
        if armed:
            caller = sys._getframe(1)
            while caller.f_back is not None and caller.f_globals.get("__name__") == "contextlib":
                caller = caller.f_back  # an ExitStack, which is left already when the step runs
            self._held = contextlib.ExitStack()
            if self._code is not None:
                self._returned = self._held.enter_context(LastReturn(self._code))
            self._held.enter_context(stops.backend.armed(self._places, caller))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session = self._stops.session
        if self._held is not None:
            self._held.close()
        self._stops.backend.disarm()
        if isinstance(exc, bdb.BdbQuit):  # of a pdb that the step itself has opened
            session.quit = True
        if session.quit:
            raise DebuggerQuit(0) from None
        if exc is None:
            self._compare_with_failure()
        elif self._wants(exc):
            self._examine(exc)
        session.make_facts = None

    def facts(self) -> Facts:
        """What is known of the step; made when somebody looks."""
        if self._facts is None:
            self._facts = self._make_facts()
        return self._facts

    def diverged(self, differences: Sequence[object]) -> None:
        """Stop where it runs, or look at the frame that has returned."""
        lines = [str(item) for item in differences]
        what = f"{len(lines)} difference{'s' if len(lines) != 1 else ''} from the record: {'; '.join(lines[:3])}"
        backend = self._stops.backend
        if self._stops.session.make_facts is not None:
            backend.stop_now(what)
        elif self._returned is not None and (place := self._returned.traceback) is not None:
            self._examine(OutputDiverged(what).with_traceback(place))

    def _examine(self, exc: BaseException) -> None:
        session = self._stops.session
        session.make_facts = self.facts
        try:
            self._stops.backend.examine(exc, self.facts())
        except DebuggerQuit:
            session.quit = True  # after this step: it has ended, and how is known
        finally:
            session.make_facts = None

    def _wants(self, exc: BaseException) -> bool:
        options = self._stops.options
        asked = options.post_mortem or "fail" in options.break_on
        asked = asked or ("diverge" in options.break_on and isinstance(exc, EffectMismatch))
        return asked and not isinstance(exc, KeyboardInterrupt | DebuggerQuit)

    def _compare_with_failure(self) -> None:
        if self._stops.options.post_mortem and self.facts().error is not None:
            self._stops.not_reproduced.append(self.facts().step)
            for number, line in enumerate(not_reproduced_lines(self.facts())):
                self._stops.session.say(line if number else f"[replay] {line}")
