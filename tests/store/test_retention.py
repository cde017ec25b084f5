"""What ended long ago goes, what anybody still needs stays, and whoever looks meanwhile sees no damage."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import psycopg
import pytest

import kairos
from kairos.domain.ids import uuid7
from kairos.errors import RetentionError, RunNotFound
from kairos.store import partitions, retention
from kairos.store.connect import Session
from kairos.store.partitions import Range, id_at, list_partitions, run_ddl
from kairos.store.queries import query
from kairos.store.reader import Reader
from kairos.store.retention import Outcome, hold_run, remove_old_runs, unhold_run
from kairos.store.verify import Report, Verifier
from tests.conftest import Server, TestDatabase
from tests.engine.harness import until, working
from tests.store.test_partitions import place, verified

NOTHING = timedelta(0)
DAY = timedelta(days=1)
OLD = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 400 * DAY
PART = "event_old"
_COUNT = count(1)

app = kairos.App("old")
echo = app.workflow("echo", input=str)
doomed = app.workflow("doomed", input=str)


@echo.step
async def say(word: str) -> str:
    return word


@doomed.step(retry=kairos.Retry(attempts=1))
async def fail(word: str) -> str:
    raise ValueError(word)


asks = app.workflow("asks", input=str)


@asks.step
def ask(word: str, ctx: kairos.StepContext) -> None:
    ctx.call("upper", str.upper, word)


@pytest.fixture
def admin(database: TestDatabase) -> Iterator[psycopg.Connection[Any]]:
    """With a partition for the first of `OLD` and the six days after it."""
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        run_ddl(conn, query("create_partition"), PART)
        run_ddl(conn, query("attach_partition"), PART, Range(id_at(OLD), id_at(OLD + 7 * DAY)))
        yield conn


def old_id() -> uuid.UUID:
    """An id of a run that claims to be from the time of the old partition."""
    return uuid7(int(OLD.timestamp() * 1000) + next(_COUNT), 7)


def finished(database: TestDatabase, *starts: dict[str, Any]) -> list[kairos.AsyncRun]:
    """Runs that have ended; each start may say `workflow`, `input`, `run_id`, `key`."""

    async def main() -> list[kairos.AsyncRun]:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            runs = []
            for start in starts:
                given = {"run_id": old_id(), **start}
                runs.append(await client.start(given.pop("workflow", echo), given.pop("input", "hi"), **given))
            for run in runs:
                await run.wait(20)
            return runs

    return asyncio.run(main())


def waiting(database: TestDatabase, **more: Any) -> kairos.Run:
    """A run that goes on: nobody serves its queue."""
    with kairos.Client(database.dsn) as client:
        return client.start(echo, "later", run_id=old_id(), queue="nobody", **more)


def events(conn: psycopg.Connection[Any], run_id: str) -> list[tuple[Any, ...]]:
    return conn.execute(
        "select run_id, seq, kind, at, step, attempt, token, hash, body from kairos.event "
        "where run_id = %s order by seq",
        [run_id],
    ).fetchall()


def hold(database: TestDatabase, run_id: str) -> None:
    async def main() -> None:
        session = Session(database.dsn, "keep")
        await hold_run(session, uuid.UUID(run_id), "evidence")
        await session.close()

    asyncio.run(main())


def names(conn: psycopg.Connection[Any]) -> list[str]:
    return [part.name for part in list_partitions(conn)]


def run_ids(conn: psycopg.Connection[Any]) -> set[str]:
    return {str(row[0]) for row in conn.execute("select id from kairos.run")}


def test_a_partition_is_dropped_and_what_is_still_needed_of_it_stays_byte_by_byte(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    starts = [{"key": f"k{n}"} for n in range(6)] + [{"workflow": doomed, "key": "d"}]
    runs = finished(database, *starts)
    kept, alive = runs[0].id, waiting(database).id
    hold(database, kept)
    before = {run_id: events(admin, run_id) for run_id in (kept, alive)}
    done = remove_old_runs(admin, NOTHING)
    assert (done.removed, done.dropped) == (6, 1)
    assert PART not in names(admin)
    assert run_ids(admin) == {kept, alive}
    assert {run_id: events(admin, run_id) for run_id in (kept, alive)} == before
    assert place(admin, kept) == "event_default"
    assert admin.execute("select count(*) from kairos.event").fetchone() == (sum(map(len, before.values())),)
    assert admin.execute("select key from kairos.run_key").fetchall() == [("k0",)]
    assert admin.execute("select count(*) from kairos.failure").fetchone() == (0,)
    report = verified(database.dsn)
    assert (report.is_clean, report.runs) == (True, 2)


def test_a_run_whose_events_were_moved_goes_on(database: TestDatabase, admin: psycopg.Connection[Any]) -> None:
    run = waiting(database)
    remove_old_runs(admin, NOTHING)
    assert PART not in names(admin)

    async def main() -> None:
        async with working(app, database.dsn, queues=("nobody",)), kairos.AsyncClient(database.dsn) as client:
            assert await (await client.get_run(run.id)).result(10) == "later"

    asyncio.run(main())
    assert verified(database.dsn).is_clean


def test_a_dry_run_says_what_would_go_and_changes_nothing(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    runs = finished(database, {}, {}, {})
    hold(database, runs[0].id)
    alive = waiting(database)
    done = remove_old_runs(admin, NOTHING, is_dry=True)
    (stretch,) = done.stretches
    assert (stretch.partition, stretch.action) == (PART, "drop")
    assert (stretch.runs, stretch.removable, stretch.held, stretch.going, stretch.recent) == (4, 2, 1, 1, 0)
    assert run_ids(admin) == {run.id for run in runs} | {alive.id}
    assert admin.execute("select count(*) from kairos.removal").fetchone() == (0,)
    assert (done.removed, PART in names(admin)) == (0, True)


def test_a_run_that_ended_lately_stays_however_old_it_is(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    (run,) = finished(database, {})
    done = remove_old_runs(admin, timedelta(hours=1))
    assert (done.removed, done.stretches[0].recent, done.dropped) == (0, 1, 1)
    assert place(admin, run.id) == "event_default"
    assert remove_old_runs(admin, NOTHING).removed == 1
    assert run_ids(admin) == set()
    assert admin.execute("select count(*) from kairos.event").fetchone() == (0,)


def test_where_too_much_is_still_needed_rows_are_deleted_and_the_partition_stays(
    database: TestDatabase, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MAX_EVENTS", 3)
    runs = finished(database, {}, {}, {}, {})
    hold(database, runs[2].id)
    done = remove_old_runs(admin, NOTHING)
    assert (done.removed, done.dropped, done.stretches[0].action) == (3, 0, "delete")
    assert place(admin, runs[2].id) == PART
    assert admin.execute("select count(distinct run_id) from kairos.event").fetchone() == (1,)
    assert verified(database.dsn).is_clean


def test_runs_with_ids_of_the_callers_own_choosing_go_too(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    finished(database, *({"run_id": run_id} for run_id in (uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.uuid4())))
    assert remove_old_runs(admin, NOTHING).removed == 3
    assert admin.execute("select count(*) from kairos.event").fetchone() == (0,)


def test_runs_of_the_present_partition_stay_until_its_time_is_over(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    (run,) = finished(database, {"run_id": uuid7(int(time.time() * 1000), 3)})
    assert remove_old_runs(admin, NOTHING).removed == 0
    assert run_ids(admin) == {run.id}


def test_a_key_is_free_again_once_its_run_was_removed(database: TestDatabase, admin: psycopg.Connection[Any]) -> None:
    (first,) = finished(database, {"key": "order-1"})
    with kairos.Client(database.dsn) as client:
        assert client.start(echo, "hi", key="order-1").id == first.id
        remove_old_runs(admin, NOTHING)
        assert client.start(echo, "hi", key="order-1").id != first.id


def test_who_asks_for_a_removed_run_is_told_when_it_went(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    (run,) = finished(database, {})
    remove_old_runs(admin, NOTHING)

    async def main() -> None:
        session = Session(database.dsn, "look")
        reader = Reader(session)
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        for ask in (reader.find(run.id), reader.find(run.id[:12]), reader.run(uuid.UUID(run.id))):
            with pytest.raises(RunNotFound, match=f"removed by retention on {today}"):
                await ask
        with pytest.raises(RunNotFound) as caught:
            await reader.run(uuid7(int(time.time() * 1000), 1))
        assert "retention" not in str(caught.value)
        await session.close()

    asyncio.run(main())


def test_a_run_that_another_refers_to_stays_until_that_one_is_gone(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    parent, child = finished(database, {}, {"run_id": uuid.uuid4()})
    admin.execute("insert into kairos.hold (run_id, holder) values (%s, %s)", [parent.id, child.id])
    assert remove_old_runs(admin, NOTHING).removed == 1
    assert run_ids(admin) == {parent.id}
    assert remove_old_runs(admin, NOTHING).removed == 1


def test_a_run_that_is_kept_no_longer_goes(database: TestDatabase, admin: psycopg.Connection[Any]) -> None:
    (run,) = finished(database, {})
    hold(database, run.id)
    remove_old_runs(admin, NOTHING)

    async def release() -> list[bool]:
        session = Session(database.dsn, "keep")
        said = [await unhold_run(session, uuid.UUID(run.id)) for _ in range(2)]
        with pytest.raises(RunNotFound):
            await hold_run(session, uuid.uuid4(), "")
        await session.close()
        return said

    assert asyncio.run(release()) == [True, False]
    assert remove_old_runs(admin, NOTHING).removed == 1


def test_a_run_is_held_or_removed_but_not_both(database: TestDatabase, admin: psycopg.Connection[Any]) -> None:
    first, second, third = finished(database, {}, {}, {})
    with psycopg.connect(database.dsn) as asker:  # holds it, and has not committed
        asker.execute(query("hold_run"), {"run_id": uuid.UUID(first.id), "reason": ""})
        assert remove_old_runs(admin, NOTHING).removed == 2
    assert run_ids(admin) == {first.id}
    assert {second.id, third.id}.isdisjoint(run_ids(admin))
    assert verified(database.dsn).is_clean


def test_a_hold_that_comes_while_runs_are_being_locked_counts(
    database: TestDatabase, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = finished(database, {})
    real = retention._fitting

    def late(rows: Any) -> Any:
        # As if it had been committed just before the row was locked, after the list was read.
        admin.execute("insert into kairos.hold (run_id) values (%s)", [run.id])
        return real(rows)

    monkeypatch.setattr(retention, "_fitting", late)
    monkeypatch.setattr(retention, "MAX_EVENTS", -1)
    assert remove_old_runs(admin, NOTHING).removed == 0
    assert run_ids(admin) == {run.id}


def test_only_the_owner_of_the_log_may_remove(database: TestDatabase, server: Server) -> None:
    if server.admin == server.app:
        pytest.skip("this server has one role for everything")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        assert remove_old_runs(conn, NOTHING, is_dry=True).removed == 0
        with pytest.raises(RetentionError, match="does not own the log"):
            remove_old_runs(conn, NOTHING)


def test_two_cannot_remove_at_once(database: TestDatabase, admin: psycopg.Connection[Any]) -> None:
    with psycopg.connect(database.admin_dsn, autocommit=True) as other, partitions.only_one(other):
        with pytest.raises(RetentionError, match="another process"):
            remove_old_runs(admin, NOTHING)


def test_keeping_everything_only_makes_partitions(database: TestDatabase, admin: psycopg.Connection[Any]) -> None:
    finished(database, {})
    admin.execute(f"drop table kairos.{list_partitions(admin)[-2].name}")
    assert remove_old_runs(admin, None) == Outcome(made=1)
    assert PART in names(admin)


def test_verify_sees_no_damage_while_runs_are_removed_under_it(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    finished(database, {}, {"input": "x" * 3000})

    class Interrupted(Session):
        async def execute(self, name: str, params: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
            if name == "verify_events":
                assert remove_old_runs(admin, NOTHING).removed == 2
            return await super().execute(name, params)

    async def main() -> Report:
        session = Interrupted(database.dsn, "verify")
        verifier = Verifier(session)
        async for _ in verifier.every():
            pass
        await session.close()
        return verifier.report

    assert asyncio.run(main()).problems == []


def test_verify_forgives_missing_heads_only_while_their_partition_is_on_its_way_out(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    finished(database, {})
    admin.execute("delete from kairos.run")
    insert = "insert into kairos.removal (part, low, high, older_than) values (%s, %s, null, now()) returning id"
    row = admin.execute(insert, [PART, uuid.UUID(int=0)]).fetchone()
    assert row is not None
    assert verified(database.dsn).is_clean
    for change in ("set part = null", "set part = 'x', ended_at = now()", "set ended_at = null, high = low"):
        admin.execute(f"update kairos.removal {change}")
        assert [p.code for p in verified(database.dsn).problems] == ["orphan"]


# Payloads


def blobs(conn: psycopg.Connection[Any]) -> set[bytes]:
    return {bytes(row[0])[:2] for row in conn.execute("select data from kairos.blob")}


def age(conn: psycopg.Connection[Any], days: int) -> None:
    """As if all payloads had been written days ago."""
    conn.execute(f"update kairos.blob set used_at = used_at - interval '{days} days'")
    conn.execute(
        f"update kairos.migration set applied_at = applied_at - interval '{days} days' where name like '%_retention'"
    )


def without_present(conn: psycopg.Connection[Any]) -> None:
    """As if nobody had made a partition for a while: what was created in it counts as old."""
    for part in list_partitions(conn):
        if part.range is not None and part.name != PART:
            conn.execute(f"drop table kairos.{part.name}")


def test_payloads_go_with_the_last_run_that_refers_to_them(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    long = {letter: letter * 3000 for letter in "abc"}
    a, _, _ = finished(database, *({"input": text} for text in long.values()))
    hold(database, a.id)
    age(admin, 10)
    without_present(admin)
    done = remove_old_runs(admin, NOTHING)
    assert (done.removed, done.blobs) == (2, 2)
    assert blobs(admin) == {b'"a'}
    assert verified(database.dsn).is_clean


def test_what_an_effect_was_asked_and_answered_counts_as_used(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    kept, _ = finished(database, {"workflow": asks, "input": "k" * 3000}, {"workflow": asks, "input": "g" * 3000})
    assert blobs(admin) == {b'"k', b'"K', b'"g', b'"G', b'{"'}
    hold(database, kept.id)
    age(admin, 10)
    without_present(admin)
    done = remove_old_runs(admin, NOTHING)
    assert (done.removed, done.blobs) == (1, 3)
    assert blobs(admin) == {b'"k', b'"K', b'{"'}
    assert verified(database.dsn).is_clean


def test_a_payload_that_was_used_lately_stays_whoever_else_is_gone(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    finished(database, {"input": "a" * 3000})
    age(admin, 200)
    (new,) = finished(database, {"input": "a" * 3000, "run_id": uuid7(int(time.time() * 1000), 1)})
    assert remove_old_runs(admin, NOTHING).blobs == 0
    assert run_ids(admin) == {new.id}
    assert verified(database.dsn).is_clean


def test_a_payload_that_nobody_ever_referred_to_goes(database: TestDatabase, admin: psycopg.Connection[Any]) -> None:
    admin.execute("insert into kairos.blob (sha256, data) values (sha256('x'), 'xx')")
    assert remove_old_runs(admin, NOTHING).blobs == 0  # somebody may be about to
    age(admin, 200)
    assert remove_old_runs(admin, NOTHING).blobs == 1


def test_what_was_there_before_uses_were_marked_counts_as_used_then(admin: psycopg.Connection[Any]) -> None:
    admin.execute(
        "insert into kairos.blob (sha256, data, used_at) values (sha256('x'), 'xx', now() - interval '1 year')"
    )
    assert remove_old_runs(admin, NOTHING).blobs == 0


def test_a_payload_that_somebody_is_about_to_refer_to_is_not_taken_away(
    database: TestDatabase, admin: psycopg.Connection[Any]
) -> None:
    admin.execute("insert into kairos.blob (sha256, data) values (sha256('x'), 'xx')")
    age(admin, 200)
    done: list[Outcome] = []

    def sweep() -> None:
        with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
            done.append(remove_old_runs(conn, NOTHING))

    with psycopg.connect(database.dsn) as writer:
        writer.execute(
            "insert into kairos.blob (sha256, data) values (sha256('x'), 'xx') "
            "on conflict (sha256) do update set used_at = clock_timestamp()"
        )
        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        asyncio.run(until(lambda: admin.execute(waits).fetchone()))
    sweeper.join()
    assert done[0].blobs == 0
    assert blobs(admin) == {b"xx"}


# Beside a worker


def test_runs_go_on_while_old_ones_are_removed(database: TestDatabase, admin: psycopg.Connection[Any]) -> None:
    """Runs with ids of the old partition are started and finished all the time; partitions come and go."""
    stop = threading.Event()
    passes: list[Outcome] = []
    failed: list[BaseException] = []

    def remove() -> None:
        try:
            with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
                while not stop.is_set():
                    passes.append(remove_old_runs(conn, timedelta(milliseconds=300)))
                    if PART not in names(conn):
                        # Its range may hold rows again: then it is left to the default partition.
                        partitions._make(conn, Range(id_at(OLD), id_at(OLD + 7 * DAY)), is_future=False, patience=10)
        except BaseException as exc:
            failed.append(exc)

    async def main() -> None:
        async with working(app, database.dsn, count=2), kairos.AsyncClient(database.dsn) as client:
            for n in range(60):
                runs = [await client.start(echo, str(n), run_id=old_id()) for _ in range(5)]
                runs += [await client.start(echo, "y" * 2000, run_id=old_id(), key=f"k{n}")]
                for run in runs:
                    try:
                        await run.wait(20)
                    except RunNotFound:
                        pass  # removed already

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        asyncio.run(main())
    finally:
        stop.set()
        remover.join()
    assert failed == []
    assert sum(done.removed for done in passes) > 0
    assert sum(done.dropped for done in passes) > 0
    report = verified(database.dsn)
    assert report.problems == []
    statuses = {row[0] for row in admin.execute("select distinct status from kairos.run")}
    assert statuses <= {"DONE"}
    remove_old_runs(admin, NOTHING)
    assert run_ids(admin) == set()
    assert admin.execute("select count(*) from kairos.event").fetchone() == (0,)
    assert admin.execute("select count(*) from kairos.run_key").fetchone() == (0,)
