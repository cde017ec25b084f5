"""One attempt of one step: arguments, outcomes, what counts as a failure and whether it is retried."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from authoring_support import RememberingSink, attempt, context, error_of, new_workflow, output_of
from pydantic import BaseModel

from kairos.authoring import Retry, StepCancelled, StepContext
from kairos.authoring.executor import Cancelled, Failed, Succeeded, bind


class Order(BaseModel):
    order_id: str
    amount_cents: int


class Reservation(BaseModel):
    warehouse: str


def test_a_sync_step_gets_the_input_and_its_output_is_stored() -> None:
    wf = new_workflow(Order)

    @wf.step
    def reserve(order: Order) -> Reservation:
        return Reservation(warehouse=f"for {order.order_id}")

    assert output_of(attempt(reserve, input={"order_id": "42", "amount_cents": 1})) == {"warehouse": "for 42"}


def test_an_async_step_gets_outputs_by_name_and_the_context() -> None:
    wf = new_workflow(Order)

    @wf.step
    def reserve(order: Order) -> Reservation:
        return Reservation(warehouse="B")

    @wf.step
    async def charge(order: Order, reserve: Reservation, ctx: StepContext) -> str:
        await asyncio.sleep(0)
        return f"{order.amount_cents} {reserve.warehouse} {ctx.attempt}"

    upstream = {"reserve": {"warehouse": "B"}}
    assert output_of(attempt(charge, input={"order_id": "1", "amount_cents": 5}, upstream=upstream)) == "5 B 1"


def test_a_sync_step_runs_in_another_thread_and_an_async_one_in_the_loop() -> None:
    wf = new_workflow()

    @wf.step
    def in_thread() -> bool:
        return threading.current_thread() is threading.main_thread()

    @wf.step
    async def in_loop() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert output_of(attempt(in_thread)) is False
    assert output_of(attempt(in_loop)) is True


def test_context_variables_reach_the_thread_of_a_sync_step() -> None:
    wf = new_workflow()
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")

    @wf.step
    def read() -> str:
        return request.get()

    request.set("r-1")
    assert output_of(attempt(read)) == "r-1"


def test_an_input_of_the_wrong_type_names_the_parameter_and_is_not_retried() -> None:
    wf = new_workflow(Order)

    @wf.step
    def reserve(order: Order) -> None: ...

    outcome = attempt(reserve, input={"order_id": "1", "amount_cents": "many"})
    assert isinstance(outcome, Failed)
    assert not outcome.retryable
    assert outcome.error.type == "kairos.errors.PayloadError"
    assert outcome.error.message == (
        "parameter 'order' of step 'reserve' (the run's input) is not Order: amount_cents: Input should be a "
        "valid integer, unable to parse string as an integer (got 'many')"
    )


def test_bind_names_the_step_that_made_a_wrong_input() -> None:
    wf = new_workflow()

    @wf.step
    def reserve() -> dict[str, str]:
        return {}

    @wf.step
    def charge(reserve: Reservation) -> None: ...

    with pytest.raises(Exception, match=r"parameter 'reserve' of step 'charge' \(the output of step 'reserve'\)"):
        bind(charge, context(), b"null", {"reserve": b"{}"})


def test_an_upstream_value_that_was_not_handed_over_is_an_error_of_the_step() -> None:
    wf = new_workflow()

    @wf.step
    def reserve() -> int:
        return 1

    @wf.step
    def charge(reserve: int) -> None: ...

    assert "was not handed to the step" in error_of(attempt(charge)).message


@pytest.mark.parametrize("is_async", [False, True])
def test_a_wrongly_typed_output_is_a_failure_that_may_be_retried(is_async: bool) -> None:
    wf = new_workflow()

    def junk() -> Any:
        return {"order_id": "1", "amount_cents": "abc"}

    if is_async:

        @wf.step
        async def charge() -> Order:
            return junk()  # type: ignore[no-any-return]
    else:

        @wf.step
        def charge() -> Order:
            return junk()  # type: ignore[no-any-return]

    outcome = attempt(charge)
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert outcome.error.message == (
        "step 'charge' returned a value that is not Order: amount_cents: Input should be a valid integer, "
        "unable to parse string as an integer (got 'abc')"
    )


def test_a_model_changed_after_it_was_built_is_checked_again() -> None:
    wf = new_workflow()

    @wf.step
    def charge() -> Order:
        order = Order(order_id="1", amount_cents=1)
        order.amount_cents = "abc"  # type: ignore[assignment]
        return order

    assert "amount_cents: Input should be a valid integer" in error_of(attempt(charge)).message


@pytest.mark.parametrize(
    ("policy", "raised", "expected"),
    [
        (Retry(), ValueError, True),
        (Retry(never_retry=ValueError), ValueError, False),
        (Retry(retry_on=[KeyError]), ValueError, False),
        (Retry(retry_on=[LookupError]), KeyError, True),
    ],
)
def test_the_retry_policy_decides_by_exception_type(policy: Retry, raised: type[Exception], expected: bool) -> None:
    wf = new_workflow()

    @wf.step(retry=policy)
    def fail() -> None:
        raise raised("no")

    outcome = attempt(fail)
    assert isinstance(outcome, Failed)
    assert outcome.retryable is expected


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (SystemExit(3), "the step called sys.exit(3)"),
        (SystemExit(), "the step called sys.exit()"),
        (KeyboardInterrupt(), "the step raised KeyboardInterrupt"),
        (BaseException("odd"), "odd"),
        (GeneratorExit(), ""),
        (asyncio.CancelledError("mine"), "mine"),
        (StopIteration(1), "1"),
        (StepCancelled("no reason"), "no reason"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("is_async", [False, True])
def test_whatever_a_step_raises_is_a_failure_of_the_step(raised: BaseException, message: str, is_async: bool) -> None:
    wf = new_workflow()

    async def raise_it_async() -> None:
        await asyncio.sleep(0)
        raise raised

    def raise_it() -> None:
        raise raised

    outcome = attempt(wf.step(raise_it_async if is_async else raise_it))
    if is_async and isinstance(raised, StopIteration):
        message = "coroutine raised StopIteration"
    assert error_of(outcome).message == message


def test_sys_exit_in_a_thread_does_not_end_the_process() -> None:
    wf = new_workflow()

    @wf.step
    def leave() -> None:
        sys.exit("bye")

    assert error_of(attempt(leave)).message == "the step called sys.exit('bye')"


def test_a_generator_as_output_is_refused_and_not_read() -> None:
    wf = new_workflow()
    read: list[int] = []

    @wf.step
    def numbers() -> Any:
        def endless() -> Iterator[int]:
            while True:
                read.append(1)
                yield 1

        return endless()

    assert "is a builtins.generator" in error_of(attempt(numbers)).message
    assert read == []


def test_an_async_generator_as_output_is_refused() -> None:
    wf = new_workflow()

    @wf.step
    async def numbers() -> Any:
        async def endless() -> AsyncIterator[int]:
            yield 1

        return endless()

    assert "is a builtins.async_generator" in error_of(attempt(numbers)).message


def test_a_sync_step_that_returns_a_coroutine_says_that_nobody_awaits_it() -> None:
    wf = new_workflow()

    async def inner() -> int:
        return 1

    @wf.step
    def outer() -> Any:
        return inner()

    assert "returned a coroutine, which nobody awaits" in error_of(attempt(outer)).message


def test_the_context_is_closed_when_the_attempt_ends() -> None:
    wf = new_workflow()
    sink = RememberingSink()
    ctx = context(sink=sink)

    @wf.step
    def note(ctx: StepContext) -> None:
        ctx.log.info("during")

    attempt(note, ctx=ctx)
    ctx.log.info("after")
    assert [line.message for line in sink.logs] == ["during"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_step_that_stops_when_told_to_is_cancelled_and_not_failed(is_async: bool) -> None:
    wf = new_workflow()
    ctx = context()
    ctx.cancel("the run was cancelled")

    def work(ctx: StepContext) -> None:
        ctx.heartbeat()

    async def work_async(ctx: StepContext) -> None:
        ctx.heartbeat()

    assert attempt(wf.step(work_async if is_async else work), ctx=ctx) == Cancelled()


def test_a_step_that_ends_although_it_was_told_to_stop_has_succeeded() -> None:
    wf = new_workflow()
    ctx = context()
    ctx.cancel("the run was cancelled")

    @wf.step
    def work() -> int:
        return 1

    assert isinstance(attempt(work, ctx=ctx), Succeeded)
