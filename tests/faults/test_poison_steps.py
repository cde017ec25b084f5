"""A step that takes its process with it ends in the dead-letter state, by itself; everybody else goes on."""

from __future__ import annotations

import time

import pytest

import kairos
from tests.conftest import TestDatabase
from tests.faults import workload
from tests.faults.processes import Crew
from tests.faults.support import open_runs, verdict

REASONS = {"kill": "SIGKILL", "exit": "exit code 3", "segfault": "SIGSEGV", "memory": "SIGABRT"}


def test_steps_that_kill_their_process_die_with_that_reason_while_others_finish(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    poisoned = {how: client.start(workload.poison, {"how": how}) for how in REASONS}
    others = [client.start(workload.diamond, n) for n in range(5)]
    # Restarted as a service manager would; few slots, so that the poison does not make suspects of everybody.
    workers = [crew.start(lease="1s", concurrency=2, wait=False) for _ in range(2)]
    deadline = time.monotonic() + 90
    deaths = 0
    while open_runs(database.admin_dsn):
        for i, worker in enumerate(workers):
            if worker.code is not None:
                deaths += 1
                workers[i] = crew.start(lease="1s", concurrency=2, wait=False)
        assert time.monotonic() < deadline, "some runs do not end"
        time.sleep(0.02)
    assert deaths <= len(poisoned), "each kind of poison may take one worker at most; then it runs alone"
    for n, run in enumerate(others):
        assert run.result(1) == workload.diamond_output(n)
    for how, run in poisoned.items():
        with pytest.raises(kairos.RunFailed, match=REASONS[how]):
            run.result(1)
        step = client.state(run.id).steps["poison"]
        assert (step.status, step.crashes) == ("DEAD", 1)
        assert REASONS[how] in str(step.reason)
        assert step.error is not None
        assert step.error.type == "kairos.WorkerCrashed"
    verdict(database.admin_dsn, crew.ledger)
