"""A whole run in memory: the same rules, the same texts, no database."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from authoring_support import attempt, error_of, new_workflow
from pydantic import BaseModel

from kairos.authoring import Redaction, Retry, StepContext
from kairos.authoring.inline import InlineRun
from kairos.domain.events import LogEmitted, MetricEmitted, StepFailed
from kairos.domain.projection import project
from kairos.domain.states import RunStatus
from kairos.errors import PayloadError, RunFailed


class Order(BaseModel):
    order_id: str
    cents: int = 0


def test_the_output_is_that_of_the_only_last_step_in_its_declared_type() -> None:
    wf = new_workflow(Order)

    @wf.step
    def reserve(order: Order) -> int:
        return order.cents

    @wf.step
    async def charge(order: Order, reserve: int) -> Order:
        return Order(order_id=order.order_id, cents=reserve * 2)

    assert wf.run_inline(Order(order_id="1", cents=4)) == Order(order_id="1", cents=8)


def test_several_last_steps_give_a_dict_by_name() -> None:
    wf = new_workflow()

    @wf.step
    def one() -> int:
        return 1

    @wf.step
    def two() -> str:
        return "2"

    assert wf.run_inline() == {"one": 1, "two": "2"}


def test_a_wrong_input_is_refused_before_anything_runs() -> None:
    wf = new_workflow(Order)

    @wf.step
    def reserve(order: Order) -> None:
        raise AssertionError("it ran")

    with pytest.raises(PayloadError, match="the input of workflow 'fulfil' is not Order: order_id: Field required"):
        wf.run_inline({})


def test_failures_are_retried_without_sleeping() -> None:
    wf = new_workflow()
    seen: list[int] = []

    @wf.step(retry=Retry(attempts=4, base="1h", cap="1d"))
    def flaky(ctx: StepContext) -> str:
        seen.append(ctx.attempt)
        if ctx.attempt < 4:
            raise ConnectionError("not yet")
        return "done"

    before = time.monotonic()
    assert wf.run_inline() == "done"
    assert seen == [1, 2, 3, 4]
    assert time.monotonic() - before < 30


def test_backoff_is_slept_where_that_is_asked_for() -> None:
    wf = new_workflow()

    @wf.step(retry=Retry(attempts=2, base="50ms", jitter=0))
    def flaky(ctx: StepContext) -> None:
        if ctx.attempt == 1:
            raise ConnectionError("not yet")

    before = time.monotonic()
    wf.run_inline(sleep=True)
    assert time.monotonic() - before >= 0.05


def test_a_failed_run_tells_the_text_that_a_worker_would_record() -> None:
    wf = new_workflow()

    @wf.step(retry=Retry(attempts=2))
    def charge() -> None:
        raise ValueError("card refused")

    @wf.step(after=[charge])
    def email() -> None: ...

    with pytest.raises(RunFailed) as caught:
        wf.run_inline()
    assert str(caught.value) == (
        "the run of 'fulfil' is FAILED: step 'charge': ValueError: card refused (attempt 2 of 2)"
    )
    assert caught.value.facts["step"] == "charge"
    assert caught.value.facts["steps"] == ("charge",)
    assert caught.value.facts["error"] == error_of(attempt(charge))
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_wrongly_typed_output_reads_the_same_inline_and_in_an_attempt() -> None:
    wf = new_workflow()

    @wf.step(retry=Retry(attempts=1))
    def charge() -> Order:
        return {"order_id": 5}  # type: ignore[return-value]

    run = InlineRun(wf)
    with pytest.raises(RunFailed):
        asyncio.run(run.finish())
    [failed] = [r.event for r in run.history if isinstance(r.event, StepFailed)]
    assert failed.error == error_of(attempt(charge))
    assert failed.error.message == (
        "step 'charge' returned a value that is not Order: order_id: Input should be a valid string (got 5)"
    )


def test_the_history_folds_to_the_state() -> None:
    wf = new_workflow(Order)

    @wf.step
    def reserve(order: Order, ctx: StepContext) -> int:
        ctx.log.info("reserving", order=order.order_id)
        ctx.emit("cents", order.cents)
        return 1

    @wf.step(retry=Retry(attempts=2))
    def flaky(reserve: int, ctx: StepContext) -> int:
        return 1 // (ctx.attempt - 1)

    run = InlineRun(wf, {"order_id": "1", "cents": 3})
    assert asyncio.run(run.finish()) == 1
    assert project(run.state.run_id, wf.graph, run.history) == run.state
    assert run.state.status is RunStatus.DONE
    kinds = [recorded.event.kind for recorded in run.history]
    assert kinds == [
        "run_scheduled",
        "run_started",
        "step_started",
        "log_emitted",
        "metric_emitted",
        "step_done",
        "step_started",
        "step_failed",
        "timer_fired",
        "step_started",
        "step_done",
        "run_done",
    ]
    [line] = [r.event for r in run.history if isinstance(r.event, LogEmitted)]
    [metric] = [r.event for r in run.history if isinstance(r.event, MetricEmitted)]
    assert (line.step, line.attempt, line.message, line.fields) == ("reserve", 1, "reserving", {"order": "1"})
    assert (metric.name, metric.value) == ("cents", 3)


def test_parallel_steps_run_at_the_same_time() -> None:
    wf = new_workflow()
    meeting = threading.Barrier(3, timeout=20)

    def meet() -> int:
        return meeting.wait()

    for number in range(3):
        wf.step(name=f"s{number}")(meet)
    assert sorted(wf.run_inline().values()) == [0, 1, 2]


def test_a_wide_and_a_deep_workflow_finish() -> None:
    wf = new_workflow()
    for number in range(100):

        def leaf() -> int:
            return 1

        wf.step(name=f"leaf{number}")(leaf)

    @wf.step(after=list(wf.steps))
    def join() -> str:
        return "joined"

    previous: Any = join
    for number in range(50):

        async def link() -> int:
            return 1

        previous = wf.step(name=f"link{number}", after=[previous])(link)
    assert wf.run_inline() == 1


def test_steps_that_do_not_depend_on_a_dead_one_still_run() -> None:
    wf = new_workflow()
    ran: list[str] = []

    @wf.step(retry=Retry(attempts=1))
    def dead() -> None:
        raise ValueError("no")

    @wf.step
    def alive() -> None:
        ran.append("alive")

    @wf.step
    def also(alive: None) -> None:
        ran.append("also")

    with pytest.raises(RunFailed):
        wf.run_inline()
    assert ran == ["alive", "also"]


def test_it_works_inside_a_running_loop() -> None:
    wf = new_workflow()

    @wf.step
    async def one() -> int:
        await asyncio.sleep(0)
        return 1

    async def scene() -> Any:
        return wf.run_inline()

    assert asyncio.run(scene()) == 1

    @wf.step
    def fail(one: int) -> None:
        raise ValueError("no")

    with pytest.raises(RunFailed):
        asyncio.run(scene())


def test_the_async_form_leaves_the_loop_free() -> None:
    wf = new_workflow()
    release = threading.Event()

    @wf.step
    def wait() -> bool:
        return release.wait(20)

    async def scene() -> Any:
        task = asyncio.create_task(wf.arun_inline())
        await asyncio.sleep(0)
        release.set()
        return await task

    assert asyncio.run(scene()) is True


def test_cancelling_the_async_form_stops_its_steps() -> None:
    wf = new_workflow()
    stopped: list[bool] = []
    began = asyncio.Event()

    @wf.step
    async def wait() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(True)

    async def scene() -> None:
        task = asyncio.create_task(wf.arun_inline())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    assert stopped == [True]


def test_the_clock_tells_the_times_of_events() -> None:
    wf = new_workflow()

    @wf.step(retry=Retry(attempts=2, base="1h", cap="2h", jitter=0))
    def flaky(ctx: StepContext) -> None:
        if ctx.attempt == 1:
            raise ValueError("no")

    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    run = InlineRun(wf, clock=lambda: noon)
    asyncio.run(run.finish())
    times = {recorded.event.kind: recorded.at for recorded in run.history}
    assert times["run_scheduled"] == noon
    assert times["run_done"] == noon + timedelta(hours=1)


def test_redaction_holds_inline_too() -> None:
    wf = new_workflow(dict, Redaction(values=["Mr. Bond"]))

    @wf.step
    def greet(input: dict) -> str:  # type: ignore[type-arg]
        return f"hello {input['name']}"

    assert wf.run_inline({"name": "Mr. Bond"}) == "hello [redacted]"


def test_a_timeout_fails_the_step_inline() -> None:
    wf = new_workflow()

    @wf.step(timeout="10ms", retry=Retry(attempts=1))
    async def slow() -> None:
        await asyncio.sleep(60)

    with pytest.raises(RunFailed, match="took longer than its timeout of 10ms"):
        wf.run_inline()
