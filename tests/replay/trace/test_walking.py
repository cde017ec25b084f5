"""Walking over a trace: steps in both directions, writes, breakpoints, expressions, the commands of the stepper."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from kairos.errors import TraceError
from kairos.replay.trace.breakpoints import Breakpoint, line_that_ran, run
from kairos.replay.trace.capture import Limits
from kairos.replay.trace.expressions import evaluate
from kairos.replay.trace.history import Trace
from kairos.replay.trace.layout import Kind
from kairos.replay.trace.stepper import Stepper
from tests.replay.trace.tracing_support import positions, record, shown_locals


def price(order: dict[str, Any]) -> int:
    total = 0
    for row in order["rows"]:
        total += row["qty"] * row["price"]
    # A line that does not run.
    return total


def bill(orders: list[dict[str, Any]]) -> dict[str, int]:
    owed: dict[str, int] = {}
    for order in orders:
        amount = price(order)
        if amount < 0:
            raise ValueError(f"order {order['id']} owes {amount}")
        owed[order["who"]] = owed.get(order["who"], 0) + amount
    return owed


ORDERS = [
    {"id": 1, "who": "ann", "rows": [{"qty": 2, "price": 5}]},
    {"id": 2, "who": "bob", "rows": [{"qty": 1, "price": 7}, {"qty": 1, "price": 1}]},
    {"id": 3, "who": "ann", "rows": [{"qty": 1, "price": -4}]},
]
FIRST = bill.__code__.co_firstlineno
IN_PRICE = price.__code__.co_firstlineno


@pytest.fixture(scope="module")
def trace() -> Trace:
    return record(bill, ORDERS)


def lines(trace: Trace, way: list[int]) -> list[int]:
    return [trace.line(at) - FIRST for at in way]


def way(trace: Trace, start: int, move: Any) -> list[int]:
    """All positions that a move leads to."""
    found, at = [start], start
    while (to := move(at)) is not None:
        found.append(to)
        at = to
        assert len(found) < 10_000
    return found


def test_next_goes_over_calls_and_previous_is_its_reverse(trace: Trace) -> None:
    forwards = way(trace, trace.first, trace.next)
    assert lines(trace, forwards) == [1, 2, 3, 4, 6, 2, 3, 4, 6, 2, 3, 4, 5, 5]
    assert way(trace, forwards[-1], trace.previous) == forwards[::-1]


def test_step_goes_into_calls_and_back_is_its_reverse(trace: Trace) -> None:
    forwards = way(trace, trace.first, trace.step)
    assert set(forwards) == {at for at in range(len(trace)) if trace.is_stop(at)}
    assert way(trace, forwards[-1], trace.back) == forwards[::-1]


def test_out_and_back_out_lead_to_the_caller(trace: Trace) -> None:
    inside = positions(trace, "price")[2]
    after, before = trace.out(inside), trace.back_out(inside)
    assert after is not None
    assert before is not None
    assert (trace.line(after) - FIRST, trace.line(before) - FIRST) == (4, 3)
    assert before < inside < after
    # From the last line of a frame, next leads out as well; from its first, previous does.
    assert trace.next(positions(trace, "price", Kind.RETURN)[0]) == after
    assert trace.previous(positions(trace, "price")[0]) == before


def test_the_stack_tells_where_each_caller_waits(trace: Trace) -> None:
    levels = trace.stack(positions(trace, "price")[0])
    assert [trace.function(level.position).name for level in levels] == ["price", "bill"]
    assert trace.line(levels[1].position) - FIRST == 3
    assert shown_locals(trace, levels[1].position)["owed"] == "{}"


def test_the_failure_is_where_the_exception_was_raised(trace: Trace) -> None:
    assert trace.failure is not None
    assert trace.line(trace.failure) - FIRST == 5
    assert trace.is_raise(trace.failure)


def test_writes_tell_who_gave_a_local_its_value(trace: Trace) -> None:
    assert trace.failure is not None
    frame = trace.file.frames[trace.failure]
    told = [(w.done_at is not None and trace.line(w.done_at) - FIRST, w.value) for w in trace.writes("amount", frame)]
    assert told == [(3, 10), (3, 8), (3, -4)]
    last = trace.last_write("amount", trace.failure)
    assert last is not None
    assert last.done_at is not None
    assert last.done_at < last.seen_at < trace.failure
    argument = trace.last_write("orders", trace.failure)
    assert argument is not None
    assert argument.done_at is None
    assert trace.last_write("nothing", trace.failure) is None


def test_a_breakpoint_with_a_condition_is_met_in_both_directions(trace: Trace) -> None:
    found = Breakpoint(1, 0, FIRST + 4, "amount < 9 and order['who'] == 'bob'")
    there = run(trace, trace.first, [found])
    assert there is not None
    assert shown_locals(trace, there)["amount"] == "8"
    assert run(trace, trace.last, [found], backwards=True) == there
    assert run(trace, there, [found]) is None
    raised = run(trace, trace.first, [], raises=True)
    assert raised == trace.failure


def test_a_condition_that_cannot_be_evaluated_stops_nowhere_and_says_why(trace: Trace) -> None:
    found = Breakpoint(1, 0, FIRST + 4, "amount.real > 1")
    assert run(trace, trace.first, [found]) is None
    assert list(found.failures.values()) == ["a int has no recorded attributes"] * 3


def test_a_breakpoint_moves_to_the_next_line_that_ran(trace: Trace) -> None:
    assert line_that_ran(trace, 0, FIRST + 4) == FIRST + 4
    assert line_that_ran(trace, 0, IN_PRICE + 4) == IN_PRICE + 5
    assert line_that_ran(trace, 0, FIRST + 7) is None
    assert line_that_ran(trace, 0, 1) is None


class Thing:
    def __init__(self) -> None:
        self.count = 3
        self.tags = ["a", "b"]

    @property
    def never(self) -> int:
        raise AssertionError("a property was run")


def sample(long: list[int], password: str) -> None:
    thing, text, number = Thing(), "x" * 400, Decimal("1.5")
    table = {"k": [1, 2], 3: "three"}
    done = (thing, text, number, table)
    del done


EVALUATED: list[tuple[str, object]] = [
    ("thing.count + 1", 4),
    ("thing.tags[-1]", "b"),
    ("table['k'][1] == 2", True),
    ("table[3]", "three"),
    ("len(long)", 100),
    ("len(text)", 400),
    ("long[19]", 19),
    ("5 in long and 'x' in text", True),
    ("number * 2 > 2.9", True),
    ("thing is None or not long", False),
    ("thing is not None", True),
    ("'k' in table", True),
    ("[n for n in long]", "cannot be evaluated"),
    ("(lambda: 1)()", "cannot be evaluated"),
    ("thing.never", "no recorded attribute 'never'"),
    ("thing.tags.append(1)", "cannot be evaluated"),
    ("long[50]", "item 50 of 100 was not recorded"),
    ("long[200]", "there is no item 200"),
    ("999 in long", "the rest was not recorded"),
    ("text == 'y'", "all of this value was not recorded"),
    ("password", "[redacted]"),
    ("password == 'x'", "this value is redacted"),
    ("thing == thing", "is code"),
    ("nobody", "no local variable 'nobody'"),
    ("__import__('os').system('true')", "cannot be evaluated"),
    ("open('/etc/passwd')", "open() cannot be called"),
    ("'x' * 1000000000", "for numbers"),
    ("10 ** 10 ** 10", "cannot be evaluated"),
    ("1 / 0", "ZeroDivisionError"),
    ("a b", "is not an expression"),
    ("(" * 500, "is not an expression"),
    ("1+" * 600 + "1", "too long"),
]


@pytest.mark.parametrize(("text", "wanted"), EVALUATED, ids=range(len(EVALUATED)))
def test_expressions_know_what_was_recorded_and_nothing_else(text: str, wanted: object) -> None:
    names = _sampled()
    if isinstance(wanted, str) and wanted not in ("b", "three", "[redacted]"):
        with pytest.raises(TraceError) as raised:
            evaluate(text, names)
        assert wanted in str(raised.value)
    elif wanted == "[redacted]":
        assert Stepper(_sampled_trace()).answer("print password") == [[("[redacted]", "")]]
    else:
        assert evaluate(text, names) == wanted


_KEPT: list[Trace] = []


def _sampled_trace() -> Trace:
    if not _KEPT:
        _KEPT.append(record(sample, list(range(100)), "hunter22"))
    return _KEPT[0]


def _sampled() -> dict[str, Any]:
    trace = _sampled_trace()
    return trace.locals_at(trace.last)


def said(stepper: Stepper, *commands: str) -> str:
    """What the last of some commands answers."""
    answer = [stepper.answer(command) for command in commands][-1]
    return "\n".join("".join(text for text, _ in line) for line in answer)


def test_the_stepper_begins_at_the_failure_and_finds_its_cause(trace: Trace) -> None:
    stepper = Stepper(trace)
    begun = "\n".join("".join(text for text, _ in line) for line in stepper.begin())
    assert "raises ValueError('order 3 owes -4')" in begun
    assert re.search(rf"{FIRST + 5} -> +raise ValueError", begun)
    assert "this line made amount = -4" in said(stepper, "last amount")
    assert re.search(rf"{FIRST + 3} +3x-> +amount = price", said(stepper, "list"))
    changes = said(stepper, "when amount changed")
    assert re.findall(r"amount = (-?\d+)", changes) == ["10", "8", "-4"]
    assert "order = {'id': 3" in said(stepper, "locals")
    assert said(stepper, "print order['rows'][0]") == "{'qty': 1, 'price': -4}"
    assert "price" in said(stepper, "s")
    assert "bill" in said(stepper, "u")
    assert said(stepper, "u") == "this is the outermost frame"
    assert "->" in said(stepper, "where")


def test_the_stepper_stops_at_breakpoints_in_both_directions(trace: Trace) -> None:
    stepper = Stepper(trace)
    assert f":{FIRST + 6}" in said(stepper, f"break test_walking.py:{FIRST + 6} if amount > 9")
    assert "amount = 10" in said(stepper, "goto first", "c", "locals")
    assert "no breakpoint or exception before this" in said(stepper, "rc")
    assert "raises ValueError" in said(stepper, "c", "c")
    assert said(stepper, "clear") == "1 removed"
    assert "2 hits" in said(stepper, f"break {FIRST + 6}")
    assert "did not run" in said(stepper, f"break {FIRST + 7}")
    assert "no recorded file is called 'x.py'" in said(stepper, "break x.py:1")


WRONG = [
    ("nxt", "Did you mean `next`?"),
    ("goto", "is not a number"),
    ("goto 0", "positions are 1 to"),
    ("goto 99999999", "positions are 1 to"),
    ("n x", "is not a number"),
    ("when", "whose changes?"),
    ("when nothing changed", "no local 'nothing'"),
    ("last", "has not been given a value"),
    ("hits x", "is no place"),
    (f"break {FIRST + 3} if (", "is not an expression"),
    ("print (", "is not an expression"),
    ("\x00\x1b[2J", "there is no command"),
    ("d", "innermost"),
]


@pytest.mark.parametrize(("command", "answer"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_command_is_explained_and_moves_nothing(trace: Trace, command: str, answer: str) -> None:
    stepper = Stepper(trace)
    at = stepper.position
    assert answer in said(stepper, command)
    assert stepper.position == at


def test_an_empty_line_repeats_and_a_number_multiplies(trace: Trace) -> None:
    stepper = Stepper(trace)
    said(stepper, "goto first", "n 3", "")
    assert stepper.position == way(trace, trace.first, trace.next)[6]
    assert "nothing further" in said(stepper, "n 9999", "n")
    assert stepper.complete("am") == ["amount"]
    assert not stepper.is_over
    said(stepper, "quit")
    assert stepper.is_over


def count_up(n: int) -> int:
    total = 0
    for i in range(n):
        total += i
    return total


def test_hits_tell_each_time_and_what_was_left_out() -> None:
    trace = record(count_up, 500, limits=Limits(hits=60))
    stepper = Stepper(trace)
    told = said(stepper, f"hits {count_up.__code__.co_firstlineno + 3}")
    assert "n=500, total=0, i=0" in told
    assert "20 more hits" in told
    assert "that were not recorded" in told


def test_pages_of_events_and_source_are_there_for_a_browser(trace: Trace) -> None:
    page = trace.page(0, 5)
    assert [event.position for event in page] == [0, 1, 2, 3, 4]
    assert page[0].kind is Kind.CALL
    assert trace.page(len(trace) - 2, 10)[-1].position == len(trace) - 1
    assert all(a.at_us <= b.at_us for a, b in pairwise(page))
    source, hits = trace.source(0), trace.lines_hit(0)
    assert source[FIRST + 3].strip() == "amount = price(order)"
    assert hits[FIRST + 3] == 3
    assert FIRST + 7 not in hits
