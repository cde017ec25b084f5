"""Fixtures that every folder of tests shares: one embedded server for the session, a database per test."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

_COUNT = itertools.count(1)
_LONG = (
    "ui/test_files", "ui/test_values", "ui/test_forking", "ui/test_tracing", "ui/test_acting_browser",
    "ui/test_lists_browser", "ui/test_comparing", "ui/test_lists",
    "replay/test_replaying", "faults/test_random_kills", "replay/test_backtest", "faults/test_failpoints",
    "ui/test_browser", "cli/test_developing", "replay/stopping/test_replay_command", "cli/test_workers",
    "faults/test_contention", "replay/trace/test_tracing_a_replay", "faults/test_lost_replies",
    "faults/test_payloads", "domain/test_properties", "faults/test_server_restarts", "replay/test_hostile_code",
    "store/test_retention", "client/test_forking", "faults/test_frozen_workers", "faults/test_retention_kills",
    "faults/test_poison_steps", "bench/test_measuring", "faults/test_effects", "ui/test_live", "ui/test_pages",
)  # fmt: skip
"""Files that take long, longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: whoever tests side by side shall not wait for one of them at the end."""
    ranks = {f"tests/{name}.py": rank for rank, name in enumerate(_LONG)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(ranks)))


@dataclass(frozen=True)
class Server:
    """A Postgres for the tests: `admin` may create databases, `app` is what workers and clients use."""

    admin: str
    app: str


@dataclass(frozen=True)
class TestDatabase:
    """One fresh, migrated database."""

    __test__ = False
    dsn: str
    admin_dsn: str

    def fetch(self, query: str, *params: object) -> list[tuple[object, ...]]:
        """Rows of one query, as the admin."""
        with psycopg.connect(self.admin_dsn, autocommit=True) as conn:
            return conn.execute(query, params).fetchall()  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of KAIROS_TEST_DATABASE_URL (a superuser), or an embedded one of our own."""
    given = os.environ.get("KAIROS_TEST_DATABASE_URL")
    if given:
        yield Server(given, given)
        return
    from kairos import embedded

    folder = Path(tempfile.mkdtemp(prefix="kairos-tests-"))
    try:
        with embedded.open(folder / "data") as cluster:
            yield Server(cluster.admin_dsn, cluster.dsn)
        embedded.stop(folder / "data", force=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """A migrated database that tests are cloned from: 30 ms instead of a migration each."""
    from kairos.store.migrate import migrate

    name = "kairos_template"
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute("drop database if exists kairos_template with (force)")
        conn.execute("create database kairos_template")
    migrate(make_conninfo(server.admin, dbname=name), grant_to=None if server.admin == server.app else "kairos")
    return name


@pytest.fixture
def database(server: Server, template: str) -> Iterator[TestDatabase]:
    """A fresh, migrated database."""
    name = f"kairos_test_{os.getpid()}_{next(_COUNT)}"
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template)))
    yield TestDatabase(make_conninfo(server.app, dbname=name), make_conninfo(server.admin, dbname=name))
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
