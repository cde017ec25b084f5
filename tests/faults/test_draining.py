"""SIGTERM: what runs may end, under its lease; what does not end in time is given back unharmed."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import kairos
from tests.conftest import TestDatabase
from tests.engine.harness import until as until_async
from tests.engine.harness import working
from tests.faults import workload
from tests.faults.processes import Crew, until
from tests.faults.support import fetch, verdict


def test_a_draining_worker_keeps_its_lease_until_its_last_body_has_ended(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    gate = crew.folder / "gate"
    first = crew.start(lease="1s", drain_timeout="60s")
    run = client.start(workload.gated, {"gate": str(gate)})
    until(lambda: crew.ledger.begins(run.id), "the body has begun")
    second = crew.start()
    first.terminate()
    until(lambda: "worker_drains" in first.text(), "it drains")
    # The second worker is idle, and looks for leases that have run out every 0.7 s.
    ends = time.monotonic() + 3
    until(lambda: time.monotonic() > ends, "three leases have passed")
    assert len(crew.ledger.begins(run.id)) == 1
    gate.touch()
    assert run.result(10) == "attempt 1"
    assert first.wait() == 0
    assert "worker_given_up" not in second.text()
    assert [e.pid for e in crew.ledger.begins(run.id)] == [first.pid]
    verdict(database.admin_dsn, crew.ledger)


def test_a_worker_with_all_slots_taken_hears_sigterm_at_once(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    gate = crew.folder / "gate"
    worker = crew.start(concurrency=1, drain_timeout="0s")
    run = client.start(workload.gated, {"gate": str(gate)})
    until(lambda: crew.ledger.begins(run.id), "the body has begun")
    began = time.monotonic()
    worker.terminate()
    assert worker.wait() == 0
    assert time.monotonic() - began < 5
    lost = [e.event for e in client.events(run.id) if e.event.kind == "lease_lost"]
    assert [e.reason for e in lost] == ["released"]  # type: ignore[union-attr]
    # The gate is still closed: another worker begins it again, with its one attempt unburned.
    crew.start()
    until(lambda: len(crew.ledger.begins(run.id)) == 2, "it has begun again")
    gate.touch()
    assert run.result(20) == "attempt 2"
    verdict(database.admin_dsn, crew.ledger)


def test_a_body_that_is_deaf_to_shutdown_does_not_hold_the_worker(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    gate = crew.folder / "gate"
    worker = crew.start(drain_timeout="500ms")
    run = client.start(workload.stubborn, {"gate": str(gate)})
    until(lambda: crew.ledger.begins(run.id), "the body has begun")
    worker.terminate()
    assert worker.wait(10) == 0
    crew.start()
    gate.touch()
    assert run.result(20) == "attempt 2"
    verdict(database.admin_dsn, crew.ledger)


def test_twenty_rolling_restarts_during_one_step_burn_no_attempt(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    """In this process, where a worker starts in no time; that processes do the same is shown above."""
    gate = crew.folder / "gate"

    async def main(run: kairos.Run) -> None:
        for nth in range(1, 21):
            async with working(workload.app, database.dsn, drain_timeout=0.0):
                await until_async(lambda nth=nth: len(crew.ledger.begins(run.id)) == nth)
        gate.touch()
        async with working(workload.app, database.dsn):
            await until_async(lambda: run.refresh().status.is_terminal)

    run = client.start(workload.gated, {"gate": str(gate)})
    asyncio.run(main(run))
    assert run.result(1) == "attempt 21"
    step = client.state(run.id).steps["gated"]
    assert (step.failures, step.losses, step.crashes) == (0, 20, 0)
    tokens = [e.token for e in crew.ledger.begins(run.id)]
    assert all(a < b for a, b in pairwise(tokens))
    assert fetch(database.admin_dsn, "select count(*) from kairos.worker where state = 'dead'") == [(0,)]
    verdict(database.admin_dsn, crew.ledger)
