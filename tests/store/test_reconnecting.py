"""How a session connects: how long it waits before it does so again, and that nothing is left open on the way."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from kairos.store import connect
from kairos.store.connect import backoff
from tests.conftest import TestDatabase


@pytest.mark.parametrize("outage", [5.0, 60.0])
def test_a_fleet_does_not_come_back_in_step(outage: float) -> None:
    dice = random.Random(7)
    back: Counter[int] = Counter()
    for _ in range(300):
        at, tries = 0.0, 0
        while at < outage:
            tries += 1
            at += backoff(tries, rng=dice.random)
        back[int((at - outage) * 10)] += 1
    assert max(back.values()) <= 300 / 4, "at most a quarter of them within the same tenth of a second"
    assert max(back) <= 30, "nobody waits longer than the cap once the server is back"


def test_pauses_double_up_to_the_cap_and_may_be_anything_below() -> None:
    longest = [backoff(tries, rng=lambda: 1.0) for tries in (1, 2, 3, 6, 7, 1000)]
    assert longest == [0.1, 0.2, 0.4, 3.0, 3.0, 3.0]
    assert backoff(5, rng=lambda: 0.0) == 0.0


@pytest.mark.parametrize("is_async", [True, False])
def test_a_connection_that_is_given_up_while_it_is_opened_is_closed(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    opened: list[Any] = []

    def given_up(conn: Any) -> None:
        opened.append(conn)
        raise asyncio.CancelledError

    monkeypatch.setattr(connect, "prepare_adapters", given_up)

    def open_one() -> None:
        if is_async:
            asyncio.run(connect.open_async(database.dsn, "test"))
        else:
            connect.open_sync(database.dsn, "test")

    with pytest.raises(asyncio.CancelledError):
        open_one()
    assert [conn.closed for conn in opened] == [True]
