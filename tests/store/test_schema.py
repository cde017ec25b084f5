"""The database agrees: every query prepares, history is append-only, rights are minimal, migrations are safe."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from kairos.domain.states import RunStatus
from kairos.errors import MigrationError
from kairos.store import migrate as migrating
from kairos.store.migrate import Migration, check_schema, find_migrations, migrate
from kairos.store.queries import load_all, parse
from tests.conftest import Server, TestDatabase

UTILITY = ("create ", "grant ", "listen ", "unlisten ", "alter ", "drop ", "lock ")
"""Statements of these kinds cannot be prepared; the tests that use them prove them."""


@pytest.fixture(scope="module")
def prepared(server: Server, template: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(make_conninfo(server.admin, dbname="postgres"), autocommit=True) as admin:
        admin.execute(f"create database kairos_prepare template {template}")
        with psycopg.connect(make_conninfo(server.app, dbname="kairos_prepare"), autocommit=True) as conn:
            yield conn
        admin.execute("drop database kairos_prepare with (force)")


@pytest.mark.parametrize("name", sorted(name for name, text in load_all().items() if not text.startswith(UTILITY)))
def test_every_query_is_accepted_by_the_server(prepared: psycopg.Connection, name: str) -> None:
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    text = re.sub(r"%\((\w+)\)[sb]", number, load_all()[name].replace("{name}", "event_default"))
    prepared.execute(f"prepare {name} as {text}".replace("%%", "%"))


@pytest.mark.parametrize(
    "change",
    [
        "update kairos.event set body = '\\x7b7d'",
        "delete from kairos.event",
        "truncate kairos.event",
    ],
)
def test_history_cannot_be_changed_even_by_its_owner(database: TestDatabase, change: str) -> None:
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        conn.execute(
            "insert into kairos.event (run_id, seq, kind, at, hash, body) "
            "values (gen_random_uuid(), 1, 'run_scheduled', now(), '', '{}')"
        )
        with pytest.raises(psycopg.DatabaseError, match="append-only") as caught:
            conn.execute(change)
        assert caught.value.sqlstate == "KA001"


@pytest.mark.parametrize("table", ["event", "blob", "definition", "failure", "run"])
def test_the_role_of_workers_has_no_right_to_delete_history(database: TestDatabase, server: Server, table: str) -> None:
    if server.admin == server.app:
        pytest.skip("this server has one role for everything")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        for verb in (f"delete from kairos.{table}", f"truncate kairos.{table}", f"drop table kairos.{table}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(verb)
        if table != "run":
            column = {"definition": "workflow", "blob": "data"}.get(table, "run_id")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"update kairos.{table} set {column} = null")


def test_the_status_check_of_the_table_lists_exactly_the_statuses_of_the_code(database: TestDatabase) -> None:
    rows = database.fetch(
        "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'kairos.run'::regclass and contype = 'c'"
    )
    found = set(re.findall(r"'([A-Z]+)'", str(rows[0][0])))
    assert found == {status.value for status in RunStatus}


@pytest.fixture
def empty(server: Server) -> str:
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute("drop database if exists kairos_empty with (force)")
        conn.execute("create database kairos_empty")
    return make_conninfo(server.admin, dbname="kairos_empty")


def test_migrating_twice_applies_nothing_the_second_time(empty: str) -> None:
    assert [m.version for m in migrate(empty)] == [m.version for m in find_migrations()]
    assert migrate(empty) == []
    with psycopg.connect(empty) as conn:
        check_schema(conn)


def test_many_processes_may_migrate_at_once(empty: str) -> None:
    applied: list[int] = []
    threads = [threading.Thread(target=lambda: applied.append(len(migrate(empty)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [0] * 5 + [len(find_migrations())]


def test_a_database_without_the_schema_says_what_to_do(empty: str) -> None:
    with psycopg.connect(empty) as conn, pytest.raises(MigrationError, match="kairos migrate"):
        check_schema(conn)


def test_a_migration_edited_after_it_was_applied_is_refused(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(empty)
    first, *rest = find_migrations()
    edited = [Migration(first.version, first.name, first.text + "\n-- changed"), *rest]
    monkeypatch.setattr(migrating, "find_migrations", lambda: edited)
    with pytest.raises(MigrationError, match="was changed after it had been applied"):
        migrate(empty)


def test_a_schema_newer_than_the_code_is_refused(empty: str) -> None:
    migrate(empty)
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute("insert into kairos.migration (version, name, checksum) values (999, '0999_future', 'x')")
    with pytest.raises(MigrationError, match="version 999"):
        migrate(empty)


def test_migrations_are_found_in_a_checkout_and_inside_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = find_migrations()
    package = tmp_path / "site-packages" / "kairos"
    (package / "store").mkdir(parents=True)
    (package / "migrations").mkdir()
    for m in checkout:
        (package / "migrations" / f"{m.name}.sql").write_text(m.text)
    monkeypatch.setattr(migrating, "__file__", str(package / "store" / "migrate.py"))
    assert find_migrations() == checkout


def test_a_malformed_query_file_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        parse("-- name: a\nselect 1\n-- name: a\nselect 2\n", "x.sql")
    with pytest.raises(ValueError, match="empty"):
        parse("-- name: a\n-- only a comment\n", "x.sql")
