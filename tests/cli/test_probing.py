"""The doctor tells a session from a pool in transaction mode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kairos.store import connect, probing
from kairos.store.probing import SessionProbe, probe_session
from tests.cli.cli_support import Kairos
from tests.conftest import TestDatabase


class Pooled:
    """A connection as a pool in transaction mode gives it: each transaction has another backend."""

    def __init__(self, backends: list[Any]) -> None:
        self._backends = backends
        self._held: Any = None

    async def execute(self, statement: str, params: Any = None, **more: Any) -> Any:
        if self._held is not None:
            return await self._held.execute(statement, params, **more)
        backend = self._backends.pop(0)
        try:
            return await backend.execute(statement, params, **more)
        finally:
            self._backends.insert(0, backend)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self._held = self._backends.pop(0)
        try:
            async with self._held.transaction():
                yield
        finally:
            self._backends.append(self._held)
            self._held = None

    async def notifies(self, **more: Any) -> AsyncIterator[None]:
        for _ in ():
            yield None

    async def close(self) -> None:
        """It goes back to the pool."""


def test_a_direct_session_keeps_everything(database: TestDatabase) -> None:
    assert asyncio.run(probe_session(database.dsn)) == SessionProbe(True, True, True)


def test_a_pool_in_transaction_mode_keeps_nothing(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> SessionProbe:
        backends = [await connect.open_async(database.dsn, "pool") for _ in range(2)]

        async def from_pool(dsn: str, name: str) -> Pooled:
            return Pooled(backends)

        monkeypatch.setattr(probing, "open_async", from_pool)
        try:
            return await probe_session(database.dsn)
        finally:
            for backend in backends:
                await backend.close()

    assert asyncio.run(main()) == SessionProbe(False, False, False)


def test_the_doctor_names_the_pool_even_when_nothing_else_can_be_read(
    on_database: Kairos, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pooled(dsn: str) -> SessionProbe:
        return SessionProbe(False, False, False)

    async def broken(*args: Any) -> None:
        raise RuntimeError('prepared statement "_pg3_0" does not exist')

    monkeypatch.setattr("kairos.cli.consulting.probe_session", pooled)
    monkeypatch.setattr("kairos.cli.consulting._read", broken)
    findings = on_database("doctor", "--json").json["findings"]
    assert [(f["code"], f["severity"]) for f in findings] == [("transaction_pooling", "error")]
