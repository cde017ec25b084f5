"""Finds out whether a session of ours is really one: poolers in transaction mode break what workers rely on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection

from kairos.store.connect import open_async
from kairos.store.queries import query

MARK: Final = "4321ms"
"""A lock_timeout that nobody else would set."""
HEARING_TIME: Final = 2.0
"""Seconds within which a NOTIFY should arrive."""


@dataclass(frozen=True, slots=True)
class SessionProbe:
    """Whether a session kept its backend and its settings, and heard a NOTIFY."""

    keeps_backend: bool
    keeps_settings: bool
    hears_notify: bool


async def probe_session(dsn: str) -> SessionProbe:
    """Use two sessions in turn, and see whether the first is still itself afterwards."""
    first = await open_async(dsn, "kairos doctor")
    try:
        before = await _value(first, "backend_pid")
        await first.execute(query("probe_session"), {"value": MARK})
        second = await open_async(dsn, "kairos doctor")
        try:
            # While the second holds a transaction, a pooler must give the first another backend.
            async with second.transaction():
                await _value(second, "backend_pid")
                after = await _value(first, "backend_pid")
                setting = await _value(first, "session_setting")
            hears = await _hears(first, second)
        finally:
            await second.close()
        return SessionProbe(before == after, setting == MARK, hears)
    finally:
        await first.close()


async def _hears(first: AsyncConnection[Any], second: AsyncConnection[Any]) -> bool:
    await first.execute(query("listen_for_probe"))
    await second.execute(query("notify"), {"channel": "kairos_doctor", "payload": ""})
    async for _ in first.notifies(timeout=HEARING_TIME, stop_after=1):
        return True
    return False


async def _value(conn: AsyncConnection[Any], name: str) -> Any:
    # Prepared statements would fail in a pool for a reason of their own.
    row = await (await conn.execute(query(name), prepare=False)).fetchone()
    return None if row is None else row[0]
