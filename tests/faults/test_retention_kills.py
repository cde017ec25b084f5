"""A removal that is killed at any place leaves no damage, and the next one brings it to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

import kairos
from kairos.domain.ids import uuid7
from kairos.store.partitions import Range, id_at, list_partitions, run_ddl
from kairos.store.queries import query
from tests.conftest import TestDatabase
from tests.engine.harness import working
from tests.faults.support import fetch, verdict, verify

ROOT = Path(__file__).resolve().parents[2]
OLD = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=400)
RETENTION_POINTS = (
    "after_removal_begun",
    "before_removal",
    "after_removal",
    "before_drop",
    "after_drop",
    "before_sweep",
    "after_sweep",
)

app = kairos.App("killed")
echo = app.workflow("echo", input=str)


@echo.step
async def say(word: str) -> str:
    return word


REMOVE = """
import os, psycopg
from datetime import timedelta
from kairos.store import retention
retention.BATCH = 2
with psycopg.connect(os.environ["KAIROS_DATABASE_URL"], autocommit=True) as conn:
    print(retention.remove_old_runs(conn, timedelta(0)).resumed)
"""


def remove(database: TestDatabase, failpoints: str = "") -> tuple[int, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("KAIROS_")}
    env |= {"KAIROS_DATABASE_URL": database.admin_dsn, "KAIROS_FAILPOINTS": failpoints, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", REMOVE], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout.strip()


async def _fill(database: TestDatabase) -> tuple[str, str]:
    """Six runs in the old partition, two in the default one, all ended; one that goes on, one that is held."""
    at = int(OLD.timestamp() * 1000)
    ids = [uuid7(at + n, n) for n in range(6)] + [uuid7(1, n) for n in range(2)]
    async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
        runs = [await client.start(echo, "x" * 2000 + str(n), run_id=id, key=str(n)) for n, id in enumerate(ids)]
        alive = await client.start(echo, "later", run_id=uuid7(at + 50, 1), queue="nobody")
        for run in runs:
            await run.wait(20)
    return alive.id, runs[3].id


@pytest.mark.parametrize("nth", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("point", RETENTION_POINTS)
def test_a_removal_that_was_killed_leaves_no_damage_and_is_finished_by_the_next(
    database: TestDatabase, point: str, nth: int
) -> None:
    if nth == 2 and point in ("before_drop", "after_drop", "before_sweep", "after_sweep"):
        pytest.skip("it is passed once")
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        for part in list_partitions(conn)[:-1]:
            conn.execute(f"drop table kairos.{part.name}")  # payloads of the present count as old
        run_ddl(conn, query("create_partition"), "event_old")
        run_ddl(conn, query("attach_partition"), "event_old", Range(id_at(OLD), id_at(OLD + timedelta(days=7))))
        alive, held = asyncio.run(_fill(database))
        conn.execute("insert into kairos.hold (run_id) values (%s)", [held])
        conn.execute("update kairos.blob set used_at = used_at - interval '10 days'")
        conn.execute("update kairos.migration set applied_at = applied_at - interval '10 days'")
    before = fetch(database.admin_dsn, "select * from kairos.event where run_id = any(%s)", [alive, held])
    code, _ = remove(database, f"{point}=kill@{nth}")
    assert code == -signal.SIGKILL, "the failpoint was not passed"
    verify(database.admin_dsn)
    half_done = fetch(database.admin_dsn, "select count(*) from kairos.removal where ended_at is null")[0][0]
    code, resumed = remove(database)
    assert (code, resumed) == (0, str(half_done))
    verdict(database.admin_dsn, all_ended=False)
    after = fetch(database.admin_dsn, "select * from kairos.event")
    assert sorted(map(str, after)) == sorted(map(str, before))
    assert fetch(database.admin_dsn, "select count(*) from kairos.run") == [(2,)]
    assert fetch(database.admin_dsn, "select key from kairos.run_key") == [("3",)]
    assert fetch(database.admin_dsn, "select count(*) from kairos.blob") == [(1,)]
    assert fetch(database.admin_dsn, "select count(*) from kairos.removal where ended_at is null") == [(0,)]
    assert fetch(database.admin_dsn, "select to_regclass('kairos.event_old')") == [(None,)]
