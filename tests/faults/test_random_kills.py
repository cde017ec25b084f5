"""kill -9 of workers at random moments, most of them in the middle of a body or a flush."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import kairos
from tests.conftest import TestDatabase
from tests.faults import workload
from tests.faults.processes import Crew, Proc
from tests.faults.support import seeded, verdict, wait_all_ended

IN_A_FLUSH = """
select count(*) from pg_stat_activity a join kairos.worker w on w.pid = %s and w.state in ('live', 'draining')
where a.datname = current_database() and a.application_name = 'kairos flusher' and a.state <> 'idle'
"""


def is_busy(crew: Crew, watch: psycopg.Connection[Any], victim: Proc) -> bool:
    """Whether a body of this worker, or of a child of it, is under way; else, whether a flush is."""
    in_a_body = bool(crew.ledger.open_bodies(*victim.family()))
    return in_a_body or watch.execute(IN_A_FLUSH, [victim.pid]).fetchall() != [(0,)]


def is_idle(watch: psycopg.Connection[Any]) -> bool:
    """Whether all runs have ended."""
    return watch.execute("select 1 from kairos.run where status in ('SCHEDULED', 'RUNNING')").fetchone() is None


@pytest.fixture
def watch(database: TestDatabase) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        yield conn


@pytest.mark.parametrize(
    ("kills", "runs"),
    [
        pytest.param(10, 25, marks=pytest.mark.timeout(300)),
        pytest.param(200, 500, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_every_run_ends_and_every_step_completes_once_under_random_kills(
    crew: Crew, database: TestDatabase, watch: psycopg.Connection[Any], client: kairos.Client, kills: int, runs: int
) -> None:
    dice = seeded()
    started: list[kairos.Run] = []
    workers = [crew.start(lease="1s", concurrency=2, wait=False) for _ in range(2)]
    busy = 0
    for killed in range(kills):
        index = dice.randrange(2)
        victim = workers[index]
        victim.wait_ready()
        share = runs * (killed + 1) // kills
        started += client.start_many(workload.diamond, range(len(started), max(share, len(started) + 1)))
        # A tenth of the kills come whatever the worker does; the others look for a moment that matters.
        is_blind = dice.random() < 0.1
        earliest = time.monotonic() + dice.uniform(0.0, 0.15)
        while True:
            if time.monotonic() >= earliest:
                victim.freeze()  # so that what is seen is what is killed
                is_hit = is_busy(crew, watch, victim)
                if is_hit or is_blind or time.monotonic() > earliest + 5:
                    break
                victim.thaw()
            if is_idle(watch):
                # The others have done it all: give the victim something to die of.
                started.append(client.start(workload.diamond, len(started)))
            time.sleep(0.005)
        busy += is_hit
        victim.kill()
        workers[index] = crew.start(lease="1s", concurrency=2, wait=False)
    wait_all_ended(database.admin_dsn, 60 + runs / 2)
    print(f"{busy} of {kills} kills in the middle of a body or a flush")
    for n, run in enumerate(started):
        assert run.result(5) == workload.diamond_output(n)
    verdict(database.admin_dsn, crew.ledger)
    assert busy >= 0.6 * kills, f"only {busy} of {kills} kills hit a body or a flush"
