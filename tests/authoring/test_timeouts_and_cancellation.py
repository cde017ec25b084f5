"""Steps that take too long, and steps that are told to stop: sync, async, willing and stubborn."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from authoring_support import attempt, context, error_of, new_workflow, output_of, wait_until

from kairos.authoring import Retry, Step, StepCancelled, StepContext, guard
from kairos.authoring.executor import Cancelled, Failed, Outcome, Succeeded, run_attempt
from kairos.authoring.threads import Threads


def begin(
    step: Step[..., Any], ctx: StepContext, threads: Threads, timeout: float | None = None
) -> asyncio.Task[Outcome]:
    limit = None if timeout is None else timedelta(seconds=timeout)
    return asyncio.get_running_loop().create_task(run_attempt(step, ctx, b"null", {}, threads=threads, timeout=limit))


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "GRACE_SECONDS", 0.05)


def test_an_async_step_is_stopped_at_its_timeout_and_shows_where_it_was() -> None:
    wf = new_workflow()

    @wf.step
    async def charge() -> None:
        order = "42"  # noqa: F841
        await asyncio.sleep(60)

    outcome = attempt(charge, timeout=0.02)
    assert isinstance(outcome, Failed)
    assert outcome.timed_out
    assert outcome.retryable
    assert outcome.error.type == "kairos.errors.StepTimeout"
    assert outcome.error.message == "step 'charge' took longer than its timeout of 20ms"
    assert outcome.error.frames[0].code == "await asyncio.sleep(60)"
    assert outcome.error.locals == {"order": "'42'"}


def test_the_text_of_a_timeout_names_the_limit_as_people_write_it() -> None:
    wf = new_workflow()

    @wf.step(timeout="30s")
    def charge() -> None: ...

    from kairos.authoring.executor import _timeout_error

    assert charge.spec.timeout == timedelta(seconds=30)
    assert str(_timeout_error(charge, 30.0)) == "step 'charge' took longer than its timeout of 30s"


def test_a_sync_step_fails_at_its_timeout_while_its_thread_goes_on() -> None:
    wf = new_workflow()
    release = threading.Event()
    threads = Threads("test")
    ctx = context()

    @wf.step
    def charge() -> None:
        release.wait(30)

    outcome = attempt(charge, ctx=ctx, threads=threads, timeout=0.05)
    assert isinstance(outcome, Failed)
    assert outcome.timed_out
    assert outcome.error.message == "step 'charge' took longer than its timeout of 50ms"
    assert outcome.error.frames[0].code == "release.wait(30)"
    assert ctx.cancelled

    [left] = threads.abandoned
    assert (left.run_id, left.step, left.attempt) == (ctx.run_id, "charge", 1)
    assert left.age >= 0.05
    assert "test_timeouts_and_cancellation.py" in left.where
    assert any(frame.function.endswith("charge") for frame in left.stack())
    release.set()
    wait_until(lambda: not threads.abandoned)


def test_a_thread_that_is_out_of_time_learns_it_from_its_heartbeat() -> None:
    wf = new_workflow()
    threads = Threads("test")
    ended: list[BaseException] = []

    @wf.step
    def charge(ctx: StepContext) -> None:
        try:
            while True:
                ctx.heartbeat()
                time.sleep(0.001)
        except BaseException as exc:
            ended.append(exc)
            raise

    assert isinstance(attempt(charge, threads=threads, timeout=0.05), Failed)
    wait_until(lambda: not threads.abandoned)
    assert isinstance(ended[0], StepCancelled)


def test_stuck_threads_do_not_hold_up_other_steps() -> None:
    wf = new_workflow()
    release = threading.Event()
    threads = Threads("test")

    @wf.step
    def stuck() -> None:
        release.wait(30)

    @wf.step
    def quick() -> int:
        return 1

    for _ in range(5):
        attempt(stuck, threads=threads, timeout=0.01)
    assert len(threads.abandoned) == 5
    assert output_of(attempt(quick, threads=threads)) == 1
    release.set()
    wait_until(lambda: not threads.abandoned)


def test_a_timeout_is_retried_only_if_the_policy_says_so() -> None:
    wf = new_workflow()

    @wf.step(retry=Retry(retry_on=ConnectionError))
    async def charge() -> None:
        await asyncio.sleep(60)

    outcome = attempt(charge, timeout=0.01)
    assert isinstance(outcome, Failed)
    assert outcome.timed_out
    assert not outcome.retryable


def test_an_async_step_that_returns_in_spite_of_its_timeout_is_out_of_time() -> None:
    wf = new_workflow()

    @wf.step
    async def charge() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return 1
        return 2

    outcome = attempt(charge, timeout=0.01)
    assert isinstance(outcome, Failed)
    assert outcome.timed_out


def test_what_a_step_raises_while_it_is_stopped_is_noted() -> None:
    wf = new_workflow()

    @wf.step
    async def charge() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("cannot clean up")

    error = error_of(attempt(charge, timeout=0.01))
    assert error.type == "kairos.errors.StepTimeout"
    assert error.notes == ("while it was being stopped: ValueError: cannot clean up",)


@pytest.mark.usefixtures("short_grace")
def test_an_async_step_that_will_not_stop_is_abandoned_after_the_grace() -> None:
    wf = new_workflow()
    threads = Threads("test")
    cancels = 0

    @wf.step
    async def charge() -> None:
        nonlocal cancels
        while cancels < 3:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancels += 1

    async def scene() -> None:
        task = begin(charge, context(), threads, timeout=0.01)
        outcome = await asyncio.wait_for(task, 10)
        assert isinstance(outcome, Failed)
        assert outcome.timed_out
        await asyncio.sleep(0)
        [left] = threads.abandoned
        assert left.step == "charge"
        assert "test_timeouts_and_cancellation.py" in left.where
        [body] = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        body.cancel()
        await asyncio.wait([body])
        assert threads.abandoned == []

    asyncio.run(scene())
    assert cancels == 3


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_an_async_step_is_cancelled_by_cancelling_its_task(timeout: float | None) -> None:
    wf = new_workflow()
    started = asyncio.Event()

    @wf.step
    async def charge() -> None:
        started.set()
        await asyncio.sleep(60)

    async def scene() -> Outcome:
        ctx = context()
        task = begin(charge, ctx, Threads("test"), timeout)
        await started.wait()
        ctx.cancel("the run was cancelled")
        task.cancel()
        return await task

    assert asyncio.run(scene()) == Cancelled()


def test_the_task_of_a_cancelled_attempt_can_go_on() -> None:
    wf = new_workflow()
    started = asyncio.Event()

    @wf.step
    async def charge() -> None:
        started.set()
        await asyncio.sleep(60)

    async def report() -> str:
        outcome = await run_attempt(charge, ctx, b"null", {}, threads=Threads("test"), timeout=None)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return type(outcome).__name__

    ctx = context()

    async def scene() -> str:
        task = asyncio.create_task(report())
        await started.wait()
        ctx.cancel("lease lost")
        task.cancel()
        return await task

    assert asyncio.run(scene()) == "Cancelled"


@pytest.mark.parametrize("is_async", [False, True])
def test_cancelling_the_task_without_telling_the_context_raises_cancelled_error(is_async: bool) -> None:
    wf = new_workflow()
    release = threading.Event()
    began = threading.Event()
    threads = Threads("test")

    async def wait_async() -> None:
        began.set()
        await asyncio.sleep(60)

    def wait() -> None:
        began.set()
        release.wait(30)

    step = wf.step(wait_async if is_async else wait)

    async def scene() -> None:
        task = begin(step, context(), threads)
        while not began.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(scene())
    release.set()
    wait_until(lambda: not threads.abandoned)


def test_cancelling_a_sync_step_leaves_its_thread_behind() -> None:
    wf = new_workflow()
    release = threading.Event()
    began = threading.Event()
    threads = Threads("test")

    @wf.step
    def wait() -> None:
        began.set()
        release.wait(30)

    async def scene() -> Outcome:
        ctx = context()
        task = begin(wait, ctx, threads)
        while not began.is_set():
            await asyncio.sleep(0.001)
        ctx.cancel("the run was cancelled")
        task.cancel()
        return await task

    assert asyncio.run(scene()) == Cancelled()
    assert len(threads.abandoned) == 1
    release.set()
    wait_until(lambda: not threads.abandoned)


def test_a_timeout_and_a_cancellation_at_the_same_moment_have_one_outcome() -> None:
    wf = new_workflow()
    release = threading.Event()
    threads = Threads("test")

    @wf.step
    def wait() -> None:
        release.wait(30)

    async def scene() -> Outcome:
        ctx = context()
        loop = asyncio.get_running_loop()
        task = begin(wait, ctx, threads, timeout=0.01)

        def cancel() -> None:
            ctx.cancel("the run was cancelled")
            task.cancel()

        await asyncio.sleep(0)
        loop.call_later(0.012, cancel)
        time.sleep(0.05)  # both timers are due when the loop looks again
        return await task

    outcome = asyncio.run(scene())
    assert isinstance(outcome, Failed)
    assert outcome.timed_out
    release.set()
    wait_until(lambda: not threads.abandoned)


@pytest.mark.usefixtures("short_grace")
def test_a_cancelled_step_that_will_not_stop_is_abandoned_too() -> None:
    wf = new_workflow()
    threads = Threads("test")
    started = asyncio.Event()
    stop = asyncio.Event()

    @wf.step
    async def charge() -> None:
        started.set()
        while not stop.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass

    async def scene() -> Outcome:
        ctx = context()
        task = begin(charge, ctx, threads)
        await started.wait()
        ctx.cancel("lease lost")
        task.cancel()
        outcome = await task
        assert len(threads.abandoned) == 1
        stop.set()
        while threads.abandoned:
            await asyncio.sleep(0.001)
        return outcome

    assert asyncio.run(scene()) == Cancelled()


def test_a_step_that_finishes_while_it_is_being_cancelled_has_succeeded() -> None:
    wf = new_workflow()
    started = asyncio.Event()

    @wf.step
    async def charge() -> int:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return 5
        return 0

    async def scene() -> Outcome:
        ctx = context()
        task = begin(charge, ctx, Threads("test"))
        await started.wait()
        ctx.cancel("lease lost")
        task.cancel()
        return await task

    assert isinstance(asyncio.run(scene()), Succeeded)


async def _wait_for(seconds: float) -> int:
    async with asyncio.timeout(seconds):
        await asyncio.sleep(60)
    return 0


async def _in_task_group(seconds: float) -> int:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(seconds))
    return 1


async def _cancel_a_future(seconds: float) -> int:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, future.cancel)
    await future
    return 0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_wait_for, "builtins.TimeoutError"),
        (_in_task_group, 1),
        (_cancel_a_future, "asyncio.exceptions.CancelledError"),
    ],
)
def test_cancellation_inside_a_step_is_its_own_affair(
    body: Callable[[float], Coroutine[Any, Any, int]], expected: object
) -> None:
    wf = new_workflow()

    @wf.step
    async def charge() -> int:
        return await body(0.005)

    outcome = attempt(charge)
    if isinstance(expected, int):
        assert output_of(outcome) == expected
    else:
        assert isinstance(outcome, Failed)
        assert not outcome.timed_out
        assert outcome.error.type == expected


def test_closing_the_attempt_closes_the_step() -> None:
    wf = new_workflow()
    closed: list[bool] = []

    @wf.step
    async def charge() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    async def scene() -> None:
        coroutine = run_attempt(charge, context(), b"null", {}, threads=Threads("test"), timeout=None)
        iterator = coroutine.__await__()
        next(iterator)
        coroutine.close()

    asyncio.run(scene())
    assert closed == [True]


def test_finished_results_are_not_kept_alive_by_idle_threads() -> None:
    threads = Threads("test")
    held: list[int] = []

    class Big:
        def __del__(self) -> None:
            held.append(1)

    async def scene() -> None:
        assert isinstance(await threads.submit(Big).future, Big)

    asyncio.run(scene())
    gc.collect()
    wait_until(lambda: held == [1])


def test_threads_are_used_again() -> None:
    threads = Threads("test")

    async def scene() -> set[str]:
        return {await threads.submit(lambda: threading.current_thread().name).future for _ in range(50)}

    assert asyncio.run(scene()) == {"test-1"}


def test_a_stuck_step_does_not_keep_the_process_alive(tmp_path: Path) -> None:
    script = tmp_path / "stuck.py"
    script.write_text(
        "import threading, kairos\n"
        "wf = kairos.App('shop').workflow('w')\n"
        "@wf.step(timeout='10ms', retry=kairos.Retry(attempts=1))\n"
        "def stuck() -> None:\n"
        "    threading.Event().wait()\n"
        "try:\n"
        "    wf.run_inline()\n"
        "except kairos.RunFailed as exc:\n"
        "    print(exc)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    assert "step 'stuck' took longer than its timeout of 10ms" in done.stdout


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from kairos.authoring import threads as module

    monkeypatch.setattr(module, "IDLE_SECONDS", 0.01)
    threads = Threads("short-lived")

    async def scene() -> threading.Thread:
        return await threads.submit(threading.current_thread).future

    thread = asyncio.run(scene())
    assert thread.daemon
    wait_until(lambda: not thread.is_alive())
    assert asyncio.run(scene()) is not thread
