"""Run ids: their order is the order of creation, and nothing of the time or the chance given is lost."""

from __future__ import annotations

from uuid import RFC_4122

from hypothesis import given
from hypothesis import strategies as st

from kairos.domain.ids import uuid7

milliseconds = st.integers(0, 2**48 - 1)
chances = st.integers(0, 2**74 - 1)


@given(milliseconds, chances)
def test_an_id_is_a_uuid_of_version_7_that_carries_its_time(unix_ms: int, chance: int) -> None:
    made = uuid7(unix_ms, chance)
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int >> 80 == unix_ms


@given(milliseconds, chances, milliseconds, chances)
def test_ids_are_in_the_order_of_their_times(one: int, x: int, other: int, y: int) -> None:
    if one != other:
        assert (uuid7(one, x) < uuid7(other, y)) == (one < other)
        assert (str(uuid7(one, x)) < str(uuid7(other, y))) == (one < other)


@given(milliseconds, chances, chances)
def test_every_bit_of_chance_counts(unix_ms: int, x: int, y: int) -> None:
    assert (uuid7(unix_ms, x) == uuid7(unix_ms, y)) == (x == y)


def test_the_example_of_the_standard() -> None:
    # RFC 9562, appendix A.6: rand_a = 0xCC3, rand_b = 0b01, 0x8C4DC0C0C07398F.
    made = uuid7(0x017F22E279B0, 0xCC3 << 62 | 0x18C4DC0C0C07398F)
    assert str(made) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
