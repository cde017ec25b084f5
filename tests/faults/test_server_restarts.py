"""Postgres is stopped without a goodbye and started again, under load: nothing lost, nothing twice, nothing burned."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import kairos
from kairos.client.starting import new_run_id
from tests.faults import workload
from tests.faults.pgbox import PgBox
from tests.faults.processes import Crew, until
from tests.faults.support import fetch, seeded, verdict, wait_all_ended


@pytest.fixture
def box() -> Iterator[PgBox]:
    # Not under tmp_path: the path of a socket must be short.
    with TemporaryDirectory(prefix="kairos-box-") as folder:
        opened = PgBox(Path(folder) / "data")
        try:
            yield opened
        finally:
            opened.close()


@pytest.mark.parametrize("restarts", [3, pytest.param(40, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_runs_go_on_over_immediate_restarts_of_the_server(box: PgBox, tmp_path: Path, restarts: int) -> None:
    dice = seeded()
    crew = Crew(box.dsn, tmp_path)
    gate = tmp_path / "gate"
    ids: list[str] = []
    over = threading.Event()
    trouble: list[BaseException] = []

    def load() -> None:
        """Starts runs all the time, outages or not: each has an id of ours, so that we know what was accepted."""
        try:
            with kairos.Client(box.dsn, patience=60) as client:
                while not over.is_set():
                    run_id = str(new_run_id())
                    client.start(workload.diamond, len(ids), run_id=run_id)
                    ids.append(run_id)
                    over.wait(0.05)
        except BaseException as exc:
            trouble.append(exc)

    thread = threading.Thread(target=load)
    try:
        with kairos.Client(box.dsn, patience=60) as client:
            workers = [crew.start(lease="15s") for _ in range(2)]
            held = client.start(workload.gated, {"gate": str(gate)})
            until(lambda: crew.ledger.begins(held.id), "the long step has begun")
            thread.start()
            for _ in range(restarts):
                ends = time.monotonic() + dice.uniform(0.5, 1.5)
                count = len(ids)
                until(lambda ends=ends, n=count: time.monotonic() > ends and len(ids) > n, "the load goes on", 60)
                box.restart_immediately()
            over.set()
            thread.join(60)
            assert not trouble, trouble
            gate.touch()
            wait_all_ended(box.admin_dsn, 60)
            # One attempt was all it had, and it was not burned: its worker outlived every outage.
            assert held.result(10) == "attempt 1"
            for n, run_id in enumerate(ids):
                assert client.get_run(run_id).result(10) == workload.diamond_output(n)
        assert fetch(box.admin_dsn, "select count(*) from kairos.run") == [(len(ids) + 1,)]
        assert all(worker.code is None for worker in workers), "no worker may die of an outage"
        assert all("Traceback" not in worker.text() for worker in workers), crew.logs()
        lost = fetch(box.admin_dsn, "select count(*) from kairos.event where kind = 'lease_lost'")
        assert lost == [(0,)], "an outage shorter than the lease costs nobody an attempt"
        verdict(box.admin_dsn, crew.ledger)
    finally:
        over.set()
        crew.close()
        print(crew.logs())


def test_a_worker_outlives_an_outage_that_is_longer_than_its_lease(box: PgBox, tmp_path: Path) -> None:
    """Both the lease and the worker's patience run out, and still: the step is found, and ends once."""
    crew = Crew(box.dsn, tmp_path)
    gate = tmp_path / "gate"
    try:
        with kairos.Client(box.dsn, patience=60) as client:
            crew.start(lease="1s")
            run = client.start(workload.gated_pair, str(gate))
            until(lambda: crew.ledger.begins(run.id), "the body has begun")
            box.stop_immediately()
            over = time.monotonic() + 2.5
            gate.touch()  # it ends while nobody can be told
            until(lambda: time.monotonic() > over, "two leases have passed")
            box.start()
            assert str(run.wait(60).status) == "DONE"
        verdict(box.admin_dsn, crew.ledger)
    finally:
        crew.close()
        print(crew.logs())
