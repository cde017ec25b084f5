"""Runs blocking functions in daemon threads, and keeps count of those that were given up on.

A Python thread cannot be stopped. One that outlives its attempt is recorded until it ends; its place is
taken by a new thread, so nothing waits for it, and neither does the exit of the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Generic, TypeVar

from kairos.domain.error_info import Frame
from kairos.usercode import is_user_file

T = TypeVar("T")

IDLE_SECONDS = 60.0
"""An idle thread ends after this long."""


@dataclass(frozen=True, slots=True, eq=False)
class Abandoned:
    """A body that still runs although its attempt is over.

    Attributes:
        started_at: when its attempt began, by the wall clock; `started`: by the monotonic one.
        thread: name of its thread, or of its asyncio task.
        stack: where it is right now, outermost frame first.
    """

    run_id: str
    step: str
    attempt: int
    started_at: datetime
    started: float
    thread: str
    stack: Callable[[], tuple[Frame, ...]] = field(repr=False)

    @property
    def age(self) -> float:
        """Seconds since its attempt began."""
        return time.monotonic() - self.started

    @property
    def where(self) -> str:
        """The line of the user's code it stands at: `file.py:12 fetch`."""
        frames = self.stack()
        own = [frame for frame in frames if is_user_file(frame.file)] or list(frames)
        return f"{own[-1].file}:{own[-1].line} {own[-1].function}" if own else ""


class Call(Generic[T]):
    """A function handed to a thread. `future` belongs to the event loop that submitted it."""

    __slots__ = ("context", "ended", "fn", "future", "loop", "thread")

    def __init__(self, fn: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self.fn = fn
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()
        self.context = contextvars.copy_context()
        self.thread: threading.Thread | None = None
        self.ended = False

    def run(self, before_telling: Callable[[], None]) -> None:
        """Run it here, and hand the result to the loop."""
        result: T | None = None
        error: BaseException | None = None
        try:
            result = self.context.run(self.fn)
        except BaseException as exc:
            error = exc
        self.fn = self.context = None  # type: ignore[assignment]
        before_telling()
        try:
            self.loop.call_soon_threadsafe(self._settle, result, error)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        elif isinstance(error, StopIteration):
            self.future.set_exception(RuntimeError("the function raised StopIteration"))
        else:
            self.future.set_exception(error)


class Threads:
    """A pool that grows as needed and shrinks when idle. Limits are the business of who submits."""

    def __init__(self, name: str = "kairos") -> None:
        self.name = name
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._abandoned: dict[int, Abandoned] = {}
        self._count = 0
        self._pid = os.getpid()

    def submit(self, fn: Callable[[], T]) -> Call[T]:
        """Start `fn` in a thread, with the caller's context variables. Await the result's `future`."""
        call = Call(fn, asyncio.get_running_loop())
        with self._lock:
            if self._pid != os.getpid():
                # After a fork the threads exist only in the parent.
                self._idle, self._pid = [], os.getpid()
                self._abandoned = {}
            worker = self._idle.pop() if self._idle else self._hire()
        if worker.thread.ident is None:
            worker.thread.start()
        worker.inbox.put(call)
        return call

    @property
    def abandoned(self) -> list[Abandoned]:
        """Bodies that outlived their attempt and still run, oldest first."""
        with self._lock:
            return list(self._abandoned.values())

    def abandon(self, call: Call[Any], *, run_id: str, step: str, attempt: int, started: float) -> None:
        """Record that nobody waits for `call` any more."""
        with self._lock:
            if call.ended:
                return
            thread = call.thread
            name = thread.name if thread else "starting"
            self._abandoned[id(call)] = _record(
                run_id, step, attempt, started, name, lambda: _plain(frames_of(call.thread))
            )

    def abandon_task(
        self, task: asyncio.Task[Any], body: object, *, run_id: str, step: str, attempt: int, started: float
    ) -> None:
        """Record a coroutine that does not react to its cancellation; `task` carries `body` on."""
        record = _record(run_id, step, attempt, started, task.get_name(), lambda: _plain(_frames_of_coroutine(body)))
        with self._lock:
            self._abandoned[id(task)] = record
        task.add_done_callback(self._forget)

    def _hire(self) -> _Worker:
        self._count += 1
        return _Worker(self, f"{self.name}-{self._count}")

    def _forget(self, owner: object) -> None:
        with self._lock:
            self._abandoned.pop(id(owner), None)

    def _finished(self, worker: _Worker, call: Call[Any]) -> None:
        with self._lock:
            call.ended = True
            self._abandoned.pop(id(call), None)
            if self._pid == os.getpid():
                self._idle.append(worker)

    def _retire(self, worker: _Worker) -> bool:
        with self._lock:
            if worker not in self._idle:
                return False  # it has just been given work
            self._idle.remove(worker)
            return True


class _Worker:
    __slots__ = ("inbox", "pool", "thread")

    def __init__(self, pool: Threads, name: str) -> None:
        self.pool = pool
        self.inbox: SimpleQueue[Call[Any]] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)

    def _work(self) -> None:
        while True:
            try:
                call = self.inbox.get(timeout=IDLE_SECONDS)
            except Empty:
                if self.pool._retire(self):
                    return
                continue
            call.thread = self.thread
            # Idle again before the loop hears of it, so that the next call finds this thread.
            call.run(functools.partial(self.pool._finished, self, call))
            del call  # or an idle thread would keep the last result alive


def _record(
    run_id: str, step: str, attempt: int, started: float, thread: str, stack: Callable[[], tuple[Frame, ...]]
) -> Abandoned:
    started_at = datetime.fromtimestamp(time.time() - (time.monotonic() - started), UTC)
    return Abandoned(run_id, step, attempt, started_at, started, thread, stack)


def frames_of(thread: threading.Thread | None) -> list[FrameType]:
    """Where a thread stands right now, outermost frame first."""
    frame = sys._current_frames().get(thread.ident or -1) if thread else None
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _frames_of_coroutine(body: object) -> list[FrameType]:
    frames: list[FrameType] = []
    while body is not None:
        frame = getattr(body, "cr_frame", None) or getattr(body, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        body = getattr(body, "cr_await", None) or getattr(body, "gi_yieldfrom", None)
    return frames


def _plain(frames: list[FrameType]) -> tuple[Frame, ...]:
    return tuple(Frame(f.f_code.co_filename, f.f_lineno, f.f_code.co_qualname) for f in frames)
