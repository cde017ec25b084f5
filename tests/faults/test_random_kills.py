"""kill -9 of workers at random moments, most of them in the middle of a body or a flush."""

from __future__ import annotations

import time

import pytest

import kairos
from tests.conftest import TestDatabase
from tests.faults import workload
from tests.faults.processes import Crew, Proc
from tests.faults.support import fetch, open_runs, seeded, verdict, wait_all_ended

IN_A_FLUSH = """
select count(*) from pg_stat_activity a join kairos.worker w on w.pid = %s and w.state in ('live', 'draining')
where a.datname = current_database() and a.application_name = 'kairos flusher' and a.state <> 'idle'
"""


def is_busy(crew: Crew, database: TestDatabase, victim: Proc) -> bool:
    """Whether a body of this worker, or of a child of it, is under way; else, whether some flush is."""
    return bool(crew.ledger.open_bodies(*victim.family())) or fetch(database.admin_dsn, IN_A_FLUSH, victim.pid) != [
        (0,)
    ]


@pytest.mark.parametrize(
    ("kills", "runs"), [(20, 50), pytest.param(200, 500, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_every_run_ends_and_every_step_completes_once_under_random_kills(
    crew: Crew, database: TestDatabase, client: kairos.Client, kills: int, runs: int
) -> None:
    dice = seeded()
    started = client.start_many(workload.diamond, list(range(runs // 2)))
    workers = [crew.start(lease="1s", concurrency=3, wait=False) for _ in range(2)]
    busy = killed = 0
    while killed < kills:
        if len(started) < runs and (open_runs(database.admin_dsn) < 8 or len(started) < runs * killed // kills):
            started += client.start_many(workload.diamond, range(len(started), min(runs, len(started) + 4)))
        index = dice.randrange(2)
        victim = workers[index]
        victim.wait_ready()
        deadline = time.monotonic() + dice.uniform(0.0, 0.4)
        # A tenth of the kills come whatever the worker does; the others wait for a moment that matters.
        is_blind = dice.random() < 0.1
        while time.monotonic() < deadline or not (is_blind or is_busy(crew, database, victim)):
            if time.monotonic() > deadline + 2:
                break
            time.sleep(0.002)
        busy += is_busy(crew, database, victim)
        victim.kill()
        killed += 1
        workers[index] = crew.start(lease="1s", concurrency=3, wait=False)
    if len(started) < runs:
        started += client.start_many(workload.diamond, range(len(started), runs))
    wait_all_ended(database.admin_dsn, 60 + runs / 2)
    print(f"{busy} of {killed} kills in the middle of a body or a flush")
    for n, run in enumerate(started):
        assert run.result(5) == workload.diamond_output(n)
    verdict(database.admin_dsn, crew.ledger)
    assert busy >= 0.8 * killed, f"only {busy} of {killed} kills hit a body or a flush"
