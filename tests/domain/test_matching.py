"""What is looked for in the inputs of runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kairos.domain import canonical
from kairos.domain.matching import MAX_TEXT, read_input_query
from kairos.domain.paths import join
from kairos.errors import InvalidArgument

ORDER = {"customer": 42, "vip": True, "name": 'Ada "A" Ü', "lines": [{"sku": "A7"}, {"sku": "B=1"}], "n": None}
NAMES = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)
PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)


@pytest.mark.parametrize(
    ("text", "is_meant"),
    [
        ("customer=42", True),
        ("input.customer=42", True),
        ("customer=4", False),
        ("customer=42.0", True),
        ("customer=true", False),
        ("vip=true", True),
        ("vip=1", False),
        ("n=null", True),
        ("missing=null", False),
        ("lines[0].sku=A7", True),
        ("lines[1].sku=A7", False),
        ("lines[9].sku=A7", False),
        ("lines.sku=A7", True),
        ("lines.sku=B=1", True),
        ('["customer"]=42', True),
        ("customer.x=42", False),
        ("ada", True),
        ("Ü", True),
        ('"a"', True),
        ("customer", True),
        ("nobody", False),
        ("=42", False),
    ],
)
def test_an_input_is_meant_or_not(text: str, is_meant: bool) -> None:
    assert read_input_query(text).takes(canonical.encode(ORDER)) is is_meant


def test_a_whole_input_can_be_meant() -> None:
    assert read_input_query("input=42").takes(b"42")
    assert read_input_query("=[1, 2]").takes(b"[1,2]")


def test_what_is_no_path_is_a_text() -> None:
    query = read_input_query("a b = c?")
    assert query.keys is not None
    assert read_input_query("x[=1").keys is None
    assert read_input_query("x[=1").takes(canonical.encode({"t": "it says X[=1 here"}))


@pytest.mark.parametrize("text", ["", "   ", "x" * (MAX_TEXT + 1)])
def test_nothing_and_too_much_cannot_be_looked_for(text: str) -> None:
    with pytest.raises(InvalidArgument, match="1 to 400"):
        read_input_query(text)


@given(st.lists(NAMES, min_size=1, max_size=4), PLAIN)
def test_a_value_is_found_at_its_path_as_it_is_written(names: list[str], value: Any) -> None:
    inside: Any = value
    for name in reversed(names):
        inside = {name: inside, "other": "?"} if name != "other" else {name: inside}
    path = ""
    for name in names:
        path = join(path, name)
    written = canonical.encode(value).decode()
    assert read_input_query(f"{path}={written}").takes(canonical.encode(inside))


@given(st.text(min_size=1, max_size=40).filter(lambda text: text.strip() == text and "=" not in text))
def test_a_text_is_found_wherever_it_stands(text: str) -> None:
    assert read_input_query(text).takes(canonical.encode({"a": [1, {"b": f"<{text}>"}]}))
