"""How often and how soon: every window is half-open, and its first and last slot are in these tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from readable_tables import rows

from kairos.domain import canonical
from kairos.domain.retry import NO_RETRY, Retry, may_retry, retry_delay, within_retry_window
from kairos.errors import DefinitionError

JUST_UNDER_ONE = 1 - 2**-53

MAY_RETRY = """
    attempts  failed so far  once more?
    1         0              yes
    1         1              no
    1         2              no
    2         0              yes
    2         1              yes
    2         2              no
    2         3              no
    5         0              yes
    5         1              yes
    5         4              yes
    5         5              no
    5         6              no
    5         -1             no
"""


@pytest.mark.parametrize(("attempts", "failures", "again"), rows(MAY_RETRY))
def test_another_attempt_is_made_strictly_before_the_limit(attempts: str, failures: str, again: str) -> None:
    assert may_retry(Retry(attempts=int(attempts)), int(failures)) == (again == "yes")


WINDOW = """
    jobs         high  those inside
    -            0     -
    -            1     -
    0            0     -
    0            1     0
    0            -1    -
    0 1          1     0
    0 1 2 3      3     0 1 2
    2            3     2
    3            3     -
    4            3     -
    -1           3     -
    -1 0 2 3     3     0 2
    3 2 1 0      3     2 1 0
    119          120   119
    120          120   -
"""


@pytest.mark.parametrize(("jobs", "high", "inside"), rows(WINDOW))
def test_the_retry_window_is_half_open(jobs: str, high: str, inside: str) -> None:
    assert within_retry_window(_slots(jobs), int(high)) == _slots(inside)


COUNTED = """
    jobs  high  how many are inside
    0     0     0
    0     120   0
    1     0     0
    1     1     1
    119   120   119
    120   120   120
    121   120   120
    120   119   119
    120   1     1
    120   0     0
    120   -1    0
"""


@pytest.mark.parametrize(("jobs", "high", "count"), rows(COUNTED))
def test_a_number_of_jobs_stands_for_their_slots(jobs: str, high: str, count: str) -> None:
    assert within_retry_window(int(jobs), int(high)) == list(range(int(count)))


@given(st.lists(st.integers(-5, 130)), st.integers(-2, 125))
@example([119], 120)
@example([120], 120)
def test_no_slot_of_the_window_is_dropped_and_none_is_added(jobs: list[int], high: int) -> None:
    inside = within_retry_window(jobs, high)
    assert inside == [job for job in jobs if job in range(high)]
    assert (high - 1 in inside) == (high >= 1 and high - 1 in jobs)
    assert high not in inside


DELAYS = """
    failure  roll  seconds  why
    1        0     0.8      the base, less a fifth
    1        0.5   1        the base
    1        1-    1.2      the base and a fifth
    2        0.5   2        twice the one before
    3        0.5   4        and again
    9        0     204.8    256, less a fifth
    9        0.5   256      the last one under the cap
    9        1-    300      256 and a fifth is over the cap: the cap is applied after the jitter
    10       0     300      512 less a fifth is over the cap still
    10       0.5   300      the cap
    1024     0.5   300      the last power of two that a float can hold
    1025     0     300      the first that it cannot
    1025     0.5   300      likewise
    1000000  1-    300      nobody waits for ever
"""


@pytest.mark.parametrize(("failure", "roll", "seconds", "why"), rows(DELAYS))
def test_the_pause_doubles_up_to_its_cap(failure: str, roll: str, seconds: str, why: str) -> None:
    policy = Retry(base="1s", factor=2, cap="5m", jitter=0.2)
    chance = JUST_UNDER_ONE if roll == "1-" else float(roll)
    assert retry_delay(policy, int(failure), chance) == timedelta(seconds=float(seconds)), why


@pytest.mark.parametrize("failures", [1, 2, 1024, 1025, 1026, 10_000])
@pytest.mark.parametrize("roll", [0.0, 0.5, JUST_UNDER_ONE])
def test_no_pause_stays_no_pause_however_often_it_is_multiplied(failures: int, roll: float) -> None:
    assert retry_delay(Retry(base=0, factor=2), failures, roll) == timedelta(0)


@pytest.mark.parametrize("failures", [0, -1])
def test_there_is_no_pause_before_the_first_failure(failures: int) -> None:
    with pytest.raises(ValueError, match="counts from 1"):
        retry_delay(Retry(), failures, 0.5)


policies = st.builds(
    lambda attempts, delays, factor, jitter: Retry(attempts, min(delays), factor, max(delays), jitter),
    st.integers(1, 100),
    st.tuples(st.timedeltas(timedelta(0), timedelta(days=400)), st.timedeltas(timedelta(0), timedelta(days=36500))),
    st.floats(1, 1e300) | st.integers(1, 10),
    st.floats(0, 1),
)
rolls = st.floats(0, 1, exclude_max=True)


@given(policies, st.integers(1, 5000), rolls)
@example(Retry(base="1s", factor=1e300, cap="1h", jitter=1.0), 5000, 0.0)
def test_a_pause_is_never_negative_and_never_over_the_cap(policy: Retry, failures: int, roll: float) -> None:
    assert timedelta(0) <= retry_delay(policy, failures, roll) <= policy.cap_delay


@given(policies, st.integers(1, 4000), rolls)
def test_a_later_failure_never_waits_less_for_the_same_roll(policy: Retry, failures: int, roll: float) -> None:
    assert retry_delay(policy, failures, roll) <= retry_delay(policy, failures + 1, roll)


@given(policies)
def test_a_pinned_policy_reads_back_as_it_was(policy: Retry) -> None:
    data = canonical.decode(canonical.encode(policy.to_json()))
    assert Retry.from_json(data) == policy
    assert Retry.from_json(data).to_json() == policy.to_json()


class Teapot(ConnectionError):
    """An error of the user's own."""


RETRYABLE = """
    retry_on            never_retry       error            again?
    -                   -                 ValueError       yes
    -                   ValueError        ValueError       no
    -                   ValueError        UnicodeError     no
    -                   UnicodeError      ValueError       yes
    OSError             -                 ValueError       no
    OSError             -                 ConnectionError  yes
    OSError             -                 Teapot           yes
    OSError             ConnectionError   Teapot           no
    OSError             ConnectionError   OSError          yes
    OSError ValueError  -                 UnicodeError     yes
    OSError ValueError  -                 KeyError         no
    ValueError          ValueError        ValueError       no
"""
ERRORS = {e.__name__: e for e in (ValueError, UnicodeError, OSError, ConnectionError, KeyError, Teapot)}


@pytest.mark.parametrize(("only", "never", "error", "again"), rows(RETRYABLE))
def test_never_retry_wins_over_retry_on_and_subclasses_count(only: str, never: str, error: str, again: str) -> None:
    policy = Retry(retry_on=_types(only), never_retry=_types(never))
    assert policy.is_retryable(ERRORS[error]("x")) == (again == "yes")
    read_back = Retry.from_json(canonical.decode(canonical.encode(policy.to_json())))
    assert read_back.is_retryable(ERRORS[error]("x")) == (again == "yes")
    assert read_back.to_json() == policy.to_json()


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": True},
        {"attempts": 2.0},
        {"attempts": "3"},
        {"factor": 0.999},
        {"factor": float("nan")},
        {"factor": float("inf")},
        {"factor": "2"},
        {"jitter": -0.001},
        {"jitter": 1.001},
        {"jitter": float("nan")},
        {"jitter": None},
        {"base": -1},
        {"base": "soon"},
        {"cap": "-1s"},
        {"cap": float("inf")},
        {"retry_on": [int]},
        {"retry_on": ["ValueError"]},
        {"never_retry": object},
        {"never_retry": "ValueError"},
        {"retry_on": 5},
        {"base": "6m"},
        {"base": 2, "cap": 1},
    ],
    ids=str,
)
def test_a_value_out_of_its_range_is_refused_where_it_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=r"Retry\("):
        Retry(**wrong)


REMEDIES: list[tuple[dict[str, Any], str]] = [
    (
        {"attempts": "5"},
        "Retry(attempts='5'): must be a whole number of at least 1\n"
        "  hint: attempts counts the first try too: attempts=3 retries twice, attempts=1 never.",
    ),
    (
        {"never_retry": "ValueError"},
        "Retry(never_retry=...) takes exception types, not 'ValueError'\n"
        "  hint: Write the class itself, without quotes: never_retry=ValueError, or never_retry=(OSError, KeyError).",
    ),
    (
        {"base": "10m"},
        "Retry(base='10m', cap='5m'): the first delay is longer than the longest one allowed\n"
        "  hint: Give a cap of at least the base: Retry(base='10m', cap='10m'). The usual cap is 5m.",
    ),
]


@pytest.mark.parametrize(("wrong", "text"), REMEDIES, ids=[str(row[0]) for row in REMEDIES])
def test_a_refused_value_is_told_what_to_write_instead(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Retry(**wrong)
    assert str(caught.value) == text


def test_a_stored_policy_whose_base_is_above_its_cap_stays_readable() -> None:
    stored = {**Retry(base="5s", cap="5s").to_json(), "base_us": 7_000_000}
    assert Retry.from_json(stored).to_json() == stored


def test_the_limits_themselves_are_within_the_range() -> None:
    Retry(attempts=1, factor=1, jitter=0, base=0, cap=0)
    Retry(jitter=1)
    Retry(base="5m", cap="5m")


def test_a_policy_says_what_it_does() -> None:
    assert str(Retry()) == "3 attempts, 1s x2 up to 5m"
    assert str(NO_RETRY) == "no retry"


def _slots(cell: str) -> list[int]:
    return [] if cell == "-" else [int(slot) for slot in cell.split()]


def _types(cell: str) -> list[type[Exception]] | None:
    return None if cell == "-" else [ERRORS[name] for name in cell.split()]
