"""What may be asked for on the command line, and what is said of the rest."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kairos.errors import BreakpointError
from kairos.replay.stopping.breakpoints import (
    Breakpoint,
    StopOptions,
    check_steps,
    parse_breakpoint,
    parse_listen,
    stop_options,
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("charge", Breakpoint("charge")),
        ("charge:27", Breakpoint("charge", 27)),
        ("charge:+0", Breakpoint("charge", 0, relative=True)),
        ("charge:+3", Breakpoint("charge", 3, relative=True)),
        ("send.mail-2:1", Breakpoint("send.mail-2", 1)),
    ],
)
def test_a_place_is_a_step_and_maybe_a_line(text: str, meant: Breakpoint) -> None:
    assert parse_breakpoint(text) == meant
    assert str(meant) == text


@pytest.mark.parametrize(
    "text", ["", ":", ":3", "charge:", "charge:x", "charge:-1", "a:1:2", "charge:+", "charge:\u0661"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(BreakpointError, match="is not a place to stop at") as caught:
        parse_breakpoint(text)
    assert "STEP:LINE" in (caught.value.hint or "")


@given(st.text(max_size=30))
def test_any_text_is_a_breakpoint_or_an_error_of_kairos(text: str) -> None:
    try:
        parsed = parse_breakpoint(text, text)
    except BreakpointError:
        return
    assert parsed.condition == text


@pytest.mark.parametrize("text", ["x >", "", "x = 1", "import os", "a\0b", "(" * 500 + ")" * 500, "await x", "'"])
def test_a_condition_must_be_one_expression(text: str) -> None:
    with pytest.raises(BreakpointError, match="--if"):
        parse_breakpoint("charge", text)


def test_one_condition_holds_for_all_and_several_belong_in_their_order() -> None:
    assert [b.condition for b in stop_options(["a", "b"], ["x"]).breakpoints] == ["x", "x"]
    assert [b.condition for b in stop_options(["a", "b"], ["x", "y"]).breakpoints] == ["x", "y"]
    assert [b.condition for b in stop_options(["a", "b"]).breakpoints] == [None, None]


@pytest.mark.parametrize(("break_at", "conditions"), [([], ["x"]), (["a"], ["x", "y"]), (["a", "b", "c"], ["x", "y"])])
def test_conditions_without_a_place_are_refused(break_at: list[str], conditions: list[str]) -> None:
    with pytest.raises(BreakpointError, match=f"{len(conditions)} --if for {len(break_at)} --break-at"):
        stop_options(break_at, conditions)


def test_an_unknown_step_is_told_the_nearest() -> None:
    with pytest.raises(BreakpointError, match="there is no step 'chrage'") as caught:
        check_steps([parse_breakpoint("reserve"), parse_breakpoint("chrage:3")], ["reserve", "charge"])
    assert caught.value.hint == "Did you mean 'charge'?"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"break_on": ["failure"]}, "--break-on 'failure' is not known\n  hint: Did you mean 'fail'?"),
        ({"debugger": "pdp"}, "--debugger 'pdp' is not known\n  hint: Did you mean 'pdb'?"),
        ({"listen": ":1"}, "--listen is where debugpy waits\n  hint: Add --debugger debugpy."),
    ],
)
def test_a_wrong_word_is_told_the_right_one(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(BreakpointError) as caught:
        stop_options(**options)  # type: ignore[arg-type]
    assert str(caught.value) == complaint


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("5679", ("127.0.0.1", 5679)),
        (":5679", ("127.0.0.1", 5679)),
        ("127.0.0.2:0", ("127.0.0.2", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_a_debugger_listens_on_this_machine(text: str, meant: tuple[str, int]) -> None:
    assert parse_listen(text) == meant


@pytest.mark.parametrize(
    "text", ["0.0.0.0:5678", "10.0.0.1:5678", "example.org:5678", "[::]:5678", "[::ffff:0.0.0.0]:1"]
)
def test_a_debugger_listens_nowhere_else(text: str) -> None:
    with pytest.raises(BreakpointError, match="on this machine only"):
        parse_listen(text)


@pytest.mark.parametrize("text", ["", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", "127.0.0.1:-1"])
def test_a_port_is_a_number(text: str) -> None:
    with pytest.raises(BreakpointError, match="is not HOST:PORT"):
        parse_listen(text)


def test_options_go_to_the_child_and_come_back_as_json() -> None:
    options = stop_options(
        ["a:+2", "b"], ["x > 1"], ["fail", "diverge"], post_mortem=True, debugger="debugpy", listen="[::1]:0"
    )
    assert StopOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_without_any_option_nothing_stops() -> None:
    assert not stop_options()
    assert stop_options(["a"])
    assert stop_options(break_on=["fail"])
    assert stop_options(post_mortem=True)
    assert stop_options(debugger="debugpy")
