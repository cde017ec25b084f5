"""`kairos why`, `doctor`, `verify` and `workflows` on a real database."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from kairos.cli import exits
from tests.cli.cli_support import Kairos, eventually, working
from tests.cli.conftest import Told
from tests.conftest import TestDatabase

AT = ("--app", "flows.py:app")


def kinds(kairos: Kairos) -> dict[str, str]:
    """code -> severity of the findings of `doctor`."""
    return {f["code"]: f["severity"] for f in kairos("doctor", "--json").json["findings"]}


# -- why ------------------------------------------------------------------------------------------------------


def test_why_names_the_missing_worker_then_the_missing_queue(
    on_database: Kairos, database: TestDatabase, flows: ModuleType
) -> None:
    on_database("run", "mail", *AT, "-i", '{"to": "x"}')
    assert on_database("why", "last").lines == [
        "It waits for a worker: none is running.",
        "hint: Start one with `kairos worker` or `kairos dev`.",
    ]
    with working(flows.app, database.dsn):
        answer = on_database("why", "last", "--json").json
        assert (answer["kind"], answer["status"]) == ("no_queue", "SCHEDULED")
        assert "'mail' (they serve default)" in answer["sentence"]


def test_why_names_the_version_that_live_workers_have(
    on_database: Kairos, database: TestDatabase, flows: ModuleType, place: Path
) -> None:
    text = (place / "flows.py").read_text().replace("return value", "return dict(value)")
    (place / "newer.py").write_text(text)
    on_database("run", "echo", "--app", "newer.py:app", "-i", '{"value": {}}')
    with working(flows.app, database.dsn):
        answer = on_database("why", "last", "--json").json
        assert answer["kind"] == "no_version"
        assert flows.app.get("echo").fingerprint[:8] in answer["sentence"]


def test_why_of_a_running_run_names_step_and_worker(
    on_database: Kairos, database: TestDatabase, flows: ModuleType, place: Path
) -> None:
    gate = json.dumps({"begun": str(place / "begun"), "open": str(place / "open")})
    with working(flows.app, database.dsn) as worker:
        on_database("run", "gate", *AT, "-i", gate)
        eventually((place / "begun").exists)
        page = eventually(lambda: (p := on_database("why", "last").out).startswith("It is running") and p)
        assert f"wait_for_file on worker {worker.office.identity.name}" in page
        assert "· PENDING   after waits for wait_for_file." in page
        (place / "open").touch()
        on_database("watch", "last")
    assert "It waits for nothing: it was done" in on_database("why", "last").out


def test_why_of_an_unknown_run_is_an_error(on_database: Kairos) -> None:
    assert on_database("why", "last").code == exits.NO_SUCH_RUN


# -- doctor ---------------------------------------------------------------------------------------------------


def test_doctor_is_content_with_a_fresh_database(on_database: Kairos) -> None:
    done = on_database("doctor")
    assert done.code == 0, done.out
    assert "✓ sessions are kept; NOTIFY arrives" in done.out
    assert "all is well" in done.out or "0 errors" in done.out


def test_doctor_reports_what_nobody_serves(on_database: Kairos) -> None:
    on_database("run", "mail", *AT, "-i", '{"to": "x"}')
    done = on_database("doctor")
    assert done.code == exits.ERROR
    assert "✗ error: 1 task waits for a worker: none is running (queues: mail)" in done.out
    assert kinds(on_database)["unserved_no_worker"] == "error"


def test_doctor_reports_a_run_without_a_task(on_database: Kairos, database: TestDatabase) -> None:
    on_database("run", "mail", *AT, "-i", '{"to": "x"}')
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        conn.execute("delete from kairos.task")
    assert kinds(on_database)["without_task"] == "error"


def test_doctor_reports_a_worker_that_died(on_database: Kairos, database: TestDatabase, flows: ModuleType) -> None:
    with working(flows.app, database.dsn), psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        conn.execute("insert into kairos.worker (id, name, host, pid, app, version, queues, fingerprints, concurrency,"
                     " lease_until, state, report) values (gen_random_uuid(), 'w-old', 'h', 1, 'shop', '0.0.1',"
                     " '{default}', '{}', 10, clock_timestamp(), 'dead', '{\"signal\": \"SIGSEGV\"}')")  # fmt: skip
        page = on_database("doctor").out
    assert "warning: worker w-old died (SIGSEGV)" in page
    assert "1 worker is alive" in page or "worker_dead" in str(kinds(on_database))


def test_doctor_reports_a_transaction_that_is_open_for_long(on_database: Kairos, database: TestDatabase) -> None:
    # Sixty seconds are too long for a test: the query's own limit is what is shortened.
    from kairos.store import queries

    text = queries.query("long_transactions").replace("60 seconds", "0 seconds")
    with psycopg.connect(database.dsn) as conn, pytest.MonkeyPatch.context() as patch:
        conn.execute("select 1")
        patch.setitem(queries.load_all(), "long_transactions", text)
        queries.query.cache_clear()
        try:
            assert kinds(on_database)["long_transaction"] == "warning"
        finally:
            queries.query.cache_clear()


def test_doctor_says_that_a_database_cannot_be_reached(on_database: Kairos) -> None:
    done = on_database("doctor", "--json", env={"KAIROS_DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/x"})
    assert done.code == exits.ERROR
    assert done.json["findings"][0]["code"] == "unreachable"
    assert "secret" not in done.out


def test_doctor_says_that_the_schema_is_missing(on_database: Kairos, database: TestDatabase) -> None:
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        conn.execute("drop schema kairos cascade")
    done = on_database("doctor")
    assert done.code == exits.ERROR
    assert "the database has no Kairos schema" in done.out
    assert "Run `kairos migrate`." in done.out


# -- verify ---------------------------------------------------------------------------------------------------


@pytest.fixture
def order(shop_told: Told) -> str:
    return shop_told.runs["order"]


def tamper(database: TestDatabase, statement: str) -> None:
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        conn.execute("alter table kairos.event disable trigger event_is_append_only")
        conn.execute(statement)


@pytest.mark.parametrize("arguments", [["last"], ["--all"], []])
def test_a_whole_history_is_proved(in_shop: Kairos, order: str, arguments: list[str]) -> None:
    done = in_shop("verify", *arguments)
    assert done.code == 0
    assert done.out.startswith("✓ whole  ")
    assert in_shop("verify", *arguments, "--json").json["ok"] is True


def test_a_changed_event_is_named(in_shop: Kairos, told_database: TestDatabase, order: str) -> None:
    tamper(told_database, f"update kairos.event set step = 'confirm' where run_id = '{order}' and seq = 5")
    done = in_shop("verify", order)
    assert done.code == exits.ERROR
    assert f"chain  run {order} at event 5" in done.out
    assert "✗ not whole  1 problem in 1 run" in done.out
    problem = in_shop("verify", order, "--json").json["problems"][0]
    assert (problem["code"], problem["seq"], problem["run_id"]) == ("chain", 5, order)


def test_one_bad_run_does_not_hide_the_good_ones(in_shop: Kairos, told_database: TestDatabase, order: str) -> None:
    tamper(told_database, f"delete from kairos.event where run_id = '{order}' and seq = 3")
    report: Any = in_shop("verify", "--json").json
    assert (report["runs"], len(report["problems"])) == (3, 1)
    assert report["problems"][0]["code"] == "gap"
    assert in_shop("verify", "last").code == 0


# -- workflows ------------------------------------------------------------------------------------------------


def test_workflows_lists_versions_and_workers(on_database: Kairos, database: TestDatabase, flows: ModuleType) -> None:
    assert "No workflow is registered yet" in on_database("workflows").out
    with working(flows.app, database.dsn) as worker:
        on_database("run", "mail", *AT, "-i", '{"to": "x"}')
        page = on_database("workflows")
        rows = {line.split()[0]: line.split() for line in page.lines if line}
        version = flows.app.get("mail").fingerprint[:8]
        assert rows["mail"][1] == version
        assert rows["mail"][-3:] == ["1", "1", "1"]
        assert rows["fulfil"][-3:] == ["1", "0", "0"]
        assert rows[worker.office.identity.name][-1] == "default"
        data = on_database("workflows", "--json").json
        assert {w["workflow"] for w in data["workflows"]} == {"echo", "fail", "fulfil", "gate", "mail", "shout"}
        assert data["workers"][0]["live"] is True
    assert "No worker is running." in on_database("workflows").out
