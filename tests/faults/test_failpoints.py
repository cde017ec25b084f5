"""A worker or client that dies at any named place loses nothing, and nothing happens twice."""

from __future__ import annotations

import signal

import pytest

import kairos
from kairos.client.starting import new_run_id
from kairos.store.failpoints import POINTS
from tests.conftest import TestDatabase
from tests.faults import workload
from tests.faults.processes import Crew, Proc, until
from tests.faults.support import fetch, open_runs, verdict, wait_all_ended
from tests.faults.test_retention_kills import RETENTION_POINTS

pytestmark = pytest.mark.timeout(300)

OWNER_POINTS = (
    "before_claim",
    "after_claim",
    "before_body",
    "after_body",
    "before_append",
    "after_append",
    "before_commit",
    "after_commit",
    "before_schedule_retry",
)
PARK_POINT = "after_schedule_retry"
CLIENT_POINTS = ("before_append", "after_append", "before_notify", "after_notify")
RELEASE_POINTS = ("before_release", "after_release")
SLOW_POINTS = ("before_append", "after_append", "before_commit", "after_commit")

CLIENT = """
import os, sys
import kairos
from tests.faults import workload
with kairos.Client(os.environ["KAIROS_DATABASE_URL"]) as client:
    for id in sys.argv[1].split(","):
        client.start(workload.quick, {"n": 1}, run_id=id, key=id)
    print("ready", flush=True)
print("a failpoint was not passed")
"""


def died_there(proc: Proc, what: str) -> None:
    """Wait for the SIGKILL of a failpoint; a process that lives on has never passed it."""
    until(lambda: proc.code is not None, f"{what} is passed", 30)
    assert proc.code == -signal.SIGKILL, f"{what}: exit code {proc.code}\n{proc.text()}"


def test_every_failpoint_is_passed_by_some_test() -> None:
    assert {*OWNER_POINTS, PARK_POINT, *CLIENT_POINTS, *RELEASE_POINTS, *SLOW_POINTS, *RETENTION_POINTS} == POINTS


@pytest.mark.parametrize("nth", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 5))])
def test_runs_end_after_their_owner_was_killed_at_any_point(
    crew: Crew, database: TestDatabase, client: kairos.Client, nth: int
) -> None:
    diamonds, victims, queues = [], {}, []
    points = [*OWNER_POINTS, PARK_POINT] if nth == 1 else OWNER_POINTS
    for point in points:
        queue = f"{point}-{nth}"
        queues.append(queue)
        for n in range(max(2, nth)):
            diamonds.append((n, client.start(workload.diamond, n, queue=queue)))
            client.start(workload.doomed, {"n": n}, queue=queue)
            client.start(workload.flaky, {"n": n}, queue=queue)
        if point == PARK_POINT:
            client.start(workload.late, {"n": 1}, queue=queue)
        # Few slots: bodies end one after the other, so that every point is passed often, and few become suspects.
        failpoints = f"{point}=kill@{nth}"
        victims[point] = crew.start(wait=False, queues=queue, concurrency=2, failpoints=failpoints, lease="1s")
    for point, victim in victims.items():
        died_there(victim, f"{point}@{nth}")
    crew.start(queues=",".join(queues))
    wait_all_ended(database.admin_dsn, 60)
    for n, run in diamonds:
        assert run.result(1) == workload.diamond_output(n)
    ended = dict(fetch(database.admin_dsn, "select status, count(*) from kairos.run group by 1"))
    assert ended["FAILED"] == max(2, nth) * len(points), ended
    verdict(database.admin_dsn, crew.ledger)


def test_runs_end_after_an_owner_was_killed_on_the_slow_path(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    crew.start(queues=workload.SIDE_QUEUE)
    cases = [(point, nth) for nth in (1, 2) for point in ("before_commit", "after_commit")]
    cases += [("before_append", 3), ("after_append", 3)]
    runs, queues, victims = [], [], []
    for point, nth in cases:
        queue = f"{point}-{nth}"
        queues.append(queue)
        runs += [client.start(workload.routed, queue, queue=queue) for _ in range(2)]
        failpoints = f"{point}=kill@{nth}"
        victims.append(crew.start(wait=False, queues=queue, concurrency=1, failpoints=failpoints, lease="1s"))
    for (point, nth), victim in zip(cases, victims, strict=True):
        died_there(victim, f"{point}@{nth}")
    crew.start(queues=",".join(queues))
    wait_all_ended(database.admin_dsn, 60)
    assert {run.result(1) for run in runs} == set(queues)
    verdict(database.admin_dsn, crew.ledger)


@pytest.mark.parametrize("nth", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def test_runs_end_after_their_helper_was_killed(
    crew: Crew, database: TestDatabase, client: kairos.Client, nth: int
) -> None:
    crew.start(queues="default")
    cases = [(point, nth) for point in (*SLOW_POINTS, "before_body", "after_body")]
    victims = [
        crew.start(wait=False, queues=workload.SIDE_QUEUE, concurrency=1, failpoints=f"{p}=kill@{n}", lease="1s")
        for p, n in cases
    ]
    runs: list[kairos.Run] = []

    def feed() -> bool:
        if open_runs(database.admin_dsn) < 12:
            runs.append(client.start(workload.routed, "there and back"))
        return all(v.code is not None for v in victims)

    until(feed, "every helper has died", 60, every=0.05)
    for (point, nth), victim in zip(cases, victims, strict=True):
        died_there(victim, f"{point}@{nth}")
    crew.start(queues=workload.SIDE_QUEUE)
    wait_all_ended(database.admin_dsn, 60)
    assert {run.result(1) for run in runs} == {"there and back"}
    verdict(database.admin_dsn, crew.ledger)


def test_a_start_that_is_repeated_after_its_client_died_makes_one_run(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    for point in CLIENT_POINTS:
        ids = [str(new_run_id()) for _ in range(3)]
        proc = crew.run(CLIENT, ",".join(ids), failpoints=f"{point}=kill")
        died_there(proc, point)
        for id in ids:
            assert client.start(workload.quick, {"n": 1}, run_id=id, key=id).id == id
    assert fetch(database.admin_dsn, "select count(*) from kairos.run") == [(3 * len(CLIENT_POINTS),)]
    crew.start()
    wait_all_ended(database.admin_dsn, 30)
    verdict(database.admin_dsn, crew.ledger)


@pytest.mark.parametrize("point", RELEASE_POINTS)
def test_a_worker_killed_while_it_gives_its_runs_back_burns_no_attempt(
    crew: Crew, database: TestDatabase, client: kairos.Client, point: str
) -> None:
    gate = crew.folder / "gate"
    run = client.start(workload.gated, {"gate": str(gate)})
    victim = crew.start(failpoints=f"{point}=kill", drain_timeout="0s", lease="1s")
    until(lambda: crew.ledger.begins(run.id), "the body has begun")
    victim.terminate()
    died_there(victim, point)
    crew.start()
    gate.touch()
    assert run.result(20) == "attempt 2"
    verdict(database.admin_dsn, crew.ledger)
