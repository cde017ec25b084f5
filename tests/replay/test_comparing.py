"""What differs between two values: few differences where little was changed, in bounded time."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kairos.domain.ignoring import Ignore
from kairos.domain.paths import join
from kairos.errors import InvalidArgument
from kairos.replay.compare import MISSING, compare, difference_bytes

ROWS = [{"id": i, "name": f"n{i}", "tags": ["a", "b"], "price": i * 1.5, "x": {"y": i}} for i in range(500)]


def told(old: Any, new: Any, *ignore: str) -> list[tuple[str, str]]:
    """(path, kind) of the differences."""
    return [(item.path, item.kind) for item in compare(old, new, ignore)]


SCALARS = [
    (1, 1.0, []),
    (0.0, -0.0, []),
    (1, True, [("", "type")]),
    (0, False, [("", "type")]),
    (1, 2.5, [("", "changed")]),
    ("a", "b", [("", "changed")]),
    (None, 0, [("", "type")]),
    ("1", 1, [("", "type")]),
    ({}, [], [("", "type")]),
    ([], [None], [("[0]", "added")]),
    ({"a": 1}, {"a": 1.0}, []),
    ([{"a": 1}, 2], [{"a": 1.0}, 2], []),
    ({"a": 1}, {"a": True}, [("a", "type")]),
    ({"a": None}, {}, [("a", "removed")]),
    ({"a.b": 1, "": 2, "x y": 3, 'q"': 4}, {},
     [('["a.b"]', "removed"), ('[""]', "removed"), ('["x y"]', "removed"), ('["q\\""]', "removed")]),
    ({"né": {"名前": "a"}}, {"né": {"名前": "b"}}, [("né.名前", "changed")]),
    ({"__private": {"__b": 1}}, {"__private": {"__b": 2}}, [("__private.__b", "changed")]),
    ({"a": {"b": {}}}, {"a": {"b": []}}, [("a.b", "type")]),
    ([[1, 2], [3]], [[1], [3, 4]], [("[0][1]", "removed"), ("[1][1]", "added")]),
    ({"b": 1, "a": 2}, {"a": 2, "b": 1}, []),
    ({"x": {"deep": 1}}, {"x": [1]}, [("x", "type")]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), SCALARS, ids=range(len(SCALARS)))
def test_each_kind_of_difference_is_told_by_path(old: Any, new: Any, expected: list[tuple[str, str]]) -> None:
    assert told(old, new) == expected


def test_a_side_that_has_nothing_is_missing() -> None:
    found = compare({"a": 1, "b": None}, {"b": None, "c": 3})
    assert [(d.path, d.old, d.new) for d in found] == [("a", 1, MISSING), ("c", MISSING, 3)]
    assert [d.to_json() for d in found] == [
        {"path": "a", "kind": "removed", "old": 1},
        {"path": "c", "kind": "added", "new": 3},
    ]


def test_a_difference_is_text_too() -> None:
    assert [str(d) for d in compare({"a": [1], "b": 2}, {"a": [2], "c": "x" * 999})] == [
        "a[0]: 1 -> 2",
        "b: 2 -> (missing)",
        f"c: (missing) -> '{'x' * 199}... (1,001 bytes)",
    ]


def without(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != name} for row in rows]


@pytest.mark.parametrize("name", ["nothing", "id"])
def test_one_deletion_and_one_edit_are_two_differences(name: str) -> None:
    new = copy.deepcopy(ROWS)
    del new[3]
    new[300]["price"] = 7
    began = time.perf_counter()
    assert told({"rows": without(ROWS, name)}, {"rows": without(new, name)}) == [
        ("rows[3]", "removed"),
        ("rows[300].price", "changed"),
    ]
    assert time.perf_counter() - began < 2.0  # 0.01 s here, once deepdiff is loaded


def test_an_edit_beside_a_deletion_finds_its_partner() -> None:
    old = [{"a": 1, "b": 2}, {"a": 3, "b": 4}, {"a": 5, "b": 6}]
    assert told(old, [{"a": 3, "b": 0}, {"a": 5, "b": 6}]) == [("[0]", "removed"), ("[0].b", "changed")]
    assert told([{"id": 1, "v": 1}, {"id": 2, "v": 2}], [{"id": 2, "v": 0}]) == [
        ("[0]", "removed"),
        ("[0].v", "changed"),
    ]
    assert told([{"id": 1, "v": 1}], [{"id": 2, "v": 1}]) == [("[0].id", "changed")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([1] * 30_000, [1] * 29_998 + [2, 3]),
        ([0, 1] * 8_000, [1, 0] * 8_000),
        ([[i % 3] for i in range(6_000)], [[(i + 1) % 3] for i in range(6_001)]),
        (list(range(20_000)), list(range(20_000, 0, -1))),
        ("x\n" * 400_000, "y\n" * 400_000),
        ({"text": "\n".join(map(str, range(60_000)))}, {"text": "\n".join(map(str, range(60_001)))}),
        ({str(i): i for i in range(50_000)}, {str(i): -i for i in range(50_000)}),
        ("a" * 20_000_000, "b" * 20_000_000),
    ],
    ids=["end", "shifted", "shifted lists", "reversed", "lines", "long text", "wide", "long"],
)
def test_the_time_is_bounded(old: Any, new: Any) -> None:
    began = time.perf_counter()
    found = compare(old, new)
    assert found
    assert len(found) <= 1_000
    assert time.perf_counter() - began < 8.0  # all below 1 s here


def test_what_is_not_listed_is_counted() -> None:
    found = compare([{"a": i} for i in range(100)], [{"a": -i - 1} for i in range(100)], limit=10)
    assert (len(found), found.rest, found.total) == (10, 90, 100)
    assert found.size == difference_bytes([{"a": i} for i in range(100)], [{"a": -i - 1} for i in range(100)])


def test_bytes_are_those_of_the_larger_side() -> None:
    assert difference_bytes({"a": 1, "b": "x"}, {"a": 1, "b": "x"}) == 0
    assert difference_bytes({"a": 10, "b": "x"}, {"a": 1, "b": "x"}) == 2
    assert difference_bytes([], ["four"]) == 6


# -- rules ----------------------------------------------------------------------------------------------------

RULES = [
    ("a", {"a": 1}, {"a": 2}, True),
    ("a", {"x": {"a": 1}}, {"x": {"a": 2}}, False),
    ("*.a", {"x": {"a": 1}}, {"x": {"a": 2}}, True),
    ("*.a", {"a": 1}, {"a": 2}, False),
    ("**.a", {"a": 1}, {"a": 2}, True),
    ("**.a", {"x": [{"y": {"a": 1}}]}, {"x": [{"y": {"a": 2}}]}, True),
    ("items[*].id", {"items": [{"id": 1}]}, {"items": [{"id": 2}]}, True),
    ("items[*].id", {"items": {"0": {"id": 1}}}, {"items": {"0": {"id": 2}}}, False),
    ("items[0]", {"items": [1, 2]}, {"items": [3, 2]}, True),
    ("items[0]", {"items": [1, 2]}, {"items": [3, 3]}, False),
    ("[*].id", [{"id": 1}], [{"id": 2}], True),
    ("*_at", {"made_at": 1, "x": 1}, {"made_at": 2, "x": 1}, True),
    ("**.*_at", {"x": {"made_at": 1}}, {"x": {}}, True),
    ('headers["x.id"]', {"headers": {"x.id": 1}}, {"headers": {"x.id": 2}}, True),
    ("a", {"a": {"b": [1]}}, {}, True),
    ("x.**", {"x": {"b": [1]}}, {"x": {"b": [2]}}, True),
    ("x.**", {"x": 1}, {"x": 2}, False),
    ("a.**.b", {"a": {"b": 1}}, {"a": {"b": 2}}, True),
    ("né.名前", {"né": {"名前": 1}}, {"né": {}}, True),
]


@pytest.mark.parametrize(("rule", "old", "new", "is_ignored"), RULES, ids=range(len(RULES)))
def test_a_rule_leaves_out_what_it_says(rule: str, old: Any, new: Any, is_ignored: bool) -> None:
    found = compare(old, new, [rule])
    assert (found.total == 0) is is_ignored
    assert found.ignored > 0 or not is_ignored


def test_lists_are_aligned_as_if_ignored_fields_were_not_there() -> None:
    old = [{"id": i, "v": i} for i in range(50)]
    new = [{"id": -i, "v": i} for i in range(1, 50)]
    assert told(old, new, "[*].id") == [("[0]", "removed")]


@pytest.mark.parametrize("rule", ["", " ", ".a", "a..b", "a[", "a[x]", "a]b", "a b", 'a["', 'a["\\x"]', "a.", None, 3])
def test_a_rule_that_cannot_be_read_says_so(rule: Any) -> None:
    with pytest.raises(InvalidArgument):
        Ignore([rule])


def test_rules_can_be_joined() -> None:
    joined = Ignore(["a"]) | Ignore(["b", "a"])
    assert joined.rules == ("a", "b")
    assert joined.covers(("b", 0, "c"))
    assert not joined.covers(("c", "a"))
    assert not Ignore()


# -- any values -----------------------------------------------------------------------------------------------

KEYS = st.text('ab._" é', max_size=3)
PLAIN = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, -2.0]) | st.text("ab\n", max_size=2)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=25
)


def normal(value: Any) -> str:
    """Equal for values that are the same: numbers by value, truth values apart."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{normal(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(normal, value)) + "]"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(float(value)) if is_number else json.dumps(value)


def places(value: Any, path: str = "") -> dict[str, Any]:
    """Every place in a value."""
    found = {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found |= places(inner, join(path, key))
    return found


@settings(max_examples=400, deadline=None)
@given(VALUES, VALUES)
def test_differences_tell_the_truth_about_any_two_values(old: Any, new: Any) -> None:
    found = compare(old, new)
    assert bool(found) == (normal(old) != normal(new))
    before, after = places(old), places(new)
    for item in found:
        if item.kind == "removed":
            assert normal(before[item.path]) == normal(item.old)
        else:
            assert normal(after[item.path]) == normal(item.new)
        if item.old is not MISSING and item.new is not MISSING:
            assert normal(item.old) != normal(item.new)
    assert len({(item.path, item.kind == "removed") for item in found}) == len(found)
    assert found.rest == 0


@settings(max_examples=200, deadline=None)
@given(VALUES, st.data())
def test_one_change_is_one_difference(value: Any, data: st.DataObject) -> None:
    new = {"x": copy.deepcopy(value), "n": 1}
    assert told({"x": value, "n": 0}, new) == [("n", "changed")]
    if isinstance(value, list):
        place = data.draw(st.integers(0, len(value)))
        assert compare(value, [*value[:place], "fresh", *value[place:]]).total == 1


@settings(max_examples=200, deadline=None)
@given(VALUES, st.lists(st.sampled_from(["a", "*", "**", "**.a", "[*]", "[0].a", "*.b", "a[1]"]), max_size=3))
def test_leaving_out_agrees_with_covering(value: Any, rules: list[str]) -> None:
    ignore = Ignore(rules)

    def kept(item: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(item, dict):
            return {k: kept(v, (*path, k)) for k, v in item.items() if not ignore.covers((*path, k))}
        if isinstance(item, list):
            return [None if ignore.covers((*path, i)) else kept(v, (*path, i)) for i, v in enumerate(item)]
        return item

    assert ignore.without(value) == kept(value, ())


# -- on the terminal ------------------------------------------------------------------------------------------


def lines(old: Any, new: Any, **options: Any) -> list[str]:
    from io import StringIO

    from rich.console import Console

    from kairos.cli.differences import print_differences

    console = Console(file=StringIO(), width=200, markup=False, highlight=False, emoji=False)
    print_differences(console, compare(old, new), **options)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_differences_are_printed_path_by_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kairos.cli.words.has_shapes", lambda: True)
    old = {"items": [{"price": 120}], "gone": [1], "n": None, "t": "né\x1b[31m"}
    new = {"items": [{"price": 130}], "n": "x", "t": "名前", "fresh": {"a": 1}}
    assert lines(old, new, indent=2) == [
        "  ~ items[0].price  120 → 130",
        "  - gone  [1]",
        '  ≠ n  null → "x"  (null, now text)',
        '  ~ t  "né\\u001b[31m" → "名前"',
        '  + fresh  {"a": 1}',
    ]
    assert lines(1, 2) == ["~ (all)  1 → 2"]


def test_a_long_value_is_cut_around_the_place_that_differs() -> None:
    (line,) = lines({"a": "x" * 5000 + "OLD" + "y" * 5000}, {"a": "x" * 5000 + "NEW" + "y" * 5000})
    assert "OLD" in line
    assert "NEW" in line
    assert "(10.0 kB)" in line
    assert len(line) < 250
    (line,) = lines("x" * 3_000_000 + "1", "x" * 3_000_000 + "2")
    assert len(line) < 250


def test_further_differences_are_counted() -> None:
    assert lines(list(range(30)), list(range(100, 130)), limit=3)[-1] == "and 27 more differences; --json lists them"


def test_a_workflow_says_what_does_not_count() -> None:
    import kairos

    app = kairos.App("x")
    plain = app.workflow("plain")
    ruled = app.workflow("ruled", replay_ignore=["**.trace_id", "at"])

    def step() -> int:
        return 1

    for workflow in (plain, ruled):
        workflow.step(step)
    assert ruled.replay_ignore == ("**.trace_id", "at")
    assert ruled.definition.defaults["replay_ignore"] == ["**.trace_id", "at"]
    assert app.workflow("again", replay_ignore="at").replay_ignore == ("at",)

    @app.job(replay_ignore=["id"])
    def job() -> int:
        return 1

    assert job.replay_ignore == ("id",)


def test_what_does_not_count_is_no_part_of_the_version() -> None:
    import kairos

    def version(*rules: str) -> str:
        workflow = kairos.App("x").workflow("w", replay_ignore=rules)

        @workflow.step
        def step() -> int:
            return 1

        return workflow.fingerprint

    assert version() == version("at")


@pytest.mark.parametrize("rules", [["a..b"], [3], 5, [""]])
def test_a_wrong_rule_fails_where_it_is_declared(rules: Any) -> None:
    import kairos

    with pytest.raises(kairos.DefinitionError, match="workflow 'w': replay_ignore: "):
        kairos.App("x").workflow("w", replay_ignore=rules)
