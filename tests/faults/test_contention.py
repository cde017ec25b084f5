"""Many at once: siblings that end together, appends to one run, starts with one key, locked heads."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

import kairos
from kairos.domain.commands import RejectWrite
from kairos.store.connect import Session
from kairos.store.history import Conn, Definitions, History
from tests.conftest import TestDatabase
from tests.engine.harness import until, working
from tests.faults import workload
from tests.faults.ledger import VARIABLE, Ledger
from tests.faults.processes import Crew
from tests.faults.processes import until as wait_until
from tests.faults.support import fetch, verdict, wait_all_ended


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "ledger"))
    return Ledger(tmp_path / "ledger")


def once_each(database: TestDatabase, run: str) -> None:
    kinds = Counter(row[0] for row in fetch(database.admin_dsn, "select kind from kairos.event where run_id = %s", run))
    assert (kinds["step_done"], kinds["run_done"]) == (3, 1), kinds


def test_two_siblings_that_end_at_the_same_instant_in_two_workers_join_once(
    database: TestDatabase, ledger: Ledger, tmp_path: Path
) -> None:
    async def main() -> None:
        async with (
            working(workload.app, database.dsn),
            working(workload.app, database.dsn, queues=(workload.SIDE_QUEUE,)),
            kairos.AsyncClient(database.dsn) as client,
        ):
            for n in range(20):
                gate = tmp_path / f"gate{n}"
                run = await client.start(workload.pair, str(gate))
                await until(lambda run=run: len(ledger.begins(run.id)) == 2)
                gate.touch()
                assert await run.result(15) == "left+right"
                once_each(database, run.id)

    asyncio.run(main())
    assert len([e for e in ledger.begins() if e.step == "both"]) == 20
    verdict(database.admin_dsn, ledger)


def test_siblings_join_once_when_the_owner_dies_right_after_they_have_ended(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    crew.start(queues=workload.SIDE_QUEUE)
    for n in range(3):
        gate = crew.folder / f"gate{n}"
        owner = crew.start(lease="1s", failpoints="after_body=kill")
        run = client.start(workload.pair, str(gate))
        wait_until(lambda run=run: len(crew.ledger.begins(run.id)) == 2, "both siblings have begun", 30)
        gate.touch()
        wait_until(lambda owner=owner: owner.code is not None, "the owner has died")
        successor = crew.start()
        assert run.result(30) == "left+right"
        once_each(database, run.id)
        successor.kill()
    verdict(database.admin_dsn, crew.ledger)


def test_a_thousand_concurrent_appends_to_one_run_leave_no_gap(database: TestDatabase) -> None:
    writers, each = 10, 100

    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            run = await client.start(workload.quick, {"n": 1})

        async def write(writer: int) -> None:
            session, history = Session(database.dsn, f"writer {writer}"), History(Definitions())
            for n in range(each):
                record = RejectWrite("quick", 1, writer, f"writer {writer}", f"write {n}")

                async def append(conn: Conn, record: RejectWrite = record) -> None:
                    await history.advance(conn, run.info.id, [record])

                await session.run(append)
            await session.close()

        await asyncio.gather(*(write(writer) for writer in range(writers)))

    asyncio.run(main())
    assert database.fetch("select last_seq from kairos.run") == [(1 + writers * each,)]
    found = database.fetch("select distinct body from kairos.event where kind = 'stale_write_rejected'")
    assert len(found) == writers * each
    verdict(database.admin_dsn, all_ended=False)


STARTER = """
import json, os, sys
from concurrent.futures import ThreadPoolExecutor
import kairos
from tests.faults import workload
with kairos.Client(os.environ["KAIROS_DATABASE_URL"]) as client:
    print("ready", flush=True)
    sys.stdin.readline()
    def start(n):
        try:
            return client.start(workload.quick, {"n": int(sys.argv[1])}, key="the key").id
        except kairos.KeyConflict as exc:
            return "conflict"
    with ThreadPoolExecutor(12) as pool:
        print(json.dumps(list(pool.map(start, range(12)))), flush=True)
"""


def test_fifty_concurrent_starts_with_one_key_are_one_run(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    procs = [crew.run(STARTER, "1") for _ in range(3)]
    for proc in procs:
        proc.wait_ready()
    go = threading.Event()

    def start(_: int) -> str:
        go.wait(10)
        return client.start(workload.quick, {"n": 1}, key="the key").id

    with ThreadPoolExecutor(14) as pool:
        here = [pool.submit(start, n) for n in range(14)]
        for proc in procs:
            assert proc.process.stdin is not None
            proc.process.stdin.write(b"go\n")
            proc.process.stdin.flush()
        go.set()
        ids = {future.result() for future in here}
    for proc in procs:
        assert proc.process.stdout is not None
        ids |= set(json.loads(proc.process.stdout.readline()))
    assert len(ids) == 1
    assert database.fetch("select count(*) from kairos.run") == [(1,)]
    with pytest.raises(kairos.KeyConflict, match="another input"):
        client.start(workload.quick, {"n": 2}, key="the key")
    verdict(database.admin_dsn, all_ended=False)


def test_of_two_inputs_that_race_for_one_key_one_wins_and_the_other_is_told(
    database: TestDatabase,
) -> None:
    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as one, kairos.AsyncClient(database.dsn) as two:
            for n in range(25):
                starts = [c.start(workload.quick, {"n": i}, key=f"k{n}") for i, c in enumerate((one, two))]
                answers = await asyncio.gather(*starts, return_exceptions=True)
                kinds = sorted(type(answer).__name__ for answer in answers)
                assert kinds == ["AsyncRun", "KeyConflict"]

    asyncio.run(main())
    assert database.fetch("select count(*) from kairos.run") == [(25,)]
    verdict(database.admin_dsn, all_ended=False)


def test_a_locked_head_holds_up_nobody_else(database: TestDatabase, ledger: Ledger) -> None:
    async def main() -> None:
        async with (
            working(workload.app, database.dsn, lease=10.0) as (worker,),
            kairos.AsyncClient(database.dsn) as client,
        ):
            stuck = await client.start(workload.diamond, 1)
            await until(lambda: stuck.info.id in worker.owner.held)
            with psycopg.connect(database.admin_dsn) as gate:
                gate.execute("select 1 from kairos.run where id = %s for update", [stuck.id])
                began = time.monotonic()
                others = await client.start_many(workload.diamond, list(range(10)))
                for n, run in enumerate(others):
                    assert await run.result(10) == workload.diamond_output(n)
                assert time.monotonic() - began < 5
                assert str((await stuck.refresh()).status) in ("SCHEDULED", "RUNNING")
            assert await stuck.result(10) == workload.diamond_output(1)

    asyncio.run(main())
    verdict(database.admin_dsn, ledger)


def test_a_locked_head_of_a_shared_run_holds_up_nobody_else(
    database: TestDatabase, ledger: Ledger, tmp_path: Path
) -> None:
    """On the slow path an append waits for the head: claims and other runs must not wait with it."""

    async def main() -> None:
        gate_file = tmp_path / "gate"
        async with (
            working(workload.app, database.dsn, lease=10.0),
            working(workload.app, database.dsn, lease=10.0, queues=(workload.SIDE_QUEUE,)),
            kairos.AsyncClient(database.dsn) as client,
        ):
            stuck = await client.start(workload.pair, str(gate_file))
            await until(lambda: len(ledger.begins(stuck.id)) == 2)
            with psycopg.connect(database.admin_dsn) as gate:
                gate.execute("select 1 from kairos.run where id = %s for update", [stuck.id])
                gate_file.touch()
                await until(lambda: len(ledger.ends(stuck.id)) == 2)
                began = time.monotonic()
                others = await client.start_many(workload.routed, [str(n) for n in range(4)])
                for n, run in enumerate(others):
                    assert await run.result(20) == str(n)
                assert time.monotonic() - began < 3
            assert await stuck.result(10) == "left+right"

    asyncio.run(main())
    verdict(database.admin_dsn, ledger)


def test_a_cancel_that_races_with_the_end_has_one_outcome(database: TestDatabase, ledger: Ledger) -> None:
    async def main() -> None:
        ended: Counter[str] = Counter()
        async with working(workload.app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            for n in range(25):
                run = await client.start(workload.quick, {"n": n})
                await asyncio.sleep(n * 0.002)
                await client.cancel(run.id, "racing")
                await run.wait(10)
                ended[str(run.status)] += 1
        assert sum(ended.values()) == 25
        assert set(ended) <= {"DONE", "CANCELLED", "FAILED"}
        assert len(ended) > 1, f"the race was never open: {ended}"

    asyncio.run(main())
    verdict(database.admin_dsn)


def test_cancels_flushes_and_claims_in_each_other_s_way_deadlock_nobody(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    for _ in range(2):
        crew.start(wait=False)
    helper = crew.start(queues=workload.SIDE_QUEUE, wait=False)
    runs = client.start_many(workload.diamond, list(range(30)))
    runs += client.start_many(workload.routed, [str(n) for n in range(30)])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda run: client.cancel(run.id), runs[::3]))
    wait_all_ended(database.admin_dsn, 60)
    assert helper.code is None
    assert "deadlock" not in crew.logs()
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert fetch(database.admin_dsn, deadlocks) == [(0,)]
    verdict(database.admin_dsn, crew.ledger)
