"""The form of a fork without a server: from a schema and a value to controls, and back; edits; command lines."""

from __future__ import annotations

import json
import shlex
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debugger_ui.family import arrange
from debugger_ui.forks.asking import Ask, Target, collect, read_ask, read_target, target_names
from debugger_ui.forks.changes import edits_of
from debugger_ui.forks.commands import fork_line, replay_line
from debugger_ui.forks.fields import MISSING, Field, describe, pretty, retyped, value_of, with_errors
from kairos.cli.forking import read_output, read_set
from kairos.domain.editing import apply_edits, read_edits
from kairos.domain.ids import uuid7
from kairos.store.forks import Fork

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
JSON = st.recursive(
    SCALARS | NAMES,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(NAMES, inside, max_size=4),
    max_leaves=20,
)
ORDER = {
    "type": "object",
    "required": ["amount", "address"],
    "properties": {
        "amount": {"type": "integer", "minimum": 0},
        "rate": {"type": "number", "default": 1.5},
        "speed": {"$ref": "#/$defs/Speed"},
        "coupon": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "express": {"type": "boolean"},
        "address": {"$ref": "#/$defs/Address"},
        "lines": {"type": "array", "items": {"type": "object"}},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    },
    "$defs": {
        "Speed": {"enum": ["slow", "fast"], "type": "string"},
        "Address": {"type": "object", "properties": {"city": {"type": "string", "description": "where\nto"}}},
    },
}
VALUE = {
    "amount": 5,
    "rate": 9.5,
    "speed": "slow",
    "coupon": None,
    "express": False,
    "address": {"city": "Berlin"},
    "lines": [{"sku": "a"}],
    "either": "x",
}


def form(schema: Any, value: Any) -> Field:
    found = describe(schema, value)
    assert found is not None
    return found


def texts(field: Field) -> tuple[dict[str, str], dict[str, str]]:
    """What a browser sends of a form that nobody touched: lines end as browsers end them."""
    leaves = [f for f in field.walk() if f.kind not in ("group", "fixed")]
    typed = {f.pointer: f.text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n") for f in leaves}
    return typed, {f.pointer: "1" for f in leaves if f.is_null}


def typed(value: Any, schema: Any = ORDER, /, **changes: str) -> Field:
    field = form(schema, value)
    sent, nulls = texts(field)
    for name, text in changes.items():
        sent["/" + name.replace("__", "/")] = text
    return retyped(field, sent, nulls)


@given(JSON)
def test_a_form_that_nobody_touched_changes_nothing(value: Any) -> None:
    field = describe({}, value)
    if field is not None:
        assert pretty(value_of(retyped(field, *texts(field)))) == pretty(value)


@given(JSON, JSON)
def test_a_schema_of_any_shape_makes_no_trouble(schema: Any, value: Any) -> None:
    field = describe(schema, value)
    if field is not None:
        retyped(field, *texts(field))


@given(JSON, JSON)
def test_edits_turn_the_old_value_into_the_new_one(old: Any, new: Any) -> None:
    changed, whole = edits_of("charge", deepcopy(old), new)
    edits = read_edits(changed, whole, ["charge"])
    assert pretty(apply_edits(deepcopy(old), edits)) == pretty(new)
    assert bool(edits) == (json.dumps(old) != json.dumps(new)) or old == new


def test_controls_have_the_kinds_of_the_schema() -> None:
    kinds = {f.pointer: f.kind for f in form(ORDER, VALUE).walk()}
    assert kinds == {
        "": "group",
        "/amount": "integer",
        "/rate": "number",
        "/speed": "choice",
        "/coupon": "text",
        "/express": "boolean",
        "/address": "group",
        "/address/city": "text",
        "/lines": "json",
        "/either": "text",
    }
    by_name = {f.pointer: f for f in form(ORDER, VALUE).walk()}
    assert by_name["/speed"].choices == ('"slow"', '"fast"')
    assert by_name["/coupon"].can_be_null
    assert by_name["/coupon"].is_null
    assert by_name["/amount"].note == "at least 0"
    assert by_name["/address/city"].note == "where to"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("amount", "7", 7),
        ("rate", "3", 3),
        ("rate", "1e3", 1000.0),
        ("speed", '"fast"', "fast"),
        ("express", "true", True),
        ("lines", "[]", []),
        ("either", "7", "7"),
        ("coupon", "X1", "X1"),
        ("address__city", "", ""),
    ],
)
def test_what_is_typed_has_its_type(name: str, text: str, expected: Any) -> None:
    value = value_of(typed(VALUE, **{name: text}))
    for part in name.split("__"):
        value = value[part]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("amount", "1.5", "a whole number is needed, not '1.5'"),
        ("amount", "", "a value is needed here"),
        ("amount", "9" * 400, "a whole number is needed"),
        ("rate", "nan", "a number is needed"),
        ("rate", "0x10", "a number is needed"),
        ("speed", '"warp"', 'is not one of "slow", "fast"'),
        ("express", "yes", "true or false is needed"),
        ("lines", "[1,", "not JSON: "),
        ("lines", "[NaN]", "JSON does not have NaN"),
        ("lines", "[" * 100_000, "not JSON"),
    ],
)
def test_what_is_typed_wrongly_stands_at_its_field(name: str, text: str, said: str) -> None:
    wrong = {f.pointer: f.error for f in typed(VALUE, **{name: text}).walk() if f.error}
    assert list(wrong) == [f"/{name}"]
    assert said in wrong[f"/{name}"]


def test_what_the_value_does_not_have_stays_away_until_something_is_typed() -> None:
    value = {"amount": 5, "address": {}}
    assert value_of(typed(value)) == value
    assert value_of(typed(value, express="true", address__city="Rome")) == {
        "amount": 5,
        "express": True,
        "address": {"city": "Rome"},
    }
    assert value_of(typed(MISSING)) is MISSING
    assert value_of(typed(MISSING, amount="1")) == {"amount": 1}


def test_null_is_chosen_and_taken_back() -> None:
    field = form(ORDER, {**VALUE, "coupon": "X1"})
    sent, nulls = texts(field)
    assert value_of(retyped(field, sent, {**nulls, "/coupon": "1"}))["coupon"] is None
    field = form(ORDER, VALUE)
    sent, nulls = texts(field)
    assert value_of(retyped(field, sent, {}))["coupon"] == ""
    assert value_of(retyped(field, {**sent, "/coupon": "X1"}, nulls))["coupon"] == "X1", "typed into a null field"


@pytest.mark.parametrize(
    "value", [[1, 2], {f"k{i}": i for i in range(80)}, {"a": {"b": 1, **{f"k{i}": i for i in range(70)}}, "c": 1}]
)
def test_what_a_form_cannot_show_is_edited_as_json(value: Any) -> None:
    field = describe({}, value)
    assert field is None or any(f.kind == "json" for f in field.walk())


def test_a_text_that_is_too_long_is_left_alone() -> None:
    field = form({}, {"a": "x" * 30_000, "b": 1})
    assert [f.kind for f in field.children] == ["fixed", "integer"]
    assert value_of(retyped(field, {"/b": "2", "/a": "gone"}, {})) == {"a": "x" * 30_000, "b": 2}


def test_errors_of_the_client_stand_at_the_nearest_control() -> None:
    field = with_errors(form(ORDER, VALUE), {("amount",): "too small", ("lines", 0, "sku"): "odd", (): "missing"})
    assert {f.pointer: f.error for f in field.walk() if f.error} == {
        "": "missing",
        "/amount": "too small",
        "/lines": "0.sku: odd",
    }


def target(given: dict[str, str], old: Any = VALUE, schema: Any = ORDER) -> Target:
    return read_target(given, Target("input", 0, old), schema)


def test_a_value_is_turned_into_json_and_back_with_what_was_typed() -> None:
    sent, nulls = texts(form(ORDER, VALUE))
    fields = {f"v0{p}": t for p, t in sent.items()} | {f"n0{p}": "1" for p in nulls}
    as_json = target({"t0": "input", "m0": "fields", **fields, "v0/amount": "9", "do": "json:input"})
    assert as_json.mode == "json"
    assert json.loads(as_json.text) == {**VALUE, "amount": 9}
    back = target({"t0": "input", "m0": "json", "j0": as_json.text, "do": "fields:input"})
    assert back.mode == "fields"
    assert back.root is not None
    assert value_of(back.root) == {**VALUE, "amount": 9}
    odd = target({"t0": "input", "m0": "json", "j0": '{"other": 1}', "do": "fields:input"})
    assert odd.mode == "json"
    assert "another shape" in odd.error
    wrong = target({"t0": "input", "m0": "json", "j0": "{", "do": "fields:input"})
    assert wrong.mode == "json"
    assert "not JSON" in wrong.error


def test_lines_of_path_and_value_are_read_as_the_command_reads_them() -> None:
    ask = collect(Ask("charge", sets='input.amount=5\r\nreserve["a=b"]=text\n\nnonsense'))
    assert ask.set == {"input.amount": 5, 'reserve["a=b"]': "text"}
    assert len(ask.line_errors) == 1
    assert "is not PATH=VALUE" in ask.line_errors[0]
    assert not ask.is_fine


def test_the_same_form_has_one_key_and_a_changed_one_another() -> None:
    first, again = Ask("a", nonce="00ff00ff", set={"input.x": 1}), Ask("a", nonce="00ff00ff", set={"input.x": 1})
    assert first.key == again.key
    assert first.key is not None
    others = [Ask("b", nonce="00ff00ff"), Ask("a", nonce="00ff00ff", reason="x"), Ask("a", nonce="11ff00ff")]
    assert len({first.key, *(other.key for other in others)}) == 4
    assert read_ask({"nonce": "<script>"}, "a").key is None


def test_at_first_the_form_holds_the_input_and_what_the_step_reads(pipeline: Any) -> None:
    assert target_names({}, pipeline, "c", ["a", "b"]) == ["input", "b"]
    assert target_names({"t0": "input", "t1": "a", "do": "add", "add": "b"}, pipeline, "c", []) == ["input", "a", "b"]
    assert target_names({"t0": "input", "t1": "a", "do": "drop:a"}, pipeline, "c", []) == ["input"]
    assert target_names({"t0": "c", "t1": "nothing"}, pipeline, "b", []) == [], "a step that runs has no given output"


@pytest.fixture
def pipeline() -> Any:
    import kairos

    flow = kairos.App("x").workflow("line", input=dict)

    @flow.step
    def a(input: dict) -> int:
        return 1

    @flow.step
    def b(a: int) -> int:
        return a

    @flow.step
    def c(b: int) -> int:
        return b

    return flow.definition.graph


@given(st.dictionaries(NAMES, JSON, max_size=3), JSON, st.text(max_size=20).filter(lambda t: "\0" not in t))
def test_the_line_means_what_the_form_means(inside: dict[str, Any], output: Any, reason: str) -> None:
    run = uuid7(1, 2)
    changed, whole = edits_of("input", dict.fromkeys(inside, 0), inside)
    line = fork_line(run, "charge", set=changed, output={"pack": output, **whole}, version="pinned", reason=reason)
    words = shlex.split(line)
    assert words[:5] == ["kairos", "fork", str(run), "--from", "charge"]
    given_ = [words[i + 1] for i, word in enumerate(words) if word == "--set" and i > 4]
    assert dict(map(read_set, given_)) == changed
    assert read_output(words[words.index("--output") + 1]) == ("pack", output)
    assert ("--reason" in words) == bool(reason)


def test_the_replay_line_stops_where_one_looks() -> None:
    run = uuid7(1, 2)
    assert replay_line(run) == f"kairos replay {run}"
    assert replay_line(run, "charge", 2) == f"kairos replay {run} --break-at charge --attempt 2"


def test_a_tree_of_forks_has_parents_above_and_loses_nobody() -> None:
    import datetime as dt

    ids = [uuid7(i, i) for i in range(6)]
    at = dt.datetime.now(dt.UTC)

    def fork(run: int, parent: int) -> Fork:
        return Fork(ids[run], ids[parent], ids[0], 3, "charge", at, "ann", "")

    # 5 hangs on a run that is not known any more.
    tree = arrange(ids[0], [fork(1, 0), fork(2, 1), fork(3, 0), fork(5, 4)], {})
    assert [ids.index(m.run_id) for m in tree.members] == [0, 1, 2, 3, 5]
    assert [m.depth for m in tree.members] == [0, 1, 2, 1, 1]
    assert [m.above for m in tree.members] == [None, 0, 1, 0, 0]
    assert len(tree.lines) == 4
    assert tree.height == 5 * 44
