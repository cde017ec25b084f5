"""What may be a name, and what is proposed for a wrong one."""

from __future__ import annotations

from typing import Any

import pytest

from kairos.domain.names import check_name, nearest
from kairos.errors import DefinitionError


@pytest.mark.parametrize("name", ["a", "_", "Z9", "send-digest", "a.b", "fulfil_order", "a" * 120])
def test_a_good_name_is_taken_as_it_is(name: str) -> None:
    assert check_name(name, "step") == name


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "9a", "-a", ".a", "a b", "a/b", "a\n", "\na", "a\0", "é", "名", "a" * 121, "a,b", "a'b", 'a"b', "a;b",
        "a%sb", "\ud800", None, 1, b"a", ["a"],
    ],
    ids=ascii,
)  # fmt: skip
def test_any_other_name_is_refused_with_what_it_was_for(name: Any) -> None:
    with pytest.raises(DefinitionError, match="step name") as caught:
        check_name(name, "step")
    assert caught.value.facts == {"value": name}
    assert "ASCII letters (a-z, A-Z)" in str(caught.value)
    str(caught.value).encode()


def test_the_nearest_name_is_proposed() -> None:
    assert nearest("chrage", ["reserve", "charge", "email"]) == "Did you mean 'charge'?"


def test_what_there_is_gets_listed_if_nothing_is_near() -> None:
    assert nearest("xyz", ["reserve", "charge"]) == "Valid here: charge, reserve."
    assert nearest("xyz", iter(["charge"])) == "Valid here: charge."
    assert nearest("bad-flow", ["swallow", "reserve"]) == "Valid here: reserve, swallow."


def test_a_long_list_is_cut() -> None:
    assert nearest("?", [f"step-{i:03}" for i in range(500)]).count("step-") == 12


def test_nothing_to_choose_from_is_said_so() -> None:
    assert nearest("a", []) == "There is nothing to name here yet."
