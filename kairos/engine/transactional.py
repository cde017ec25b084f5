"""Runs transactional steps: what the body writes and the step's completion commit together, exactly once.

The body gets a psycopg connection inside an open transaction; only after it has returned is the run's head
locked, the completion appended, and all of it committed. A worker that is fenced meanwhile rolls back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar, cast
from uuid import UUID

import psycopg
from psycopg import Connection

from kairos.authoring import Step, StepContext
from kairos.authoring.context import StepCancelled
from kairos.authoring.executor import Failed, Outcome, Succeeded, run_attempt
from kairos.authoring.failure import describe_error
from kairos.authoring.threads import Threads
from kairos.domain.commands import FinishStep
from kairos.domain.events import StepStarted
from kairos.errors import StaleWrite
from kairos.store.connect import is_transient, open_async, open_sync
from kairos.store.failpoints import failpoint
from kairos.store.history import Advanced, Conn, Definitions, History
from kairos.store.queries import query

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Committed:
    """The completion is in the log already."""


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The connection broke around the commit: the log tells whether it happened."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """The attempt was no longer ours; its writes were rolled back."""


Ended = Outcome | Committed | Uncertain | Fenced


@dataclass(frozen=True, slots=True)
class Transactional:
    """One attempt of a transactional step.

    Attributes:
        epoch: of the owner's claim; None for a helper, whose token alone fences it.
        is_helper: the step came as a task, which is removed in the same transaction.
    """

    dsn: str
    definitions: Definitions
    run_id: UUID
    epoch: int | None
    event: StepStarted
    is_helper: bool

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for the child process of a suspect. Holds the password: pipes only."""
        e = self.event
        started = [e.step, e.attempt, e.token, e.input_hash, e.worker]
        return {
            "dsn": self.dsn,
            "run_id": str(self.run_id),
            "epoch": self.epoch,
            "started": started,
            "is_helper": self.is_helper,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Transactional:
        """The inverse of `to_json`, in a process that knows no definitions yet."""
        step, attempt, token, inputs, worker = data["started"]
        event = StepStarted(step=step, attempt=attempt, token=token, input_hash=inputs, worker=worker, isolated=True)
        return cls(data["dsn"], Definitions(), UUID(data["run_id"]), data["epoch"], event, data["is_helper"])

    async def run(
        self,
        step: Step[..., Any],
        ctx: StepContext,
        run_input: bytes,
        upstream: Mapping[str, bytes],
        *,
        threads: Threads,
        timeout: timedelta | None,
    ) -> Ended:
        """Run the body and commit."""
        limit = f"{int((timeout or timedelta(days=1)).total_seconds()) + 60}s"
        settings = {"idle_in_transaction_session_timeout": limit, "statement_timeout": limit}
        began = time.perf_counter_ns()
        try:
            if step.is_async:
                return await self._run_async(step, ctx, run_input, upstream, threads, timeout, settings, began)
            return await self._run_blocking(step, ctx, run_input, upstream, threads, timeout, settings, began)
        except StaleWrite:
            return Fenced()
        except psycopg.Error as exc:
            # Not the body's (those are outcomes), but of the commit: a deferred constraint, or the connection.
            return Uncertain() if is_transient(exc) else Failed(describe_error(exc, ctx.redactor), retryable=True)

    async def _run_async(
        self, step: Step[..., Any], ctx: StepContext, run_input: bytes, upstream: Mapping[str, bytes],
        threads: Threads, timeout: timedelta | None, settings: dict[str, str], began: int,
    ) -> Ended:  # fmt: skip
        conn = await open_async(self.dsn, "kairos step", **settings)
        ended: Ended = Fenced()
        try:
            # Within this block psycopg refuses commit() and rollback(): the body cannot break the promise.
            async with conn.transaction() as tx:
                ctx.connection = conn
                ended = await run_attempt(step, ctx, run_input, upstream, threads=threads, timeout=timeout)
                if not isinstance(ended, Succeeded):
                    raise psycopg.Rollback(tx)
                await _settle(ctx)
                await self._finish(conn, ended, began)
                ended = Committed()
                failpoint("before_commit")
            failpoint("after_commit")
        finally:
            ctx.connection = None
            await conn.close()
        return ended

    async def _run_blocking(
        self, step: Step[..., Any], ctx: StepContext, run_input: bytes, upstream: Mapping[str, bytes],
        threads: Threads, timeout: timedelta | None, settings: dict[str, str], began: int,
    ) -> Ended:  # fmt: skip
        conn = await asyncio.to_thread(open_sync, self.dsn, "kairos step", **settings)
        try:
            tx: Any = conn.transaction()
            await asyncio.to_thread(tx.__enter__)
            ctx.connection = conn
            ended = await run_attempt(step, ctx, run_input, upstream, threads=threads, timeout=timeout)
            if isinstance(ended, Succeeded):
                await _settle(ctx)
            return await asyncio.to_thread(self._end_blocking, conn, tx, ended, began)
        finally:
            ctx.connection = None
            # Closing rolls back whatever is open, also under a body that timed out and still uses it.
            conn.close()

    def _end_blocking(self, conn: Connection[Any], tx: Any, ended: Outcome, began: int) -> Ended:
        if not isinstance(ended, Succeeded):
            return ended
        _run_now(self._finish(cast(Conn, _Face(conn)), ended, began))
        failpoint("before_commit")
        tx.__exit__(None, None, None)
        failpoint("after_commit")
        return Committed()

    async def _finish(self, conn: Conn, succeeded: Succeeded, began: int) -> None:
        """Append the completion inside the body's transaction."""
        e = self.event
        micros = (time.perf_counter_ns() - began) // 1000
        command = FinishStep(e.step, e.attempt, e.token, succeeded.output, micros)

        async def within(inner: Conn, done: Advanced) -> None:
            if self.is_helper:
                params = {"run_id": self.run_id, "steps": [e.step], "worker": None, "token": e.token}
                await inner.execute(query("delete_step_tasks"), params)
            notice = {"channel": "kairos_task", "payload": f"run:{self.run_id.hex}"}
            await inner.execute(query("notify"), notice)

        history = History(self.definitions)
        done = await history.advance(conn, self.run_id, [command], within=within, epoch=self.epoch)
        if done.refused:
            raise StaleWrite(f"step {e.step!r} of run {self.run_id}: {done.refused[0][1].reason}")


async def _settle(ctx: StepContext) -> None:
    """Its effects first: they are recorded outside of the transaction, and an attempt that is done records no more."""
    try:
        await ctx.settled()
    except StepCancelled as exc:
        raise StaleWrite(f"step {ctx.step!r} of run {ctx.run_id}: {exc}") from None


class _Cursor:
    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    async def fetchone(self) -> Any:
        return self._cursor.fetchone()

    async def fetchall(self) -> Any:
        return self._cursor.fetchall()


class _Block:
    def __init__(self, block: Any) -> None:
        self._block = block

    async def __aenter__(self) -> Any:
        return self._block.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> Any:
        return self._block.__exit__(kind, exc, tb)


class _Face:
    """The part of an async connection that `History.advance` uses, on a blocking one: it never suspends."""

    def __init__(self, conn: Connection[Any]) -> None:
        self._conn = conn

    async def execute(self, *args: Any, **kwargs: Any) -> _Cursor:
        return _Cursor(self._conn.execute(*args, **kwargs))

    def transaction(self) -> _Block:
        return _Block(self._conn.transaction())


def _run_now(work: Coroutine[Any, Any, T]) -> T:
    try:
        work.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    raise RuntimeError("work on a blocking connection must not suspend")
