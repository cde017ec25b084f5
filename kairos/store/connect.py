"""Connections: how they are opened, what every session is set to, and how one survives an outage.

A `Session` is one connection that is opened when needed and opened again, with full jitter, when it broke.
It never holds a transaction open while user code runs.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from kairos.errors import ConfigError, DatabaseUnavailable
from kairos.store.arrays import DUMPERS
from kairos.store.queries import query

T = TypeVar("T")

SETTINGS = {
    "idle_in_transaction_session_timeout": "15s",
    "lock_timeout": "5s",
    "statement_timeout": "60s",
    "timezone": "UTC",
}
"""Of every session: nobody may hold a lock for ever, frozen processes included."""

ANSWER_WITHIN = 65.0
"""Seconds after which a server that says nothing is taken for gone: a half-open socket raises no error. Longer
than a statement may take, by `statement_timeout`."""

BY_KEY = {"enable_seqscan": "off"}
"""For sessions whose statements all find their rows by key. In a new database the planner takes every table for
tiny, reads it whole, and keeps that plan while the table grows."""

PLAN_ONCE = {"plan_cache_mode": "force_generic_plan", **BY_KEY}
"""For sessions that send the same batch statement over and over: planning it anew costs more than running it,
and its plan (index scans for heads, hash joins for events) is the same for 1 run and for 500."""

# Classes and codes after which the same statement may be sent again: connection lost, server shutting down
# or starting, out of a resource, deadlock, serialisation, lock not available.
_RETRY_CLASSES = ("08", "53", "57P")
_RETRY_CODES = ("40001", "40P01", "55P03", "55006", "25006")


def check_dsn(dsn: str) -> str:
    """Return a complete conninfo with keepalives and a connect timeout.

    Raises:
        ConfigError: it cannot be parsed. The message never shows the password.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as exc:
        raise ConfigError(
            f"the database URL cannot be read: {_without_password(str(exc).strip())}",
            hint="Write postgresql://user:password@host:5432/database",
        ) from None
    defaults = {
        "connect_timeout": 10,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    }
    return make_conninfo("", **{**defaults, **given})


def impatient_dsn(dsn: str, seconds: int) -> str:
    """The same database, with this connect timeout."""
    return make_conninfo(dsn, connect_timeout=seconds)


def _without_password(text: str) -> str:
    return re.sub(r"//[^/]*@|password\s*=\s*\S+", "//***@", text)


def is_transient(error: BaseException) -> bool:
    """Whether the database, not the statement, is the trouble: sending it again may work."""
    if not isinstance(error, psycopg.Error):
        return isinstance(error, OSError)
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith(_RETRY_CLASSES) or state in _RETRY_CODES


def backoff(tries: int, *, base: float = 0.05, cap: float = 3.0, rng: Callable[[], float] = random.random) -> float:
    """Seconds to pause before try number `tries` (from 1): full jitter, so that a fleet does not march in step."""
    return rng() * min(cap, base * 2.0 ** min(tries, 16))


def prepare_adapters(conn: AsyncConnection[Any] | Connection[Any]) -> None:
    """Teach a connection the packed arrays of the flush."""
    for kind, dumper in DUMPERS:
        conn.adapters.register_dumper(kind, dumper)


async def open_async(dsn: str, name: str, **settings: str) -> AsyncConnection[Any]:
    """Open an autocommit connection with Kairos' session settings."""
    conn = await AsyncConnection.connect(check_dsn(dsn), autocommit=True, application_name=name)
    try:
        prepare_adapters(conn)
        await conn.execute(query("set_settings"), _settings(settings))
    except BaseException:
        await conn.close()  # a worker that stops cancels what is just being opened
        raise
    return conn


def open_sync(dsn: str, name: str, **settings: str) -> Connection[Any]:
    """Open an autocommit connection with Kairos' session settings, for threads and commands."""
    try:
        conn = Connection.connect(check_dsn(dsn), autocommit=True, application_name=name)
    except psycopg.OperationalError as exc:
        raise unavailable(exc) from exc
    try:
        prepare_adapters(conn)
        conn.execute(query("set_settings"), _settings(settings))
    except BaseException:
        conn.close()
        raise
    return conn


def _settings(more: dict[str, str]) -> dict[str, list[str]]:
    merged = {**SETTINGS, **more}
    return {"names": list(merged), "values": list(merged.values())}


def unavailable(exc: BaseException) -> DatabaseUnavailable:
    """Say that Postgres cannot be reached, and what to look at."""
    return DatabaseUnavailable(
        f"Postgres cannot be reached: {str(exc).strip()}",
        hint="Check KAIROS_DATABASE_URL and that the server runs; `kairos doctor` tells more.",
    )


class Session:
    """One connection for one purpose. Calls take turns; a broken connection is replaced.

    Args:
        patience: seconds for which an outage is sat out before `DatabaseUnavailable`; None means for ever.
        settings: session settings beside `SETTINGS`.
    """

    def __init__(self, dsn: str, name: str, *, patience: float | None = 30.0, **settings: str) -> None:
        self.dsn, self.name, self.patience, self.settings = dsn, name, patience, settings
        self._conn: AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()
        self._pid = os.getpid()
        self.on_trouble: Callable[[BaseException], None] | None = None

    async def connection(self) -> AsyncConnection[Any]:
        """The connection, opened if need be. Not to be kept across calls."""
        if os.getpid() != self._pid:
            # A forked child must not talk over its parent's socket: forget it, without closing.
            self._conn, self._pid, self._turn = None, os.getpid(), asyncio.Lock()
        if self._conn is None or self._conn.closed or self._conn.broken:
            self._conn = await open_async(self.dsn, self.name, **self.settings)
        return self._conn

    async def run(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Do `work` with the connection; again after an outage. `work` must be safe to repeat."""
        began, tries = time.monotonic(), 0
        while True:
            try:
                async with self._turn:
                    return await self.once(work)
            except Exception as exc:
                if not is_transient(exc):
                    raise
                tries += 1
                await self._sit_out(exc, tries, began)

    async def once(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Do `work` with the connection, one time. Silence of the server is an error, and costs the connection."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await work(await self.connection())
        except TimeoutError:
            await self.close()
            raise
        except (psycopg.errors.DuplicatePreparedStatement, psycopg.errors.InvalidSqlStatementName) as exc:
            raise DatabaseUnavailable(
                "this connection goes through a pool in transaction mode, which gives each transaction another session",
                hint="Give Kairos a direct connection, or a pool in session mode; `kairos doctor` tells more.",
            ) from exc

    async def execute(self, name: str, params: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one named query in its own transaction and return its rows."""
        text: LiteralString = query(name)

        async def work(conn: AsyncConnection[Any]) -> list[tuple[Any, ...]]:
            cursor = await conn.execute(text, params, prepare=True)
            return await cursor.fetchall() if cursor.description else []

        return await self.run(work)

    async def close(self) -> None:
        """Close the connection, if any."""
        if self._conn is not None and os.getpid() == self._pid:
            await self._conn.close()
        self._conn = None

    async def _sit_out(self, exc: Exception, tries: int, began: float) -> None:
        if self.on_trouble is not None:
            self.on_trouble(exc)
        if self.patience is not None and time.monotonic() - began > self.patience:
            raise unavailable(exc) from exc
        # A server that says no at once (wrong password, no such database) will not change its mind.
        if isinstance(exc, psycopg.OperationalError) and "authentication failed" in str(exc):
            raise unavailable(exc) from exc
        if self._conn is not None and (self._conn.closed or self._conn.broken):
            await self._conn.close()
            self._conn = None
        await asyncio.sleep(backoff(tries))
