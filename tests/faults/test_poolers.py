"""pgbouncer between Kairos and Postgres: in session mode all works; in transaction mode all refuses, and says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kairos
from tests.conftest import TestDatabase
from tests.faults import bouncer, workload
from tests.faults.bouncer import Bouncer
from tests.faults.processes import ROOT, Crew
from tests.faults.support import verdict

pytestmark = pytest.mark.skipif(bouncer.PROGRAM is None, reason="pgbouncer is not installed")
Open = Callable[[str], Bouncer]


@pytest.fixture
def pool(database: TestDatabase, tmp_path: Path) -> Iterator[Open]:
    """Opens a pool in the mode of that name in front of the test's database."""
    opened: list[Bouncer] = []

    def open_pool(mode: str) -> Bouncer:
        # One worker keeps four sessions, a client up to three; a pool that is full is an outage to the next one.
        opened.append(Bouncer(database.dsn, tmp_path, mode, pool_size=12))
        return opened[-1]

    yield open_pool
    for each in opened:
        each.close()


def command(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("KAIROS_")}
    return subprocess.run(
        [sys.executable, "-m", "kairos.cli", *arguments],
        env={**clean, "PYTHONPATH": str(ROOT), "KAIROS_DATABASE_URL": dsn}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_pool_in_session_mode_is_as_good_as_a_connection(pool: Open, crew: Crew, database: TestDatabase) -> None:
    dsn = pool("session").dsn
    crew.start(dsn=dsn)
    with kairos.Client(dsn) as client:
        runs = [client.start(workload.diamond, n) for n in range(10)]
        for n, run in enumerate(runs):
            assert run.result(30) == workload.diamond_output(n)
    doctor = command(dsn, "doctor", "--json")
    assert doctor.returncode == 0, doctor.stdout
    assert "sessions are kept; NOTIFY arrives" in doctor.stdout
    verdict(database.admin_dsn, crew.ledger)


def test_the_doctor_refuses_a_pool_in_transaction_mode(pool: Open) -> None:
    dsn = pool("transaction").dsn
    doctor = command(dsn, "doctor", "--json")
    assert doctor.returncode == 1, doctor.stdout
    errors = [finding for finding in json.loads(doctor.stdout)["findings"] if finding["severity"] == "error"]
    assert [finding["code"] for finding in errors] == ["transaction_pooling"]


def test_whoever_is_refused_by_a_pool_in_transaction_mode_is_told_why_and_nothing_is_stranded(
    pool: Open, crew: Crew, database: TestDatabase
) -> None:
    dsn = pool("transaction").dsn
    # The first one leaves its prepared statements behind in sessions that the next one gets.
    outcomes = [command(dsn, "runs") for _ in range(6)]
    refused = [done for done in outcomes if done.returncode]
    assert refused
    for done in refused:
        assert done.returncode == 1
        assert "error: this connection goes through a pool in transaction mode" in done.stderr
        assert "hint: Give Kairos a direct connection, or a pool in session mode" in done.stderr
    worker = crew.start(dsn=dsn, wait=False)
    assert worker.wait() == 1
    assert "goes through a pool in transaction mode" in worker.text()
    assert database.fetch("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]
