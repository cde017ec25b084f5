"""The log lies in partitions by age: made ahead, never in the way, and no id without a place."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import kairos
from kairos.domain.ids import uuid7
from kairos.errors import RetentionError
from kairos.store import migrate as migrating
from kairos.store import partitions
from kairos.store.connect import Session
from kairos.store.migrate import find_migrations, migrate
from kairos.store.partitions import Partition, Range, id_at, list_partitions, make_partitions, missing, time_of
from kairos.store.verify import Report, Verifier
from tests.conftest import Server, TestDatabase
from tests.engine.harness import working

DAY = timedelta(days=1)
RETENTION = 4
"""The migration that makes partitions."""
NOW = datetime(2026, 7, 17, 15, 30, tzinfo=UTC)

app = kairos.App("parts")
echo = app.workflow("echo", input=str)


@echo.step
async def say(word: str) -> str:
    return word


@pytest.fixture
def admin(database: TestDatabase) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        yield conn


def put(conn: psycopg.Connection[Any], run_id: uuid.UUID, count: int = 1) -> None:
    conn.execute(
        "insert into kairos.event (run_id, seq, kind, at, hash, body) "
        "select %s, n, 'x', now(), '', '{}' from generate_series(1, %s) n",
        (run_id, count),
    )


def place(conn: psycopg.Connection[Any], run_id: uuid.UUID | str) -> str:
    rows = conn.execute("select tableoid::regclass::text from kairos.event where run_id = %s", [run_id]).fetchall()
    return str(rows[0][0]).removeprefix("kairos.")


def verified(dsn: str) -> Report:
    async def main() -> Report:
        session = Session(dsn, "verify")
        try:
            verifier = Verifier(session)
            async for _ in verifier.every():
                pass
            return verifier.report
        finally:
            await session.close()

    return asyncio.run(main())


def part(low: datetime, high: datetime) -> Partition:
    return Partition("p", Range(id_at(low), id_at(high)), 0)


@pytest.mark.parametrize(
    ("retention", "width"),
    [
        (None, 90 * DAY),
        (30 * DAY, 7 * DAY),
        (4 * DAY, DAY),
        (DAY, timedelta(hours=6)),
        (timedelta(hours=1), timedelta(hours=1)),
        (3650 * DAY, 90 * DAY),
    ],
)
def test_a_partition_spans_a_quarter_of_what_is_kept(retention: timedelta | None, width: timedelta) -> None:
    assert partitions.width_for(retention) == width


def test_partitions_reach_from_now_to_four_further_without_a_gap() -> None:
    made = list(missing([], NOW, DAY))
    assert [time_of(r.low) for r in made] == [datetime(2026, 7, 17, tzinfo=UTC) + n * DAY for n in range(5)]
    assert [r.high for r in made[:-1]] == [r.low for r in made[1:]]


def test_a_new_width_takes_effect_behind_what_there_is() -> None:
    there = [part(datetime(2026, 7, 16, tzinfo=UTC), datetime(2026, 7, 18, tzinfo=UTC))]
    made = list(missing(there, NOW, timedelta(hours=6)))
    assert time_of(made[0].low) == datetime(2026, 7, 18, tzinfo=UTC)
    assert all(time_of(r.high) - time_of(r.low) == timedelta(hours=6) for r in made if r.high)


def test_after_a_long_pause_partitions_begin_with_the_present() -> None:
    there = [part(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))]
    assert time_of(next(iter(missing(there, NOW, DAY))).low) == datetime(2026, 7, 17, tzinfo=UTC)


def test_a_fresh_database_has_partitions_and_runs_go_into_them(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    async def main() -> kairos.AsyncRun:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await client.start(echo, "hi")
            assert await run.result(10) == "hi"
            return run

    run = asyncio.run(main())
    parts = list_partitions(admin)
    assert len(parts) == partitions.AHEAD + 2
    assert parts[-1].range is None
    assert place(admin, run.id) == parts[0].name
    assert verified(database.dsn).is_clean


def test_an_id_of_the_callers_own_choosing_finds_a_place(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    far = uuid7(int((NOW + 36500 * DAY).timestamp() * 1000), 1)
    ids = [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.uuid4(), far]
    with kairos.Client(database.dsn) as client:
        for run_id in ids:
            client.start(echo, "hi", run_id=run_id)
    assert {place(admin, run_id) for run_id in ids} == {"event_default"}
    assert verified(database.dsn).runs == len(ids)


def test_a_range_of_which_the_default_partition_holds_something_is_left_to_it(admin: psycopg.Connection[Any]) -> None:
    *_, last, default = list_partitions(admin)
    assert last.range is not None
    admin.execute(f"drop table kairos.{last.name}")
    early = uuid.UUID(int=last.range.low.int + 7)
    put(admin, early)
    assert make_partitions(admin, None) == []
    assert place(admin, early) == default.name


def test_a_large_default_partition_is_proved_empty_before_it_is_locked(
    admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "SMALL", -1)
    for old in list_partitions(admin)[1:-1]:
        admin.execute(f"drop table kairos.{old.name}")
    put(admin, uuid.UUID(int=1), 3)
    seen: list[str] = []
    real = partitions.run_ddl

    def spy(conn: Any, text: str, name: str, range: Range | None = None) -> None:
        seen.append(text.split("{name}")[-1].strip().split(" ")[0] if "constraint" in text else text.split(" ")[0])
        real(conn, text, name, range)

    monkeypatch.setattr(partitions, "run_ddl", spy)
    made = make_partitions(admin, None)
    assert len(made) == partitions.AHEAD
    left = admin.execute("select conname from pg_constraint where conname like 'event\\_2%' and contype = 'c'")
    assert left.fetchall() == []
    assert seen.count("check") == partitions.AHEAD


def test_the_present_is_not_fenced_off_a_large_default_partition(
    admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "SMALL", -1)
    for old in list_partitions(admin)[:-1]:
        admin.execute(f"drop table kairos.{old.name}")
    assert all(time_of(r.low) > datetime.now(UTC) for r in make_partitions(admin, None))


def test_partitions_are_made_while_others_write_and_the_log_is_given_up_when_it_stays_in_use(
    admin: psycopg.Connection[Any], database: TestDatabase
) -> None:
    for old in list_partitions(admin)[1:-1]:
        admin.execute(f"drop table kairos.{old.name}")
    with psycopg.connect(database.admin_dsn) as dump:
        dump.execute("lock table kairos.event_default in access share mode")
        with pytest.raises(RetentionError, match=f"session {dump.info.backend_pid}"):
            make_partitions(admin, None, patience=0.3)
    assert len(make_partitions(admin, None, patience=10)) == partitions.AHEAD


def test_a_row_on_its_way_to_the_default_partition_is_not_refused_when_its_range_becomes_a_partition(
    admin: psycopg.Connection[Any], database: TestDatabase
) -> None:
    """A writer that has looked for the place of its row waits for nothing that the attaching session holds."""
    present, *_ = list_partitions(admin)
    admin.execute(f"drop table kairos.{present.name}")
    assert present.range is not None
    failed: list[BaseException] = []
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
            try:
                while not stop.is_set():
                    with conn.transaction(force_rollback=True):
                        put(conn, uuid7(int(time.time() * 1000), 1))
            except BaseException as exc:
                failed.append(exc)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(20):
            assert partitions._make(admin, present.range, is_future=False, patience=10)
            partitions.briefly(admin, lambda: admin.execute(f"drop table kairos.{present.name}"))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert failed == []


def test_two_at_once_make_each_partition_once(database: TestDatabase, admin: psycopg.Connection[Any]) -> None:
    for old in list_partitions(admin)[:-1]:
        admin.execute(f"drop table kairos.{old.name}")
    made: list[Range] = []

    def work() -> None:
        with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
            made.extend(make_partitions(conn, None))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(set(made)) == partitions.AHEAD + 1


def test_a_role_that_may_not_make_tables_goes_on_without(database: TestDatabase, server: Server) -> None:
    if server.admin == server.app:
        pytest.skip("this server has one role for everything")
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        for old in list_partitions(conn)[:-1]:
            conn.execute(f"drop table kairos.{old.name}")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        assert make_partitions(conn, None) == []
    with kairos.Client(database.dsn) as client:
        client.start(echo, "hi")
    assert verified(database.dsn).runs == 1


@pytest.mark.parametrize("change", ["update kairos.{} set body = ''", "delete from kairos.{}", "truncate kairos.{}"])
@pytest.mark.parametrize("which", ["event", "event_default", "made"])
def test_history_cannot_be_changed_through_any_partition(
    admin: psycopg.Connection[Any], change: str, which: str
) -> None:
    put(admin, uuid7(int(time.time() * 1000), 1))
    put(admin, uuid.UUID(int=1))
    table = list_partitions(admin)[0].name if which == "made" else which
    with pytest.raises(psycopg.DatabaseError, match="append-only") as caught:
        admin.execute(change.format(table))
    assert caught.value.sqlstate == "KA001"


def test_events_go_only_after_their_head_and_only_where_a_removal_is_under_way(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    with kairos.Client(database.dsn) as client:
        run = client.start(echo, "hi")

    def refused() -> bool:
        try:
            admin.execute("delete from kairos.event")
        except psycopg.DatabaseError as exc:
            return exc.sqlstate == "KA001"
        return False

    admin.execute("insert into kairos.removal (low, high, older_than) values (%s, null, now())", [uuid.UUID(int=0)])
    assert refused()  # its head is there
    admin.execute("delete from kairos.run")
    admin.execute("update kairos.removal set low = %s", [uuid.UUID(int=uuid.UUID(run.id).int + 1)])
    assert refused()  # another range
    admin.execute("update kairos.removal set low = %s, high = %s", [uuid.UUID(int=0), run.id])
    assert refused()
    admin.execute("update kairos.removal set high = null, ended_at = now()")
    assert refused()  # over
    admin.execute("update kairos.removal set ended_at = null")
    assert not refused()


def test_the_role_of_workers_has_no_right_on_single_partitions(database: TestDatabase, server: Server) -> None:
    if server.admin == server.app:
        pytest.skip("this server has one role for everything")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        for found in list_partitions(conn):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"insert into kairos.{found.name} select * from kairos.event")


def test_a_log_from_before_partitions_is_taken_over_as_it_stands(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if server.admin == server.app:
        pytest.skip("this server has one role for everything")
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute("drop database if exists kairos_old with (force)")
        conn.execute("create database kairos_old")
    dsn, app_dsn = (make_conninfo(d, dbname="kairos_old") for d in (server.admin, server.app))
    files = find_migrations()
    with monkeypatch.context() as before:
        before.setattr(migrating, "find_migrations", lambda: [m for m in files if m.version < RETENTION])
        before.setattr(migrating, "make_partitions", lambda *args, **more: [])
        migrate(dsn)
    run_id = uuid7(int(time.time() * 1000), 5)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("grant usage on schema kairos to kairos")
        conn.execute("grant select, insert on kairos.event, kairos.blob to kairos")  # as they were granted then
        put(conn, run_id, 4)
        node = conn.execute("select pg_relation_filenode('kairos.event')").fetchone()
    assert "0004_retention" in [m.name for m in migrate(dsn)]
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert conn.execute("select pg_relation_filenode('kairos.event_default')").fetchone() == node
        assert place(conn, run_id) == "event_default"
        assert len(list_partitions(conn)) == partitions.AHEAD + 1  # the present stays in the default one
    with psycopg.connect(app_dsn, autocommit=True) as conn:
        put(conn, run_id=uuid.UUID(int=9))
        assert conn.execute("select count(*) from kairos.event").fetchone() == (5,)
        assert conn.execute("select count(*) from kairos.removal").fetchone() == (0,)
