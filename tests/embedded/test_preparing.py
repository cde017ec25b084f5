"""What an opening of the embedded database does beside starting the server: nothing, if it was done lately."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kairos.database import AGAIN_AFTER, Database
from kairos.store import migrate


@pytest.fixture
def migrations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each call of `migrate`."""
    calls: list[str] = []
    real = migrate.migrate

    def counted(dsn: str, **more: Any) -> Any:
        calls.append(dsn)
        return real(dsn, **more)

    monkeypatch.setattr(migrate, "migrate", counted)
    return calls


def runs(data: Path) -> int:
    """The number of runs, read as workers read it."""
    with Database(data_dir=data) as database, psycopg.connect(database.dsn) as conn:
        row = conn.execute("select count(*) from kairos.run").fetchone()
        assert row is not None
        return int(row[0])


def test_an_embedded_database_is_prepared_once_until_something_about_it_changes(
    folder: Path, migrations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder / "data"
    assert (runs(data), len(migrations)) == (0, 1)
    assert (runs(data), len(migrations)) == (0, 1)
    with Database(data_dir=data) as database, psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        conn.execute("drop schema kairos cascade")
    assert (runs(data), len(migrations)) == (0, 2), "the schema was dropped: it is made anew"
    long_ago = (data / "prepared").stat().st_mtime - AGAIN_AFTER - 1
    os.utime(data / "prepared", (long_ago, long_ago))
    assert (runs(data), len(migrations)) == (0, 3), "partitions are made ahead now and then"
    monkeypatch.setenv("KAIROS_RETENTION", "3d")
    assert (runs(data), len(migrations)) == (0, 4), "another retention, other partitions"
    assert (runs(data), len(migrations)) == (0, 4)


def test_a_preparation_that_was_interrupted_is_done_again(
    folder: Path, migrations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(dsn: str, role: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "allow_own_tables", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Database(data_dir=folder / "data")
    assert (runs(folder / "data"), len(migrations)) == (0, 2)
