"""Runs one attempt of one step: decode its inputs, call it, check and encode what it returns.

The only place that does. Worker, isolated child, `run_inline` and replay share it, so a step behaves and
fails the same everywhere, to the letter. Knows nothing of runs, queues, retries or the database.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from msgspec import Struct

from kairos.authoring.context import StepCancelled, StepContext
from kairos.authoring.failure import describe_error, describe_stack, one_line
from kairos.authoring.guard import Guard
from kairos.authoring.redaction import ATTEMPT
from kairos.authoring.step import Step
from kairos.authoring.threads import Call, Threads, frames_of
from kairos.domain.duration import format_duration
from kairos.domain.error_info import ErrorInfo
from kairos.domain.payload import Payload
from kairos.errors import PayloadError, StepTimeout


class Succeeded(Struct, frozen=True, gc=False):
    """The step returned; `output` is checked and encoded."""

    output: Payload


class Failed(Struct, frozen=True, gc=False):
    """The step raised, ran out of time, or returned something that cannot be stored.

    `retryable`: whether another attempt makes sense, as far as the error tells.
    """

    error: ErrorInfo
    retryable: bool
    timed_out: bool = False


class Cancelled(Struct, frozen=True, gc=False):
    """The body was stopped because its run was cancelled or its lease was lost."""


Outcome = Succeeded | Failed | Cancelled


def bind(step: Step[..., Any], ctx: StepContext, run_input: bytes, upstream: Mapping[str, bytes]) -> dict[str, Any]:
    """The arguments of one attempt. See `Step.bind`."""
    return step.bind(ctx, run_input, upstream)


async def run_attempt(
    step: Step[..., Any],
    ctx: StepContext,
    run_input: bytes,
    upstream: Mapping[str, bytes],
    *,
    threads: Threads,
    timeout: timedelta | None,
) -> Outcome:
    """Run one attempt to its outcome.

    `upstream` holds the recorded output of every step that this one reads. Never raises because of what
    the step does.

    Raises:
        asyncio.CancelledError: the calling task was cancelled from outside while `ctx.cancelled` was False.
    """
    seconds = None if timeout is None else timeout.total_seconds()
    redactor = ctx.redactor
    # Taken from the app itself: a context made without the rules must not let anything through.
    redactor.adopt(step.workflow.app.redaction)
    before = ATTEMPT.get()
    ATTEMPT.set(redactor)
    recording = ctx.record_http() if step.record_http else None
    try:
        if recording is not None:
            recording.__enter__()  # here: a thread begins with the context variables of whoever submits to it
        if not step.is_async:
            return await _run_in_thread(step, ctx, run_input, upstream, threads, seconds)
        try:
            arguments = step.bind(ctx, run_input, upstream)
        except BaseException as exc:
            return Failed(describe_error(exc, redactor), retryable=False)
        guard = Guard(ctx, threads, seconds)
        outcome: Outcome | None = None
        stopped_by: BaseException | None = None
        try:
            value = await guard.run(step.fn(**arguments))
            if not guard.timed_out:
                outcome = _mismatched(ctx) or Succeeded(step.output_adapter.encode(value, step.returned, redactor))
        except BaseException as exc:
            if guard.closed:
                raise
            if guard.cancelled_from_outside and not ctx.cancelled:
                raise asyncio.CancelledError from None
            stopped_by = exc
            if not guard.timed_out:
                outcome = Cancelled() if guard.cancelled_from_outside else _judge(step, ctx, exc)
        if guard.cancelled_from_outside:
            guard.forgive()
        return outcome or _timed_out(step, ctx, seconds, stopped_by)
    finally:
        ATTEMPT.set(before)
        if recording is not None:
            recording.__exit__(None, None, None)
        ctx.close()


async def _run_in_thread(
    step: Step[..., Any],
    ctx: StepContext,
    run_input: bytes,
    upstream: Mapping[str, bytes],
    threads: Threads,
    seconds: float | None,
) -> Outcome:
    started = time.monotonic()
    try:
        call = threads.submit(lambda: _call(step, ctx, run_input, upstream))
    except Exception as exc:  # no more threads, no more memory
        return _judge(step, ctx, exc)
    timer = None if seconds is None else call.loop.call_later(seconds, _expire, call)
    try:
        outcome = await call.future
    except asyncio.CancelledError:
        was_asked = ctx.cancelled
        ctx.cancel("nobody waits for this step any more")
        _abandon(threads, call, ctx, started)
        if not was_asked:
            raise
        _uncancel()
        # It may have ended at the very moment in which it was cancelled; then its outcome counts.
        outcome = Cancelled() if call.future.cancelled() else call.future.result()
    finally:
        if timer is not None:
            timer.cancel()
    return outcome or _out_of_time(step, ctx, call, threads, seconds, started)


def _expire(call: Call[Outcome | None]) -> None:
    if not call.future.done():
        call.future.set_result(None)


def _out_of_time(
    step: Step[..., Any],
    ctx: StepContext,
    call: Call[Outcome | None],
    threads: Threads,
    seconds: float | None,
    started: float,
) -> Failed:
    ctx.cancel("timeout")
    where = describe_stack(frames_of(call.thread), ctx.redactor)
    _abandon(threads, call, ctx, started)
    timeout = _timeout_error(step, seconds)
    error = describe_error(timeout, ctx.redactor)
    error = ErrorInfo(error.type, error.message, where, hint=_STUCK)
    return Failed(error, step.retry.is_retryable(timeout), timed_out=True)


_STUCK = (
    "The function runs in a thread, which cannot be stopped; it goes on in the background until it returns. "
    "Give its blocking calls a timeout of their own, or call ctx.heartbeat() in its loops."
)


def _call(step: Step[..., Any], ctx: StepContext, run_input: bytes, upstream: Mapping[str, bytes]) -> Outcome | None:
    """A whole attempt, in its thread: also decoding and encoding, which may take long for large values."""
    try:
        arguments = step.bind(ctx, run_input, upstream)
    except BaseException as exc:
        return Failed(describe_error(exc, ctx.redactor), retryable=False)
    try:
        value = step.fn(**arguments)
        if inspect.isawaitable(value):
            raise not_awaited(step, value)
        return _mismatched(ctx) or Succeeded(step.output_adapter.encode(value, step.returned, ctx.redactor))
    except BaseException as exc:
        return _judge(step, ctx, exc)


def _mismatched(ctx: StepContext) -> Failed | None:
    """A step that went on after an effect which was not the recorded one has failed all the same."""
    mismatch = ctx.mismatch
    if mismatch is None:
        return None
    ctx.raised(mismatch)
    return Failed(describe_error(mismatch, ctx.redactor), retryable=False)


def _judge(step: Step[..., Any], ctx: StepContext, exc: BaseException) -> Outcome:
    if isinstance(exc, StepCancelled | asyncio.CancelledError) and ctx.cancelled:
        return Cancelled()
    failed = _mismatched(ctx)
    if failed is not None:
        return failed
    ctx.raised(exc)
    return Failed(describe_error(exc, ctx.redactor), step.retry.is_retryable(exc))


def _timed_out(
    step: Step[..., Any], ctx: StepContext, seconds: float | None, stopped_by: BaseException | None = None
) -> Failed:
    timeout = _timeout_error(step, seconds)
    error = describe_error(timeout, ctx.redactor)
    notes: tuple[str, ...] = ()
    if stopped_by is not None:
        seen = describe_error(stopped_by, ctx.redactor)
        if not isinstance(stopped_by, asyncio.CancelledError):
            notes = (f"while it was being stopped: {one_line(stopped_by, ctx.redactor)}",)
        error = ErrorInfo(error.type, error.message, seen.frames, seen.locals, notes)
    return Failed(error, step.retry.is_retryable(timeout), timed_out=True)


def _timeout_error(step: Step[..., Any], seconds: float | None) -> StepTimeout:
    limit = format_duration(timedelta(seconds=seconds or 0))
    return StepTimeout(f"step {step.name!r} took longer than its timeout of {limit}")


def not_awaited(step: Step[..., Any], value: Any) -> PayloadError:
    """The error for a plain function that returned something to await; closes it."""
    close = getattr(value, "close", None)
    if callable(close):
        close()
    return PayloadError(
        f"step {step.name!r} returned a {type(value).__name__}, which nobody awaits",
        hint="Define the step with `async def`; a decorator may hide that it is one.",
    )


def _abandon(threads: Threads, call: Call[Outcome | None], ctx: StepContext, started: float) -> None:
    threads.abandon(call, run_id=ctx.run_id, step=ctx.step, attempt=ctx.attempt, started=started)


def _uncancel() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
