"""One value, one sequence of bytes; and what would not come back unchanged is refused with its path."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from json_values import ODDITIES, anything, json_values, nest, same

from kairos.domain import canonical
from kairos.domain.canonical import MAX_DEPTH, decode, encode, encode_plain
from kairos.errors import PayloadError


@given(json_values)
@example(-0.0)
@example(1.0)
@example(1e22)
@example(5e-324)
@example(1.7976931348623157e308)
@example(2**64 - 1)
@example(-(2**63))
@example({"": {"": ""}})
@example("null \0 \u2028 \U0001f600")
@example([None, True, 1, "1", 1.0])
@settings(max_examples=150)
def test_what_is_stored_comes_back_unchanged(value: Any) -> None:
    assert same(value, decode(encode(value)))


@given(json_values)
def test_bytes_that_are_canonical_stay_as_they_are(value: Any) -> None:
    raw = encode(value)
    assert encode(decode(raw)) == raw
    assert encode_plain(value) == raw
    assert canonical.encode_trusted(value) == raw
    assert canonical.encode_trusted(canonical.fragment(raw)) == raw


@given(st.dictionaries(st.text(), st.integers(0, 9), max_size=8), st.randoms())
def test_the_order_of_keys_does_not_matter(value: dict[str, int], dice: Any) -> None:
    items = list(value.items())
    dice.shuffle(items)
    assert encode(dict(items)) == encode(value)
    assert encode([dict(items)]) == encode([value])


def test_the_form_is_sorted_compact_utf8() -> None:
    assert (
        encode({"b": [1, 2.5, None], "a": {"é": True}, "B": "x"})
        == '{"B":"x","a":{"é":true},"b":[1,2.5,null]}'.encode()
    )


@given(anything)
@settings(max_examples=200)
def test_a_value_is_refused_with_a_path_or_comes_back_unchanged(value: Any) -> None:
    try:
        raw = encode(value)
    except PayloadError as exc:
        refused = exc
    else:
        assert same(value, decode(raw))
        return
    assert refused.facts["path"].startswith("$")
    str(refused).encode()


@pytest.mark.parametrize("oddity", ODDITIES.values(), ids=ODDITIES.keys())
def test_what_is_not_a_json_value_is_refused_wherever_it_stands(oddity: Any) -> None:
    places = {
        "$": oddity,
        "$[0]": [oddity],
        "$[1]": (1, oddity),
        "$.a": {"a": oddity},
        "$.b[1].c[0]": {"a": 1, "b": [0, {"c": (oddity,)}]},
        "$.x.y": {"x": {"y": oddity}},
    }
    for path, value in places.items():
        with pytest.raises(PayloadError) as caught:
            encode(value)
        assert caught.value.facts["path"] == path
        assert f"the value at {path} " in caught.value.message
        assert caught.value.hint


REASONS = [
    (float("nan"), "is nan, which JSON does not have"),
    (float("-inf"), "is -inf, which JSON does not have"),
    (2**64, "is an integer beyond 64 bits"),
    ("\udfff", "holds half of a surrogate pair"),
    ({1: 2}, "has the key 1, which is not a plain string"),
    ({"a": ODDITIES["str subclass"]}, "is a json_values.Text, which is not a JSON value"),
    (ODDITIES["str subclass as key"], "has the key 'k', which is not a plain string"),
    (ODDITIES["UUID"], "is a uuid.UUID, which is not a JSON value"),
]


@pytest.mark.parametrize(("value", "reason"), REASONS, ids=[reason for _, reason in REASONS])
def test_a_refusal_says_what_is_wrong(value: Any, reason: str) -> None:
    with pytest.raises(PayloadError) as caught:
        encode(value)
    assert reason in caught.value.message


class Rude:
    """Its repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_a_key_that_cannot_even_be_shown_is_refused_all_the_same() -> None:
    with pytest.raises(PayloadError, match="<Rude>"):
        encode({Rude(): 1})


@pytest.mark.parametrize("shape", ["list", "dict", "tuple"])
@pytest.mark.parametrize("innermost", [None, 1, "x"], ids=["empty", "number", "text"])
def test_a_hundred_levels_are_stored_and_one_more_is_not(shape: str, innermost: Any) -> None:
    assert MAX_DEPTH == 100
    for depth in (1, 99, 100):
        value = nest(depth, innermost, shape=shape)
        assert same(value, decode(encode(value)))
        assert encode_plain(value) == encode(value)
    for depth in (101, 102, 254, 255, 1024, 50_000):
        value = nest(depth, innermost, shape=shape)
        for attempt in (encode, encode_plain) if shape != "tuple" else (encode,):
            with pytest.raises(PayloadError, match="nested deeper than 100 levels"):
                attempt(value)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    value = [[[]] * 500, {"a": [{}] * 500}]
    assert same(value, decode(encode(value)))


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(PayloadError, match="contains itself"):
        encode(loop)
    ring: dict[str, Any] = {}
    ring["a"] = {"b": ring}
    with pytest.raises(PayloadError, match="contains itself"):
        encode(ring)


@pytest.mark.parametrize("attempt", [encode, encode_plain])
def test_the_limit_of_size_is_in_bytes_and_holds_exactly(attempt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "MAX_BYTES", 10)
    assert len(attempt("x" * 8)) == 10
    assert len(attempt("é" * 4)) == 10
    for value in ("x" * 9, "é" * 4 + "e"):
        with pytest.raises(PayloadError, match="the limit is 10") as caught:
            attempt(value)
        assert caught.value.facts == {"size": 11}


@pytest.mark.parametrize(
    "name", ["nan", "infinity", "2 to the 64", "half a pair", "datetime", "int key", "set", "half a pair as key"]
)
def test_the_short_cut_for_serialised_values_refuses_what_json_cannot_hold(name: str) -> None:
    with pytest.raises(PayloadError):
        encode_plain({"a": [ODDITIES[name]]})


def test_a_path_with_odd_keys_can_still_be_printed() -> None:
    with pytest.raises(PayloadError) as caught:
        encode({"\n": {"é.b": float("nan")}})
    assert caught.value.facts["path"] == "$.\n.é.b"
