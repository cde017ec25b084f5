"""Sessions to the database, shared by all pages: a few connections, however many browsers look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import psycopg

from kairos.errors import DatabaseUnavailable, KairosError, Refused
from kairos.store.connect import BY_KEY, Session
from kairos.store.history import Definitions
from kairos.store.reader import Reader
from kairos.store.trouble import translate

SESSIONS: Final = 4
PATIENCE: Final = 2.0
"""Seconds for which a page waits for a database that is away."""
TURN: Final = 10.0
"""Seconds for which a page waits for a session."""
STATEMENT_TIMEOUT: Final = "15s"
ASIDE: Final = 2
"""Sessions for what counts or searches: pages that show one run never wait for them."""
ASIDE_SECONDS: Final = 3
"""How long one such statement may take."""


class NoDatabase(Refused):
    """This debugger was started with files alone."""

    def __init__(self) -> None:
        super().__init__(
            "this debugger was started with files alone: it has no database",
            hint="Give --database-url, or a RUN, beside the files; or start `kairos ui` without them.",
        )


class Reads:
    """A handful of readers that take turns, with one cache of definitions. They cannot write."""

    has_database = True

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.definitions = Definitions()
        self._free: asyncio.LifoQueue[Reader] = asyncio.LifoQueue()
        self._aside: asyncio.LifoQueue[Reader] = asyncio.LifoQueue()
        self._all: list[Reader] = []

    def open(self) -> None:
        """Make the readers. They connect when they are first used."""
        for _ in range(SESSIONS):
            self._free.put_nowait(self._made(STATEMENT_TIMEOUT))
        for _ in range(ASIDE):
            self._aside.put_nowait(self._made(f"{ASIDE_SECONDS}s", **BY_KEY))

    def _made(self, statement_timeout: str, **settings: str) -> Reader:
        session = Session(
            self.dsn,
            "kairos ui",
            patience=PATIENCE,
            statement_timeout=statement_timeout,
            default_transaction_read_only="on",
            **settings,
        )
        reader = Reader(session)
        reader.definitions = self.definitions
        self._all.append(reader)
        return reader

    async def close(self) -> None:
        """Close the connections."""
        for reader in self._all:
            await reader.session.close()

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[Reader]:
        """A reader for one short piece of work.

        Raises:
            DatabaseUnavailable: none came free in time, or the database refused.
        """
        async with self._turn(self._free) as reader:
            yield reader

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[Reader]:
        """A reader for what counts, searches or filters: of few, and each of its statements has a time limit.

        Raises:
            DatabaseUnavailable: as `reader`; with `sqlstate` 57014 if a statement took too long.
        """
        async with self._turn(self._aside) as reader:
            yield reader

    @staticmethod
    @asynccontextmanager
    async def _turn(free: asyncio.LifoQueue[Reader]) -> AsyncIterator[Reader]:
        try:
            async with asyncio.timeout(TURN):
                reader = await free.get()
        except TimeoutError:
            raise DatabaseUnavailable("all connections of the debugger are busy", hint="Load the page again.") from None
        try:
            yield reader
        except psycopg.Error as exc:
            raise translate(exc) from exc
        finally:
            free.put_nowait(reader)


def is_too_slow(error: KairosError) -> bool:
    """Whether a statement was ended because of its time limit."""
    return error.facts.get("sqlstate") == "57014"


class NoReads(Reads):
    """For a debugger of files alone."""

    has_database = False

    def __init__(self) -> None:
        super().__init__("")

    def open(self) -> None:
        """Nothing."""

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[Reader]:
        """Raises NoDatabase."""
        for reader in self._all:  # none was made
            yield reader
        raise NoDatabase

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[Reader]:
        """Raises NoDatabase."""
        async with self.reader() as reader:
            yield reader
