"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kairos
from tests.conftest import TestDatabase
from tests.faults.ledger import VARIABLE
from tests.faults.processes import Crew


@pytest.fixture
def crew(database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """Worker processes on a fresh database, with one ledger; their logs are shown when the test fails."""
    with_ledger = Crew(database.dsn, tmp_path)
    monkeypatch.setenv(VARIABLE, str(with_ledger.ledger.path))
    try:
        yield with_ledger
    finally:
        with_ledger.close()
        print(with_ledger.logs())


@pytest.fixture
def client(database: TestDatabase) -> Iterator[kairos.Client]:
    """A client of the test's database."""
    with kairos.Client(database.dsn) as opened:
        yield opened
