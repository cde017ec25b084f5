"""What a page shows of a trace: places in addresses, moves, locals, hits; and where an error meets a source."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debugger_ui import tracing
from debugger_ui.changes import compare_step
from debugger_ui.shapes import shape_of
from debugger_ui.sources import find_crash, lines_of, raised_in
from kairos.domain.error_info import ErrorInfo, Frame
from kairos.domain.fingerprint import Definition
from kairos.domain.graph import Graph, StepSpec
from kairos.errors import InvalidArgument, TraceError
from kairos.replay.trace.history import Trace
from kairos.replay.trace.layout import Kind
from kairos.replay.trace.stepper import Stepper
from tests.replay.trace.tracing_support import record


def halve(number: int) -> int:
    return number // 2


def walk(numbers: list[int]) -> int:
    total = 0
    for number in numbers:
        total += halve(number)
    if total > 5:
        del numbers
        raise ValueError(total)
    return total


@pytest.fixture(scope="module")
def trace() -> Trace:
    return record(walk, [2, 4, 8])


def test_every_position_has_an_address_that_leads_back_to_it(trace: Trace) -> None:
    places = [tracing.place_of(trace, position) for position in range(len(trace))]
    assert len(set(places)) == len(trace)
    assert [tracing.read_place(trace, place) for place in places] == list(range(len(trace)))
    line = next(at for at in range(len(trace)) if trace.kind(at) is Kind.LINE)
    assert tracing.read_place(trace, tracing.place_of(trace, line).partition("~")[0]) == line


@pytest.mark.parametrize("text", ["", "x", "x:1", "@0", "@99999", ":1", "test_tracing.py:1", "test_tracing.py:27~99"])
def test_an_address_of_nothing_is_refused_in_words(trace: Trace, text: str) -> None:
    with pytest.raises(TraceError):
        tracing.read_place(trace, text)


@given(text=st.text(max_size=40))
def test_no_text_in_an_address_breaks_anything(text: str) -> None:
    trace = record(halve, 4)
    try:
        assert 0 <= tracing.read_place(trace, text) < len(trace)
    except TraceError:
        pass


@pytest.mark.parametrize(
    ("way", "command"),
    [("back", "b"), ("step", "s"), ("previous", "p"), ("next", "n"), ("rout", "rout"), ("out", "out")],
)
def test_a_step_leads_where_the_terminal_leads(trace: Trace, way: str, command: str) -> None:
    for position in range(len(trace)):
        stepper = Stepper(trace)
        stepper.answer(f"goto {position + 1}")
        stepper.answer(command)
        assert tracing.move(trace, position, way) == stepper.position


def test_several_steps_are_one_after_the_other_and_end_at_the_end(trace: Trace) -> None:
    last = tracing.move(trace, 0, "step", times=1000)
    assert last == trace.last
    assert tracing.move(trace, last, "back", times=2) == trace.back(trace.back(last) or 0)
    with pytest.raises(InvalidArgument, match="sideways"):
        tracing.move(trace, 0, "sideways")


def test_what_a_line_changed_is_marked_with_what_it_was(trace: Trace) -> None:
    adds = next(line for line, text in trace.source(0).items() if "total += " in text)
    second = tracing.move(trace, trace.hits(0, adds)[1], "next")
    stop = tracing.look(trace, second)
    (changed,) = [local for local in stop.locals if local.is_changed]
    assert (changed.name, changed.value.text, changed.was) == ("total", "3", "1")
    assert stop.wrote == (adds, "total = 3")
    assert stop.locals[0] is changed, "what changed comes first"
    written = tracing.last_write(trace, second, "total")
    assert (trace.line(written), written) == (adds, trace.hits(0, adds)[1])
    with pytest.raises(TraceError, match="'nothing'"):
        tracing.last_write(trace, second, "nothing")


def test_a_deleted_name_is_shown_as_gone(trace: Trace) -> None:
    stop = tracing.look(trace, trace.failure or 0)
    raises = next(s for s in (tracing.look(trace, at) for at in range(len(trace))) if any(x.is_gone for x in s.locals))
    assert [local.name for local in raises.locals if local.is_gone] == ["numbers"]
    assert (stop.what, stop.value and stop.value.text, stop.is_bad) == ("raises", "ValueError(7)", True)


def test_the_caller_is_shown_with_its_locals_of_then(trace: Trace) -> None:
    inside = next(at for at in range(len(trace)) if trace.function(at).name == "halve" and trace.kind(at) is Kind.LINE)
    inner, outer = tracing.look(trace, inside), tracing.look(trace, inside, 1)
    assert [level.function for level in inner.stack] == ["halve", "walk"]
    assert {local.name for local in inner.locals} == {"number"}
    assert {local.name for local in outer.locals} == {"numbers", "total", "number"}
    assert not any(local.is_changed for local in outer.locals)
    assert tracing.look(trace, inside, 50).level == 1, "there are no more"


def test_the_hits_of_a_line_show_the_values_of_an_expression(trace: Trace) -> None:
    line = next(line for line, text in trace.source(0).items() if "//" in text)
    plain = tracing.probe(trace, 0, (0, line), "", None)
    assert [row.value for row in plain.rows] == ["number = 2", "number = 4", "number = 8"]
    asked = tracing.probe(trace, plain.rows[1].position, (0, line), "number > 3", None)
    assert [row.value for row in asked.rows] == ["False", "True", "True"]
    assert [row.is_changed for row in asked.rows] == [False, True, False]
    assert [row.is_here for row in asked.rows] == [False, True, False]
    wrong = tracing.probe(trace, 0, (0, line), "nothing", None)
    assert all(row.problem and "nothing" in row.value for row in wrong.rows)
    for text in ("9" * 5000, "(" * 60, "__import__('os')", "number.__class__", "lambda: 1", "[" * 400 + "]" * 400):
        assert all(row.problem for row in tracing.probe(trace, 0, (0, line), text, None).rows), text
    assert tracing.probe(trace, 0, (0, 1), "", None).rows == []


def test_a_long_list_of_hits_is_paged_around_the_present_one() -> None:
    trace = record(walk, [1] * 120)
    line = next(line for line, text in trace.source(0).items() if "//" in text)
    middle = trace.hits(0, line)[80]
    found = tracing.probe(trace, middle, (0, line), "number", None)
    assert (found.total, found.start, len(found.rows)) == (120, 55, tracing.HITS)
    assert [row.number for row in found.rows if row.is_here] == [81]
    assert tracing.probe(trace, middle, (0, line), "number", 100).rows[0].number == 101


def test_the_shape_of_a_trace_is_bounded() -> None:
    path, marks = shape_of(record(walk, [2] * 500))
    assert path.count("V") <= 202
    assert marks


# -- errors in sources

SOURCE = """@flow.step
def charge(order):
    check(order)
    total = 1 / order
    check(order)
    return total
"""


def error(*frames: Frame) -> ErrorInfo:
    return ErrorInfo("builtins.ValueError", "no", frames)


def test_the_line_that_failed_is_found_by_its_text_and_numbered_as_in_its_file() -> None:
    crash = find_crash(SOURCE, error(Frame("/a.py", 43, "charge", "total = 1 / order")))
    assert crash is not None
    assert (crash.lines, crash.first, crash.is_sure, crash.inner) == ((4,), 40, True, ())
    assert [(line.number, line.is_crash) for line in lines_of(SOURCE, crash)][2:4] == [(42, False), (43, True)]


def test_a_failure_in_a_helper_marks_the_line_that_called_it() -> None:
    helper = Frame("/a.py", 9, "check", "raise ValueError")
    crash = find_crash(SOURCE, error(Frame("/a.py", 43, "app.<locals>.charge", "total = 1 / order"), helper))
    assert crash is not None
    assert (crash.lines, crash.inner) == ((4,), (helper,))
    assert raised_in([helper, Frame("/x/site-packages/lib.py", 1, "f")]) == helper


def test_lines_that_are_alike_are_told_apart_by_another_frame_or_all_marked() -> None:
    twin = Frame("/a.py", 44, "charge", "check(order)")
    crash = find_crash(SOURCE, error(twin))
    assert crash is not None
    assert (crash.lines, crash.is_sure, crash.first) == ((3, 5), False, None)
    sure = find_crash(SOURCE, error(Frame("/a.py", 43, "charge", "total = 1 / order"), twin))
    assert sure is not None
    assert (sure.lines, sure.first) == ((5,), 40)


@pytest.mark.parametrize(
    "frames",
    [(), (Frame("/a.py", 3, "other", "total = 1 / order"),), (Frame("/a.py", 3, "charge", "gone = 1"),),
     (Frame("", 0, "(3 frames left out)"),)],
    ids=["none", "elsewhere", "changed", "gap"],
)  # fmt: skip
def test_an_error_from_elsewhere_marks_nothing(frames: tuple[Frame, ...]) -> None:
    assert find_crash(SOURCE, error(*frames)) is None


def definition(source: str, **more: Any) -> Definition:
    graph = Graph("flow", {"charge": StepSpec(name="charge", **more)})
    return Definition(graph, {"charge": source}, {"charge": str(hash(source))}, {})


def test_a_changed_step_is_told_line_by_line() -> None:
    then, now = definition(SOURCE), definition(SOURCE.replace("1 / order", "2 / order"))
    change = compare_step(then, now, "charge", "here")
    assert change.what == "has other code for this step"
    shown = [(line.kind, line.old, line.new, "".join(text for _, text in line.pieces)) for line in change.lines]
    assert ("old", 4, None, "    total = 1 / order") in shown
    assert ("new", None, 4, "    total = 2 / order") in shown
    assert compare_step(then, then, "charge", "here").what == ""
