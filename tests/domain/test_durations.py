"""What may be written for a duration, and how one is shown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from readable_tables import rows

from kairos.domain.duration import format_duration, parse_duration
from kairos.errors import DefinitionError

TEXTS = """
    text       seconds
    0s         0
    250us      0.00025
    250ms      0.25
    30s        30
    1.5s       1.5
    5m         300
    2h         7200
    1d         86400
    1w         604800
    1h 30m     5400
    1h30m      5400
    2H 5M      7500
    1d 2h 3m 4s 5ms 6us  93784.005006
    36500d     3153600000
"""


@pytest.mark.parametrize(("text", "seconds"), rows(TEXTS))
def test_a_text_is_read_as_people_write_it(text: str, seconds: str) -> None:
    assert parse_duration(text) == timedelta(seconds=float(seconds))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0, 0), (90, 90), (0.25, 0.25), (1e-6, 1e-6), (timedelta(hours=1), 3600), (3_153_600_000, 3_153_600_000)],
)
def test_a_plain_number_is_seconds(value: Any, seconds: float) -> None:
    assert parse_duration(value) == timedelta(seconds=seconds)


WRONG: list[Any] = [
    "", " ", "5", "s", "five minutes", "5 parsecs", "-5s", "+5s", "5s!", "1e3s", "1.s", ".5s", "5m,3s", "5µs", "inf s",
    "36500d 1us", "9" * 400 + "s", -1, -0.001, float("nan"), float("inf"), 3_153_600_001, 10**400, True, False, None,
    b"5s", ["5s"], timedelta(microseconds=-1), timedelta(days=36501), timedelta.max, timedelta.min,
]  # fmt: skip


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:30])
def test_what_is_not_a_duration_is_refused_by_name(value: Any) -> None:
    with pytest.raises(DefinitionError, match="timeout"):
        parse_duration(value, what="timeout")


@given(st.timedeltas(timedelta(0), timedelta(days=36500)))
def test_a_timedelta_is_taken_to_the_microsecond(value: timedelta) -> None:
    assert parse_duration(value) == value


SHOWN = """
    microseconds   text
    0              0us
    1              1us
    850            850us
    999            999us
    1000           1ms
    12000          12ms
    999000         999ms
    999499         999ms
    999500         1s
    1000000        1s
    3400000        3.4s
    59940000       59.9s
    59950000       1m
    59999999       1m
    60000000       1m
    61000000       1m 1s
    310000000      5m 10s
    3599499999     59m 59s
    3599600000     1h
    3600000000     1h
    7500000000     2h 5m
    86400000000    1d
    273600000000   3d 4h
    -1500000       -1.5s
"""


@pytest.mark.parametrize(("micros", "text"), rows(SHOWN))
def test_a_duration_is_shown_in_the_units_that_fit(micros: str, text: str) -> None:
    assert format_duration(timedelta(microseconds=int(micros))) == text


@given(st.timedeltas(timedelta(0), timedelta(days=36500)))
def test_what_is_shown_can_be_read_again_and_is_off_by_little(value: timedelta) -> None:
    shown = parse_duration(format_duration(value))
    slack = timedelta(hours=1) if value >= timedelta(days=1) else max(value / 60, timedelta(microseconds=1))
    assert abs(shown - value) <= slack


@given(st.timedeltas(timedelta(0), timedelta(days=36000)), st.timedeltas(timedelta(0), timedelta(days=1)))
def test_a_longer_duration_is_never_shown_as_a_shorter_one(value: timedelta, more: timedelta) -> None:
    assert parse_duration(format_duration(value)) <= parse_duration(format_duration(value + more))
