"""What is recorded of each kind of code: one shape of events from both backends."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kairos.errors import InvalidArgument, KairosError, TraceError
from kairos.replay.trace.capture import Limits
from kairos.replay.trace.history import Trace
from kairos.replay.trace.layout import About, Kind
from kairos.replay.trace.recording import Recorder
from kairos.replay.trace.values import render
from tests.replay.trace.tracing_support import kinds, positions, record, save, shown_locals, story


def add_up(numbers: list[int]) -> int:
    total = 0
    for number in numbers:
        total += number
    return total


def test_lines_changed_locals_and_the_result_are_recorded() -> None:
    assert story(record(add_up, [5, 7])) == [
        "call 0 {numbers=[5, 7]}",
        "line 1 {}",
        "line 2 {total=0}",
        "line 3 {number=5}",
        "line 2 {total=5}",
        "line 3 {number=7}",
        "line 2 {total=12}",
        "line 4 {}",
        "return 4 {} -> 12",
    ]


def fail_deep(n: int) -> int:
    if n == 0:
        raise LookupError("nothing", n)
    return fail_deep(n - 1)


def test_an_exception_is_recorded_in_every_frame_that_it_leaves() -> None:
    trace = record(fail_deep, 2)
    assert kinds(trace, "fail_deep") == ["call"] * 3 + ["exception", "unwind"] * 3
    assert trace.failure is not None
    assert trace.line(trace.failure) - trace.function(trace.failure).first_line == 2
    assert render(trace.value(trace.failure)) == "LookupError('nothing', 0)"
    assert [trace.locals_at(level.position, level.frame) for level in trace.stack(trace.failure)] == [
        {"n": 0}, {"n": 1}, {"n": 2},
    ]  # fmt: skip


def catch() -> str:
    try:
        fail_deep(0)
    except LookupError as exc:
        text = str(exc.args)
    return text


def test_a_caught_exception_fails_nothing_and_its_name_is_deleted_afterwards() -> None:
    trace = record(catch)
    assert trace.failure is None
    assert kinds(trace, "catch") == ["call", "exception", "return"]
    assert shown_locals(trace, trace.last) == {"text": "\"('nothing', 0)\""}


def count_to(n: int) -> Iterator[int]:
    for i in range(n):  # noqa: UP028
        yield i


def consume() -> list[int]:
    found = [0, *count_to(2)]
    abandoned = count_to(9)
    next(abandoned)
    return found


def test_a_generator_is_one_frame_from_its_first_yield_to_its_end() -> None:
    trace = record(consume)
    first = positions(trace, "count_to", Kind.CALL)[0]
    own = [k for k in range(len(trace)) if trace.file.frames[k] == trace.file.frames[first]]
    assert [trace.kind(k).name for k in own if trace.kind(k) is not Kind.LINE] == [
        "CALL", "SUSPEND", "RESUME", "SUSPEND", "RESUME", "RETURN",
    ]  # fmt: skip
    assert [render(trace.value(k)) for k in own if trace.kind(k) is Kind.SUSPEND] == ["0", "1"]


def closed() -> str:
    def inner() -> Iterator[int]:
        try:
            yield 1
        finally:
            done.append("closed")

    done: list[str] = []
    made = inner()
    next(made)
    made.close()
    thrown = inner()
    next(thrown)
    try:
        thrown.throw(KeyError("k"))
    except KeyError:
        done.append("thrown")
    return ",".join(done)


def test_a_generator_that_is_closed_or_thrown_into_is_left_by_an_exception() -> None:
    trace = record(closed)
    assert shown_locals(trace, trace.last)["done"] == "['closed', 'closed', 'thrown']"
    ends = [render(trace.value(at)) for at in positions(trace, "inner", Kind.UNWIND)]
    assert ends == ["GeneratorExit()", "KeyError('k')"]


async def fetch(name: str, turns: int) -> str:
    for _ in range(turns):
        await asyncio.sleep(0)
    return name


async def items() -> AsyncIterator[int]:
    yield 1
    await asyncio.sleep(0)
    yield 2


async def gather() -> list[Any]:
    found = await asyncio.gather(fetch("a", 2), fetch("b", 1))
    return [*found, *[item async for item in items()]]


def test_coroutines_that_take_turns_keep_their_own_frames() -> None:
    trace = record(lambda: asyncio.run(gather()))
    assert len({trace.file.frames[at] for at in positions(trace, "fetch")}) == 2
    calls = positions(trace, "fetch", Kind.CALL)
    assert [trace.locals_at(at)["name"] for at in calls] == ["a", "b"]
    inside = positions(trace, "fetch")[0]
    # Over the await, and not into the other one that runs meanwhile.
    after = trace.next(inside)
    assert after is not None
    assert trace.file.frames[after] == trace.file.frames[inside]
    ends = positions(trace, "gather", Kind.RETURN)
    assert [render(trace.value(at)) for at in ends] == ["['a', 'b', 1, 2]"]


def in_threads() -> list[int]:
    found: list[int] = []

    def work(n: int) -> None:
        found.append(n * n)

    threads = [threading.Thread(target=work, args=(n,), name=f"worker-{n}") for n in (2, 3)]
    for thread in threads:
        thread.start()
        thread.join()
    return found


def test_threads_are_recorded_each_with_its_name_and_outermost_frame() -> None:
    trace = record(in_threads)
    at = positions(trace, "work")
    assert {trace.header.threads[trace.file.threads[k]] for k in at} <= {"worker-2", "worker-3"}
    assert len(trace.stack(at[0])) == 1
    assert render(trace.value(trace.last)) == "[4, 9]"


class Cart:
    """A class whose body, methods, property and class method are all user code."""

    limit = 2

    def __init__(self, items: list[str]) -> None:
        self.items = items

    @property
    def size(self) -> int:
        return len(self.items)

    @classmethod
    def empty(cls) -> Cart:
        return cls([])

    @staticmethod
    def double(n: int) -> int:
        return n * 2


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **more: Any) -> Any:
        return function(*args, **more)

    return wrapper


@decorated
def unusual(n: int) -> list[Any]:
    class Local:
        a = n
        b = a + 1

    @contextmanager
    def held() -> Iterator[int]:
        yield 7

    cart = Cart.empty()
    cart.items.append("x")
    with held() as seven:
        words = sorted(["bb", "a"], key=lambda word: len(word))
    total = functools.reduce(lambda x, y: x + y, map(functools.partial(pow, 2), [1, 2]))
    return [Local.b, cart.size, seven, words, total, Cart.double(2)]


def test_unusual_code_is_recorded_like_any_other() -> None:
    trace = record(unusual, 4)
    assert render(trace.value(trace.last)) == "[5, 1, 7, ['a', 'bb'], 6, 4]"
    names = {function.name.rpartition(".")[2] for function in trace.header.functions}
    assert {"wrapper", "unusual", "Local", "held", "empty", "size", "<lambda>", "double", "__init__"} <= names
    body = positions(trace, "Local")
    assert shown_locals(trace, body[-1])["a"] == "4"
    assert len(trace.stack(positions(trace, "<lambda>")[0])) >= 3


def loop(n: int) -> int:
    total = 0
    for i in range(n):
        total += i
    after = total
    return after + 1


def test_a_hot_loop_is_capped_and_what_comes_after_it_is_not_lost() -> None:
    trace = record(loop, 20_000, limits=Limits(hits=50))
    function = trace.header.functions[0]
    counted = trace.lines_hit(0)
    assert counted[function.first_line + 3] == 50
    assert counted[function.first_line + 4] == 1
    assert shown_locals(trace, trace.last)["after"] == str(sum(range(20_000)))
    elided = trace.elided(0, function.first_line + 3)
    assert elided == 19_950 if sys.version_info < (3, 12) else elided == -1


def rare(n: int) -> str:
    if n == 900:
        found = "rare"
        return found
    return ""


def often() -> str:
    return "".join([rare(n) for n in range(1_000)])


def test_a_line_that_runs_for_the_first_time_in_a_hot_function_is_recorded() -> None:
    trace = record(often, limits=Limits(hits=20))
    first = next(f.first_line for f in trace.header.functions if f.name == "rare")
    at = trace.hits(0, first + 2)
    assert len(at) == 1
    assert shown_locals(trace, at[0]) == {"n": "900"}
    assert len(trace.stack(at[0])) >= 2


def late_failure(n: int) -> None:
    for i in range(n):
        a = i
        b = a + i
        if b == 2 * (n - 1):
            raise ValueError(b)


def test_the_failure_is_recorded_though_the_limit_of_events_was_reached() -> None:
    trace = record(late_failure, 5_000, limits=Limits(events=500))
    assert trace.header.is_full
    assert len(trace) < 600
    assert trace.failure is not None
    assert render(trace.value(trace.failure)) == "ValueError(9998)"
    assert shown_locals(trace, trace.failure) == {"n": "5000", "i": "4999", "a": "4999", "b": "9998"}


def distinct(n: int) -> str:
    text = ""
    for i in range(n):
        text = f"{i:0100}"
    return text


def test_the_bytes_of_values_are_bounded_too() -> None:
    trace = record(distinct, 1_000, limits=Limits(value_bytes=20_000))
    assert trace.header.is_full
    assert render(trace.value(trace.last)) == "(not recorded: the trace is full)"


class Tracked:
    """Something whose end can be seen."""


def lives_and_dies() -> bool:
    thing = Tracked()
    seen = weakref.ref(thing)
    thing = None  # type: ignore[assignment]
    gone = seen() is None
    return gone


def test_an_object_lives_no_longer_for_being_recorded() -> None:
    trace = record(lives_and_dies)
    assert render(trace.value(trace.last)) == "True"


def test_code_of_libraries_is_recorded_only_when_asked_for() -> None:
    def parse() -> Any:
        import textwrap

        return textwrap.dedent(" a")

    assert [f.name.rpartition(".")[2] for f in record(parse).header.functions] == ["parse"]
    assert "dedent" in [f.name for f in record(parse, into=("textwrap",)).header.functions]
    with pytest.raises(InvalidArgument, match="no package 'nowhere'"):
        Recorder(into=("nowhere",))
    with pytest.raises(InvalidArgument, match="no package 'math'"):
        Recorder(into=("math",))


def test_a_recording_of_nothing_says_so(tmp_path: Path) -> None:
    recorder = Recorder()
    with recorder:
        sorted([2, 1])
    with pytest.raises(TraceError, match="nothing was recorded") as raised:
        recorder.save(tmp_path / "t.ktrace", About())
    assert "--trace-into" in str(raised.value)


def test_nothing_is_left_behind_after_a_recording(tmp_path: Path) -> None:
    before = (sys.gettrace(), threading.gettrace())
    save(tmp_path / "t.ktrace", add_up, [1])
    assert (sys.gettrace(), threading.gettrace()) == before
    if sys.version_info >= (3, 12):
        assert sys.monitoring.get_tool(3) is None
    assert [path.name for path in tmp_path.iterdir()] == ["t.ktrace"]
    assert (tmp_path / "t.ktrace").stat().st_mode & 0o777 == 0o600


def test_the_hook_of_another_tool_is_given_back() -> None:
    seen = []

    def other(*event: Any) -> None:
        seen.append(event)

    before = sys.gettrace()
    sys.settrace(other)
    try:
        record(add_up, [1])
        assert sys.gettrace() is other
    finally:
        sys.settrace(before)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is of Python 3.12")
def test_ids_of_monitoring_that_are_taken_are_left_alone() -> None:
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
    monitoring.use_tool_id(3, "other")
    try:
        assert len(record(add_up, [1])) == 7
        monitoring.use_tool_id(4, "another")
        with pytest.raises(KairosError, match="monitored by other tools") as raised, Recorder():
            pass
        assert "other, another" in str(raised.value)
    finally:
        monitoring.free_tool_id(3)
        monitoring.free_tool_id(4)


def recurse(n: int) -> int:
    return 0 if n == 0 else 1 + recurse(n - 1)


def test_the_limit_of_recursion_is_met_as_without_a_recorder() -> None:
    met = []

    def meet_it() -> None:
        try:
            recurse(100_000)
        except RecursionError as exc:
            met.append(str(exc))

    trace = record(meet_it)
    assert met
    assert len(trace) > 1_000
    if sys.version_info < (3, 12):
        # There, whatever a trace function raises takes it away; at the limit, calling it does.
        assert "limit of recursion" in str(trace.header.trouble)
    else:
        assert trace.header.trouble is None
        assert list(shown_locals(trace, trace.last)) == ["met"]


def meddle() -> int:
    before = sys.gettrace()
    sys.settrace(None)
    a = 1
    sys.settrace(before)
    return a


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="sys.settrace is the backend of 3.11")
def test_code_that_takes_the_trace_function_away_is_told_of() -> None:
    def take_away() -> None:
        sys.settrace(None)

    assert "took the trace function away" in str(record(take_away).header.trouble)
    assert record(meddle).header.trouble is None


def test_threads_that_run_on_after_the_recording_are_let_be(tmp_path: Path) -> None:
    go_on, done = threading.Event(), []

    def outlive() -> None:
        go_on.wait()
        for i in range(100):
            done.append(i)

    thread = threading.Thread(target=outlive)
    recorder = save(tmp_path / "t.ktrace", thread.start)
    recorded = len(recorder)
    go_on.set()
    thread.join()
    assert len(recorder) == recorded
    assert len(done) == 100


def test_many_threads_at_once_lose_no_event() -> None:
    def work(n: int) -> int:
        total = 0
        for i in range(50):
            total += i
        return total + n

    def together() -> None:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    trace = record(together)
    returned = sorted(render(trace.value(at)) for at in positions(trace, "work", Kind.RETURN))
    assert returned == sorted(str(1225 + n) for n in range(8))
    for at in positions(trace, "work", Kind.RETURN):
        assert shown_locals(trace, at)["total"] == "1225"


def test_the_overhead_is_said_and_is_bounded(tmp_path: Path) -> None:
    recorder = Recorder()
    begun = time.perf_counter()
    with recorder:
        loop(30_000)
    taken = time.perf_counter() - begun
    summary = recorder.save(tmp_path / "t.ktrace", About())
    assert str(summary).startswith(f"recorded {len(recorder):,} events, at least x")
    assert " slower; 2 lines ran on unrecorded" in str(summary)
    measured = recorder.save(tmp_path / "t.ktrace", About(), plain_ns=1_000_000)
    assert measured.overhead == f"x{Trace.open(tmp_path / 't.ktrace').header.wall_ns / 1e6:.1f} slower"
    # 10 to 20 microseconds per event where the machine has nothing else to do; 10 times that is slack.
    assert taken < len(recorder) * 200e-6
