"""A process that dies between two effects: the next attempt, wherever it is, has the first and makes the second."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

import kairos
from tests.conftest import TestDatabase
from tests.engine.harness import kinds, working
from tests.faults import workload
from tests.faults.ledger import VARIABLE, Ledger
from tests.faults.processes import Crew, until
from tests.faults.proxy import ChaosProxy
from tests.faults.support import verdict, wait_all_ended

WHAT = ["first", "second", "third"]


def test_after_a_kill_an_effect_that_returned_is_not_made_again(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    runs, queues = [], []
    for name, job in (("rings", workload.rings), ("arings", workload.arings)):
        for what in WHAT:
            queues.append(f"{name}-{what}")
            runs.append(client.start(job, {"kill_after": what}, queue=queues[-1]))
            crew.start(lease="1s", queues=queues[-1], wait=False)
    for victim in crew.procs:
        until(lambda v=victim: v.code is not None, "its process is killed", 30)
    # Suspects now: each runs alone in a child of the worker, and its effects go through a pipe.
    crew.start(queues=",".join(queues))
    wait_all_ended(database.admin_dsn, 60)
    for run in runs:
        assert run.refresh().output[:3] == WHAT
        made = Counter(e.what for e in crew.ledger.entries() if e.run == str(run.id))
        assert made == dict.fromkeys(WHAT, 1), "each bell rang once"
        (step,) = client.state(run.id).steps.values()
        assert step.attempt == 2
    verdict(database.admin_dsn)


@pytest.mark.parametrize("point", ["before_append=kill@2", "after_append=kill@2", "after_commit=kill@2"])
def test_a_kill_around_the_commit_of_an_effect_loses_at_most_its_record(
    crew: Crew, database: TestDatabase, client: kairos.Client, point: str
) -> None:
    run = client.start(workload.rings, {"kill_after": ""})
    victim = crew.start(lease="1s", failpoints=point, wait=False)
    until(lambda: victim.code is not None, f"{point} is passed", 20)
    crew.start(lease="1s")
    wait_all_ended(database.admin_dsn, 30)
    assert run.wait(timeout=5).output[:3] == WHAT
    made = Counter(e.what for e in crew.ledger.entries() if e.run == str(run.id) and e.what in WHAT)
    assert set(made) == set(WHAT)
    assert sum(made.values()) <= 4, "what was not yet recorded may happen again, and nothing else"
    if point.startswith("after_commit"):
        assert sum(made.values()) == 3
    verdict(database.admin_dsn)


@pytest.mark.parametrize("is_answered", [True, False], ids=["after it was done", "while it was being done"])
def test_a_lost_reply_to_the_flush_of_an_effect_records_it_once(
    database: TestDatabase, is_answered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "ledger"))
    ledger = Ledger(tmp_path / "ledger")

    async def main() -> None:
        with ChaosProxy(database.dsn) as proxy:
            async with working(workload.app, proxy.dsn), kairos.AsyncClient(database.dsn) as client:
                rule = proxy.lose_replies(b"effect_recorded", app="kairos flusher", is_answered=is_answered)
                run = await client.start(workload.rings, {"kill_after": ""})
                assert (await run.result(30))[:3] == WHAT
                assert rule.cuts == 1
                assert (await kinds(client, run)).count("effect_recorded") == 4

    asyncio.run(main())
    assert Counter(e.what for e in ledger.entries()) == dict.fromkeys(WHAT, 1)
    verdict(database.admin_dsn)
