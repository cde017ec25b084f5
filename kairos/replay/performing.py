"""Runs one step of a replay: here, on the main thread, so that a debugger has the terminal and no lease runs out.

The pieces are those of `authoring.executor` (bind, call, check and encode, describe what was raised); what differs is
that nothing limits the time but the user, by `--timeout` or Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from kairos.authoring.context import StepContext
from kairos.authoring.executor import not_awaited
from kairos.authoring.failure import describe_error
from kairos.authoring.redaction import ATTEMPT
from kairos.authoring.step import Step
from kairos.domain.error_info import ErrorInfo
from kairos.domain.payload import Payload
from kairos.replay.facts import Attempt, StepFacts

_POOLS = ("asyncio_", "kairos-")
"""How the names of threads begin that wait for more work, and are no left-overs."""
GRACE = 5.0
"""Seconds that an interrupted coroutine may take to end."""


@dataclass(slots=True)
class StepCall:
    """One call of one step, for whoever watches it.

    Attributes:
        recorded: the attempt that is replayed; None if the step never started.
        arguments: what the function is called with; empty until the inputs are decoded.
        raised: what it raised.
    """

    step: Step[..., Any]
    ctx: StepContext
    run_input: bytes
    upstream: Mapping[str, bytes]
    facts: StepFacts
    recorded: Attempt | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    raised: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Performed:
    """What came of it. `outcome` is `done`, `failed`, `interrupted` or `timeout`."""

    outcome: str
    output: Payload | None = None
    error: ErrorInfo | None = None
    duration_us: int = 0
    notes: tuple[str, ...] = ()


Observer = Callable[[StepCall], contextlib.AbstractContextManager[Any]]
"""Is entered around the call of the function: a debugger, a tracer, the guards."""


class Stage:
    """The main thread with one event loop, and the way to interrupt what runs on it.

    To be made before the guards are on: an event loop opens descriptors.
    """

    def __init__(self, timeout: float | None = None, is_busy: Callable[[], bool] = lambda: False) -> None:
        self.loop = asyncio.new_event_loop()
        self.timeout = timeout
        self.observers: list[Observer] = []
        self._is_busy = is_busy
        self._why = ""
        self._running = False
        self._known = set(threading.enumerate())
        signal.signal(signal.SIGINT, self._on_interrupt)
        if timeout is not None:
            signal.signal(signal.SIGALRM, self._on_alarm)

    def perform(self, call: StepCall, *, again: bool = False) -> Performed:
        """Run it. Raises only what an observer raises. `again`: seed what is random differently than the first time."""
        return copy_context().run(self._perform, call, again)

    def _perform(self, call: StepCall, again: bool) -> Performed:
        step, ctx = call.step, call.ctx
        ctx.redactor.adopt(step.workflow.app.redaction)
        ATTEMPT.set(ctx.redactor)
        _seed(f"{ctx.run_id}:{ctx.step}:{ctx.attempt}{':again' if again else ''}")
        threads = threading.active_count()
        began = time.perf_counter_ns()
        try:
            with self._interruptible():
                call.arguments = step.bind(ctx, call.run_input, call.upstream)
                with contextlib.ExitStack() as watched:
                    if step.record_http:
                        watched.enter_context(ctx.record_http())
                    for observer in self.observers:
                        watched.enter_context(observer(call))
                    value = self._call(step, call.arguments)
                output = step.output_adapter.encode(value, step.returned, ctx.redactor)
        except BaseException as exc:
            if getattr(exc, "ends_replay", False):
                raise
            call.raised = exc
            outcome = self._why or "failed"
            error = describe_error(exc, ctx.redactor)
            return Performed(outcome, None, error, _micros(began), self._left_over(call, threads))
        finally:
            ctx.close()
        return Performed("done", output, None, _micros(began), self._left_over(call, threads))

    def _call(self, step: Step[..., Any], arguments: Mapping[str, Any]) -> Any:
        value = step.fn(**arguments)
        if not step.is_async:
            if inspect.isawaitable(value):
                raise not_awaited(step, value)
            return value
        task = self.loop.create_task(value if asyncio.iscoroutine(value) else _awaiting(value), name=step.name)
        try:
            return self.loop.run_until_complete(task)
        except KeyboardInterrupt:
            if task.done():
                raise
        return self._stop(task)

    def _stop(self, task: asyncio.Task[Any]) -> Any:
        """A coroutine that waits is interrupted where it waits: then its own line stands in the traceback."""
        task.cancel()
        self.loop.run_until_complete(asyncio.wait([task], timeout=GRACE))
        if not task.done():
            raise TimeoutError("it was interrupted, and does not stop")
        return task.result()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        self._why, self._running = "", True
        if self.timeout is not None:
            signal.setitimer(signal.ITIMER_REAL, self.timeout, 1.0)
        try:
            yield
        finally:
            self._running = False
            if self.timeout is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_busy():
            return  # half a message would be worse than a second Ctrl-C
        if self._running:
            self._why = "interrupted"
        raise KeyboardInterrupt

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        if self._running and not self._is_busy():
            self._why = "timeout"
            raise KeyboardInterrupt

    def _left_over(self, call: StepCall, before: int) -> tuple[str, ...]:
        """What the step started and left behind. Tasks are cancelled; threads cannot be."""
        notes = []
        tasks = asyncio.all_tasks(self.loop) if call.step.is_async else ()
        if tasks:
            notes.append(f"left {len(tasks)} asyncio task{'s' if len(tasks) > 1 else ''} running; cancelled")
            for task in tasks:
                task.cancel()
            with contextlib.suppress(KeyboardInterrupt):
                self.loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        if threading.active_count() > before:
            new = [t.name for t in threading.enumerate() if t not in self._known and not t.name.startswith(_POOLS)]
            self._known.update(threading.enumerate())
            if new:
                notes.append(f"left {len(new)} thread{'s' if len(new) > 1 else ''} running: {', '.join(new[:3])}")
        return tuple(notes)


async def _awaiting(value: Any) -> Any:
    return await value


def _micros(began: int) -> int:
    return (time.perf_counter_ns() - began) // 1000


def _seed(text: str) -> None:
    """Two replays of a step draw the same from `random`; what the run drew then is not known."""
    random.seed(text)
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        with contextlib.suppress(Exception):
            numpy.seed(random.getrandbits(32))
