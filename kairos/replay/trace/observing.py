"""Records one step of a replay: around the call of its function, in the process that runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kairos.errors import KairosError
from kairos.replay.trace.layout import About
from kairos.replay.trace.recording import Recorder

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from kairos.replay.performing import Stage, StepCall

_NEGLIGIBLE: Final = 1.2
"""Where the recorder's own clock says less than this, nearly all time is the step's own: no need to run it again."""


class TraceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be recorded.

    Attributes:
        step: the name of the step.
        file: where the trace goes; the child must be allowed to write there.
        into: packages to record beside the user's files.
    """

    step: str
    file: str
    into: tuple[str, ...] = ()


class StepTrace:
    """An observer of the stage: records the step that was asked for, the first time that it runs."""

    def __init__(self, options: TraceOptions) -> None:
        self._options = options
        self._recorder: Recorder | None = None
        self._call: StepCall | None = None
        self._is_saved = False

    def __call__(self, call: StepCall) -> AbstractContextManager[Any]:
        """What is entered around the call of a step's function."""
        if call.step.name != self._options.step or self._recorder is not None:
            return nullcontext()
        self._recorder = Recorder(into=self._options.into, redactor=call.ctx.redactor)
        self._call = call
        return self._recorder

    def save(self, stage: Stage, again: Callable[[], StepCall] | None) -> str | None:
        """Write what was recorded, if it was not yet; returns what to say of it.

        Args:
            again: makes another call of the same step, to time it without the recorder; None: it must not run again.
        """
        recorder, call = self._recorder, self._call
        if recorder is None or call is None or self._is_saved:
            return None
        self._is_saved = True
        ctx = call.ctx
        about = About(ctx.run_id, ctx.workflow, ctx.step, ctx.attempt)
        is_whole = not isinstance(call.raised, KeyboardInterrupt) and recorder.least_slower > _NEGLIGIBLE
        try:
            plain = _timed(stage, again()) if again is not None and is_whole else None
            return str(recorder.save(Path(self._options.file), about, plain_ns=plain))
        except KairosError as exc:
            return f"{call.step.name} could not be recorded: {exc}"


def _timed(stage: Stage, call: StepCall) -> int:
    took = 0

    @contextmanager
    def stopwatch(_: StepCall) -> Iterator[None]:
        nonlocal took
        begun = time.perf_counter_ns()
        try:
            yield
        finally:
            took = time.perf_counter_ns() - begun

    observers, stage.observers = stage.observers, [stopwatch]
    try:
        stage.perform(call)
    finally:
        stage.observers = observers
    return took
