"""Effects inside a step: what is recorded, what a retry is given, what is refused."""

from __future__ import annotations

import asyncio
import functools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from authoring_support import attempt, context, error_of, new_workflow, output_of
from pydantic import BaseModel

import kairos
from kairos import testing
from kairos.authoring import StepCancelled, StepContext
from kairos.authoring import effects as effects_module
from kairos.authoring.effect_values import MAX_ARGUMENTS, arguments_of
from kairos.authoring.effects import BasicJournal, Effect, done
from kairos.authoring.executor import Cancelled, Failed
from kairos.authoring.redaction import PLACEHOLDER, Redactor
from kairos.domain import canonical
from kairos.domain.events import EffectRecorded
from kairos.domain.payload import Payload
from kairos.errors import DefinitionError, EffectMismatch, InvalidArgument, PayloadError


class Notebook(BasicJournal):
    """Keeps what is recorded; its next attempt recalls it. `slow`: blobs come without their bytes."""

    def __init__(self, before: Notebook | None = None, *, slow: bool = False) -> None:
        super().__init__(before.successes() if before else None)
        self.kept: list[Effect] = []
        self.slow, self.blobs = slow, {} if before is None else before.blobs

    def successes(self) -> dict[tuple[str, int], EffectRecorded]:
        found = dict(self._earlier)
        for e in self.kept:
            if e.result is not None:
                self.blobs[e.result.digest] = e.result.data or b""
                result = Payload.blob(e.result.sha256, e.result.size) if self.slow and e.result.sha256 else e.result
                found[e.name, e.ordinal] = EffectRecorded(
                    step="a", attempt=1, token=7, name=e.name, ordinal=e.ordinal, via=e.via, arguments=e.arguments,
                    result=result,
                )  # fmt: skip
        return found

    def fetch(self, payload: Payload) -> Future[bytes]:
        return done(self.blobs[payload.digest])

    def record(self, effect: Effect) -> None:
        self.kept.append(effect)

    @property
    def told(self) -> list[tuple[str, int, Any]]:
        return [(e.name, e.ordinal, e.error.type if e.error else canonical.decode(e.result.data)) for e in self.kept]  # type: ignore[union-attr, arg-type]


def ctx_with(journal: Any, **more: Any) -> StepContext:
    ctx = context(**more)
    ctx._journal = lambda: journal
    return ctx


class Calls:
    """A function that counts; the nth call raises what `errors` has for it."""

    def __init__(self, *results: Any) -> None:
        self.results, self.made = list(results), []  # type: ignore[var-annotated]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.made.append(args)
        result = self.results[len(self.made) - 1] if len(self.made) <= len(self.results) else len(self.made)
        if isinstance(result, BaseException):
            raise result
        return result


def test_a_retry_is_given_what_was_recorded_and_calls_nothing_again() -> None:
    first, tax, flaky = Notebook(), Calls({"rate": 21}), Calls(ConnectionError("down"), "sent")

    def body(ctx: StepContext) -> Any:
        return ctx.call("tax", tax, "IT"), ctx.now(), ctx.uuid(), ctx.random(), ctx.call("send", flaky)

    with pytest.raises(ConnectionError, match="down"):
        body(ctx_with(first))
    assert [e.name for e in first.kept] == ["tax", "now", "uuid", "random", "send"]
    second = Notebook(first)
    rate, now, uid, number, sent = body(ctx_with(second, attempt=2))
    assert (rate, sent, len(tax.made), len(flaky.made)) == ({"rate": 21}, "sent", 1, 2)
    assert second.told == [("send", 1, "sent")], "what was answered from the record is not recorded again"
    assert [now.isoformat(), str(uid), number] == [t[2] for t in first.told[1:4]]


def test_the_clock_is_aware_and_the_dice_are_those_of_the_run() -> None:
    ctx, again = ctx_with(Notebook()), ctx_with(Notebook(), attempt=2)
    before = datetime.now(UTC)
    now = ctx.now()
    assert now.tzinfo == UTC
    assert before <= now <= before + timedelta(seconds=10)
    ids = [ctx.uuid() for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(isinstance(u, UUID) and u.version == 4 and u.variant == "specified in RFC 4122" for u in ids)
    assert ids == [again.uuid() for _ in range(3)], "drawn from run and step, not from the attempt"
    numbers = [ctx.random() for _ in range(200)]
    assert all(0 <= n < 1 for n in numbers)
    assert 0.35 < sum(numbers) / 200 < 0.65
    assert ctx_with(Notebook(), step="email").uuid() not in ids


class Colour(Enum):
    RED = "red"


class Order(BaseModel):
    id: int
    at: datetime


@dataclass
class Point:
    x: int


def make_order() -> Order:
    return Order(id=1, at=datetime(2026, 1, 1, tzinfo=UTC))


def make_point() -> Point:
    return Point(3)


def make_pair() -> tuple[int, Colour]:
    return (1, Colour.RED)


def make_list():  # type: ignore[no-untyped-def]
    return [1, (2, 3)]


class Service:
    def __call__(self) -> Order:
        return make_order()

    def method(self) -> Point:
        return make_point()


FUNCTIONS: list[tuple[Any, Any]] = [
    (make_order, make_order()),
    (make_point, Point(3)),
    (make_pair, (1, Colour.RED)),
    (make_list, [1, [2, 3]]),
    (functools.partial(make_order), make_order()),
    (Service(), make_order()),
    (Service().method, Point(3)),
    (lambda: {"a": None}, {"a": None}),
    (functools.lru_cache(make_point), Point(3)),
    (functools.partial(Order, id=2, at=make_order().at), Order(id=2, at=make_order().at)),
    (dict, {}),
]


@pytest.mark.parametrize(("fn", "expected"), FUNCTIONS, ids=range(len(FUNCTIONS)))
def test_the_first_value_and_the_recorded_one_are_the_same_value_of_the_declared_type(fn: Any, expected: Any) -> None:
    first = Notebook()
    made = ctx_with(first).call("x", fn)
    again = ctx_with(Notebook(first), attempt=2).call("x", fn)
    assert made == again == expected
    assert type(made) is type(again) is type(expected)


def test_a_type_that_only_this_function_knows_is_found() -> None:
    class Local(BaseModel):
        n: int

    def make() -> Local:
        return Local(n=1)

    assert ctx_with(Notebook()).call("x", make) == Local(n=1)


def returns_object() -> Notebook:
    raise AssertionError("it must not be called")


def returns_text_as_number() -> int:
    return "3"  # type: ignore[return-value]


def test_what_cannot_be_stored_is_an_error_that_names_the_effect() -> None:
    ctx = ctx_with(notebook := Notebook())
    with pytest.raises(PayloadError, match="effect 'fetch' returned a value that cannot be stored"):
        ctx.call("fetch", lambda: object())
    with pytest.raises(PayloadError, match="effect 'count' returned a value that is not int"):
        ctx.call("count", returns_text_as_number)
    with pytest.raises(DefinitionError, match="effect 'book': values of type Notebook cannot be stored") as caught:
        ctx.call("book", returns_object)
    assert "returns what you need" in str(caught.value)
    assert [e.error.type for e in notebook.kept if e.error] == ["kairos.errors.PayloadError"] * 2


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "\ud800", 3, None, "now", "uuid", "random", "http GET /"])
def test_a_bad_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"cannot name an effect|names effects of Kairos"):
        ctx_with(Notebook()).call(name, make_order)


def test_what_is_no_function_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(InvalidArgument, match="is not a function") as caught:
        ctx_with(Notebook()).call("charge", make_order())  # type: ignore[arg-type]
    assert "function and its arguments apart" in str(caught.value)


def test_an_effect_inside_of_an_effect_is_refused() -> None:
    ctx = ctx_with(notebook := Notebook())
    for inner in (lambda: ctx.call("inner", make_order), ctx.now):
        with pytest.raises(InvalidArgument, match="inside of effect 'outer'"):
            ctx.call("outer", inner)
    assert [e.name for e in notebook.kept] == ["outer", "outer"]
    assert isinstance(ctx.now(), datetime), "afterwards all is as it was"


def test_an_async_function_in_a_sync_step_is_refused() -> None:
    async def fetch() -> int:
        return 1

    with pytest.raises(InvalidArgument, match="which nobody awaits") as caught:
        ctx_with(Notebook()).call("fetch", fetch)
    assert "await ctx.call" in str(caught.value)


def test_other_arguments_than_recorded_are_a_mismatch_that_shows_both() -> None:
    first = Notebook()
    ctx_with(first).call("charge", Calls(), 990, to="ann")
    ctx = ctx_with(Notebook(first), attempt=2)
    with pytest.raises(EffectMismatch, match="effect 'charge' #1") as caught:
        ctx.call("charge", Calls(), 991, to="ann")
    error: Any = caught.value
    assert (error.effect, error.ordinal) == ("charge", 1)
    assert (error.old, error.new) == ('{"args":[990],"kwargs":{"to":"ann"}}', '{"args":[991],"kwargs":{"to":"ann"}}')
    with pytest.raises(EffectMismatch):
        ctx.now()  # nothing more happens


def test_a_mismatch_fails_the_step_for_good_whatever_the_step_makes_of_it() -> None:
    first = Notebook()
    ctx_with(first, step="plain").call("charge", make_order)
    workflow = new_workflow()

    @workflow.step
    def plain(ctx: StepContext) -> str:
        try:
            ctx.call("charge", make_list, 1)
        except Exception:
            return "never mind"
        return "fine"

    @workflow.step
    async def later(ctx: StepContext) -> str:
        try:
            await ctx.call("charge", make_list, 1)
        except Exception as exc:
            raise ValueError("another") from exc
        return "fine"

    for step in (plain, later):
        outcome = attempt(step, ctx=ctx_with(Notebook(first), step=step.name))
        assert isinstance(outcome, Failed)
        assert not outcome.retryable
        assert error_of(outcome).type == "kairos.errors.EffectMismatch"
        assert "ctx.now()" in (error_of(outcome).hint or "")


def test_a_call_that_the_step_itself_repeats_keeps_its_place() -> None:
    def body(ctx: StepContext, charge: Any) -> Any:
        for _ in range(3):
            try:
                return ctx.call("charge", charge, 990)
            except ConnectionError:
                continue
        return None

    first, flaky = Notebook(), Calls(ConnectionError("1"), ConnectionError("2"), "paid")
    assert body(ctx_with(first), flaky) == "paid"
    assert [t[:2] for t in first.told] == [("charge", 1)] * 3
    assert body(ctx_with(Notebook(first), attempt=2), flaky) == "paid"
    assert len(flaky.made) == 3, "the card was charged once"


def test_a_call_that_failed_is_made_again_and_those_after_it_are_not() -> None:
    def body(ctx: StepContext, send: Any) -> list[str]:
        failed = []
        for to in ("ann", "bob", "cy"):
            try:
                ctx.call("send", send, to)
            except ConnectionError:
                failed.append(to)
        return failed

    first, send = Notebook(), Calls(1, ConnectionError("x"), 3, 4)
    assert body(ctx_with(first), send) == ["bob"]
    assert body(ctx_with(Notebook(first), attempt=2), send) == []
    assert send.made == [("ann",), ("bob",), ("cy",), ("bob",)]


def test_what_ends_the_attempt_inside_of_an_effect_is_not_recorded() -> None:
    ctx = ctx_with(notebook := Notebook())
    for error in (KeyboardInterrupt(), StepCancelled("x"), SystemExit(1), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            ctx.call("x", Calls(error))
    assert not notebook.kept


def test_an_attempt_that_should_stop_begins_no_effect() -> None:
    ctx = ctx_with(Notebook())
    ctx.cancel("the run is being cancelled")
    for ask in (ctx.now, ctx.uuid, ctx.random, lambda: ctx.call("x", returns_object_never)):
        with pytest.raises(StepCancelled, match="the run is being cancelled"):
            ask()


def returns_object_never() -> int:
    raise AssertionError("it must not be called")


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects_module, "MAX_EFFECTS", 3)
    ctx = ctx_with(Notebook())
    for _ in range(3):
        ctx.now()
    with pytest.raises(PayloadError, match="more than 3 effects in one attempt"):
        ctx.call("x", make_order)


def test_the_async_form_runs_async_and_plain_functions_and_blocks_no_loop() -> None:
    async def fetch(n: int) -> int:
        await asyncio.sleep(0)
        return n * 2

    def where() -> str:
        return threading.current_thread().name

    async def body(ctx: StepContext) -> Any:
        results = await asyncio.gather(*(ctx.call("fetch", fetch, n) for n in range(5)))
        lazy = await ctx.call("lazy", lambda: fetch(7))
        return results, lazy, await ctx.call("thread", where), await asyncio.to_thread(ctx.call, "aside", make_order)

    first = Notebook()
    made = asyncio.run(body(ctx_with(first)))
    assert made[:2] == ([0, 2, 4, 6, 8], 14)
    assert made[2].startswith("kairos-effect")
    assert made[3] == make_order()
    assert sorted(t[:2] for t in first.told)[1:6] == [("fetch", n) for n in range(1, 6)]
    assert asyncio.run(body(ctx_with(second := Notebook(first), attempt=2))) == made
    assert second.kept == []


def test_a_nested_effect_in_a_thread_of_an_async_step_is_refused() -> None:
    ctx = ctx_with(Notebook())

    async def body() -> None:
        await ctx.call("outer", lambda: ctx.call("inner", make_order))

    with pytest.raises(InvalidArgument, match="inside of effect 'outer'"):
        asyncio.run(body())


def test_effects_of_different_names_never_mix_in_threads() -> None:
    first, second = Notebook(), Notebook()

    def body(ctx: StepContext) -> list[list[int]]:
        def work(name: str) -> list[int]:
            return [ctx.call(name, lambda n=n: n * len(name)) for n in range(20)]

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(work, [f"n{'x' * n}" for n in range(8)]))

    made = body(ctx_with(first))
    assert made == [[n * (k + 1) for n in range(20)] for k in range(8)]
    assert body(ctx_with(second := Notebook(first), attempt=2)) == made
    assert second.kept == []


def test_large_results_are_fetched_when_a_retry_needs_them() -> None:
    first = Notebook(slow=True)
    big = "x" * 5000
    assert ctx_with(first).call("big", lambda: big) == big
    assert ctx_with(Notebook(first), attempt=2).call("big", lambda: "") == big

    async def body() -> Any:
        return await ctx_with(Notebook(first), attempt=2).call("big", lambda: "")

    assert asyncio.run(body()) == big


class Waiting(Notebook):
    """Durable only when told; until then whoever asks waits."""

    def __init__(self) -> None:
        super().__init__()
        self.future: Future[None] = Future()
        self.asked = threading.Event()

    def settle(self) -> Future[None]:
        if not self.kept:
            return done(None)
        self.asked.set()
        return self.future


def test_a_call_returns_only_when_its_result_is_durable() -> None:
    journal = Waiting()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(ctx_with(journal).call, "x", make_list)
        assert journal.asked.wait(5)
        assert not call.done()
        journal.future.set_result(None)
        assert call.result(5) == [1, [2, 3]]


def test_no_effect_begins_before_the_time_that_was_asked_for_is_durable() -> None:
    journal, calls = Waiting(), Calls()
    ctx = ctx_with(journal)
    ctx.now()  # does not wait by itself
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(ctx.call, "x", calls)
        assert journal.asked.wait(5)
        assert not calls.made
        journal.future.set_result(None)
        assert call.result(5) == 1


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_step_whose_fence_is_void_is_stopped_where_it_waits(is_async: bool) -> None:
    journal = Waiting()
    journal.future.set_exception(StepCancelled("another worker has the step"))
    workflow = new_workflow()

    @workflow.step
    def plain(ctx: StepContext) -> int:
        try:
            return int(ctx.call("x", Calls()))
        except Exception:
            return 0

    @workflow.step
    async def later(ctx: StepContext) -> int:
        try:
            return int(await ctx.call("x", Calls()))
        except Exception:
            return 0

    step: Any = later if is_async else plain
    ctx = ctx_with(journal, step=step.name)
    assert isinstance(attempt(step, ctx=ctx), Cancelled)
    assert ctx.cancel_reason == "another worker has the step"


def test_a_timeout_inside_of_an_effect_records_nothing() -> None:
    workflow, notebook, release = new_workflow(), Notebook(), threading.Event()

    @workflow.step
    def plain(ctx: StepContext) -> int:
        return int(ctx.call("hangs", lambda: int(release.wait(10))))

    @workflow.step
    async def later(ctx: StepContext) -> None:
        await ctx.call("hangs", asyncio.sleep, 10)

    for step in (plain, later):
        outcome = attempt(step, ctx=ctx_with(notebook, step=step.name), timeout=0.1)
        assert isinstance(outcome, Failed)
        assert outcome.timed_out
    assert not notebook.kept
    release.set()


def test_arguments_are_written_the_same_in_every_process() -> None:
    def told(*args: Any, **kwargs: Any) -> Any:
        payload = arguments_of(args, kwargs, Redactor())
        return None if payload is None else canonical.decode(payload.data or b"")

    assert told() is None
    assert told({"b", "a", "c"})["args"] == [["a", "b", "c"]]
    odd: list[Any] = [Colour.RED, Point(1), make_order(), b"\xff", 2**70, float("nan"), (1, 2), UUID(int=1)]
    assert told(*odd)["args"] == [
        "red", {"x": 1}, {"id": 1, "at": "2026-01-01T00:00:00+00:00"}, "/w==", str(2**70), "nan", [1, 2],
        "00000000-0000-0000-0000-000000000001",
    ]  # fmt: skip
    here = __name__
    assert told(object(), make_order, Order)["args"] == [
        {"$type": "builtins.object"}, {"$function": f"{here}.make_order"}, {"$function": f"{here}.Order"},
    ]  # fmt: skip
    assert told({1: "\ud800", "x": None})["args"] == [{"1": "\\ud800", "x": None}]
    assert told(kairos.Secret("env:KEY"))["args"] == [{"$secret": "env:KEY"}]
    loop: list[Any] = []
    loop.append(loop)
    assert "$type" in str(told(loop))
    long = told("x" * (MAX_ARGUMENTS + 1))
    assert long.keys() == {"$sha256", "$size"}
    assert long != told("y" * (MAX_ARGUMENTS + 1))


def test_arguments_and_results_obey_the_rules_of_redaction() -> None:
    ctx = ctx_with(notebook := Notebook())
    ctx.redactor.adopt(kairos.Redaction(fields=["card"]))
    ctx.redactor.reveal("hunter22")
    assert ctx.call("pay", lambda **kw: {"card": 1, "say": "hunter22"}, card="4111", key="hunter22") == {
        "card": PLACEHOLDER, "say": PLACEHOLDER,
    }  # fmt: skip
    assert b"4111" not in (notebook.kept[0].arguments or Payload.of(b"")).data  # type: ignore[operator]
    assert b"hunter22" not in (notebook.kept[0].arguments or Payload.of(b"")).data  # type: ignore[operator]


def test_an_inline_run_records_effects_and_resumes() -> None:
    workflow, tax = kairos.App("shop").workflow("w"), Calls({"rate": 21})

    @workflow.step(retry=kairos.Retry(attempts=3))
    def total(ctx: StepContext) -> list[Any]:
        made = [ctx.call("tax", tax, "IT"), str(ctx.uuid()), ctx.random(), ctx.now().isoformat()]
        if ctx.attempt < 3:
            raise ConnectionError(f"attempt {ctx.attempt}")
        return made

    run = testing.run(workflow)
    assert run.output[0] == {"rate": 21}
    assert len(tax.made) == 1
    recorded = [r.event for r in run.history if isinstance(r.event, EffectRecorded)]
    assert [(e.via, e.attempt) for e in recorded] == [("call", 1), ("uuid", 1), ("random", 1), ("now", 1)]
    assert run.output[1:] == [canonical.decode(e.result.data or b"") for e in recorded[1:] if e.result]


def test_a_context_made_for_a_unit_test_lets_effects_happen() -> None:
    ctx = testing.context()
    assert ctx.call("pair", make_pair) == (1, Colour.RED)
    assert ctx.uuid() == testing.context().uuid()


def test_a_step_without_effects_never_opens_a_journal() -> None:
    workflow = new_workflow()

    @workflow.step
    def quiet(ctx: StepContext) -> int:
        ctx.log.info("hello")
        return 1

    def never() -> Any:
        raise AssertionError("nothing was asked for")

    ctx = context("quiet")
    ctx._journal = never
    assert output_of(attempt(quiet, ctx=ctx)) == 1
