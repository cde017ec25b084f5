"""Keeps a coroutine to its time, inside the current task.

No task of its own for each attempt: a timer cancels the current one. A body that does not stop within the
grace time after its cancellation is let go of: it continues in a task by itself, recorded as abandoned.
"""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any

from kairos.authoring.context import StepContext
from kairos.authoring.threads import Threads

GRACE_SECONDS = 5.0
"""How long a cancelled coroutine may take to stop."""


class Guard:
    """Watches one body.

    Attributes:
        timed_out: the time was up before the body ended.
        cancelled_from_outside: somebody else cancelled the task while the body ran.
        closed: the coroutine that runs the body was closed, not cancelled; let the exception through.
    """

    __slots__ = (
        "_cancels",
        "_ctx",
        "_given_up",
        "_grace",
        "_seconds",
        "_started",
        "_task",
        "_threads",
        "_timer",
        "cancelled_from_outside",
        "closed",
        "timed_out",
    )

    def __init__(self, ctx: StepContext, threads: Threads, seconds: float | None) -> None:
        self._ctx = ctx
        self._threads = threads
        self._seconds = seconds
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._given_up = False
        self._cancels = 0
        self._started = 0.0
        self.timed_out = False
        self.cancelled_from_outside = False
        self.closed = False

    @types.coroutine
    def run(self, body: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Await `body` for as long as it may take; it can be left behind where it stands.

        Raises:
            RuntimeError: the body waits for something outside an asyncio task.
        """
        if not hasattr(body, "send"):
            body = _awaiting(body)
        task: asyncio.Task[Any] | None = None
        before = 0
        self._started = time.monotonic()
        error: BaseException | None = None
        try:
            while True:
                try:
                    waits_for = body.send(None) if error is None else body.throw(error)
                except StopIteration as stop:
                    return stop.value
                error = None
                if task is None:
                    # Only now: a body that never waits cannot be interrupted, and setting a timer takes time.
                    task = self._task = asyncio.current_task()
                    if task is None:
                        body.close()
                        raise RuntimeError("a step must run inside an asyncio task")
                    before = task.cancelling()
                    if self._seconds is not None:
                        self._timer = self._arm(self._seconds)
                try:
                    yield waits_for
                except GeneratorExit:
                    self.closed = True
                    body.close()
                    raise
                except BaseException as exc:
                    if self._given_up:
                        self._leave_behind(body, exc)
                        raise asyncio.CancelledError from None
                    if isinstance(exc, asyncio.CancelledError) and self._grace is None and self._is_cancelled():
                        self._grace = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._give_up)
                    error = exc
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._grace is not None:
                self._grace.cancel()
            if task is not None:
                for _ in range(self._cancels):
                    task.uncancel()
                self.cancelled_from_outside = task.cancelling() > before

    def forgive(self) -> None:
        """Take back the cancellation of the task: the attempt ends with an outcome instead."""
        while self._task is not None and self._task.cancelling():
            self._task.uncancel()

    def _is_cancelled(self) -> bool:
        return self._task is not None and self._task.cancelling() > 0

    def _arm(self, seconds: float) -> asyncio.TimerHandle:
        passed = time.monotonic() - self._started
        return asyncio.get_running_loop().call_later(max(0.0, seconds - passed), self._time_is_up)

    def _time_is_up(self) -> None:
        self.timed_out = True
        self._ctx.cancel("timeout")
        self._cancel()

    def _give_up(self) -> None:
        self._given_up = True
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._cancels += 1
            self._task.cancel()

    def _leave_behind(self, body: Coroutine[Any, Any, Any], exc: BaseException) -> None:
        task = asyncio.get_running_loop().create_task(_finish(body, exc), name=f"abandoned {self._ctx.step}")
        ctx = self._ctx
        self._threads.abandon_task(
            task, body, run_id=ctx.run_id, step=ctx.step, attempt=ctx.attempt, started=self._started
        )


async def _awaiting(body: Awaitable[Any]) -> Any:
    return await body


async def _finish(body: Coroutine[Any, Any, Any], exc: BaseException) -> None:
    try:
        await _resume(body, exc)
    except BaseException:
        pass  # nobody is left to hear of it


@types.coroutine
def _resume(body: Coroutine[Any, Any, Any], error: BaseException | None) -> Generator[Any, Any, Any]:
    while True:
        try:
            waits_for = body.send(None) if error is None else body.throw(error)
        except StopIteration:
            return
        error = None
        try:
            yield waits_for
        except GeneratorExit:
            body.close()
            raise
        except BaseException as exc:
            error = exc
