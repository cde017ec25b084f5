"""Opens the database for one command, and closes it again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kairos import settings
from kairos.database import Database
from kairos.errors import DatabaseUnavailable
from kairos.store.connect import Session
from kairos.store.reader import Reader

if TYPE_CHECKING:
    from kairos.client import AsyncClient

PATIENCE = 5.0
"""Seconds for which a command sits out an outage: a person is waiting."""


def open_existing(url: str | None) -> Database:
    """The database of this place, for a command that only looks or that needs what is there.

    Raises:
        DatabaseUnavailable: there is none here, or it cannot be reached.
        MigrationError: its schema is not what this version needs.
    """
    if not (url or settings.read("database_url")):
        _require_data()
    return Database(url).require_schema()


@asynccontextmanager
async def reading(url: str | None) -> AsyncIterator[Reader]:
    """A reader of the database of this place."""
    database = open_existing(url)
    try:
        session = Session(database.dsn, "kairos cli", patience=PATIENCE)
        try:
            yield Reader(session)
        finally:
            await session.close()
    finally:
        database.close()


@asynccontextmanager
async def connected(url: str | None, *, may_create: bool = False) -> AsyncIterator[tuple[AsyncClient, Reader]]:
    """A client, and a reader beside it. `may_create`: an embedded database may be made if there is none."""
    from kairos.client import AsyncClient  # brings pydantic along: commands that only look do without

    database = Database(url).require_schema() if may_create else open_existing(url)
    try:
        session = Session(database.dsn, "kairos cli", patience=PATIENCE)
        try:
            async with AsyncClient(database.dsn, patience=PATIENCE) as client:
                yield client, Reader(session)
        finally:
            await session.close()
    finally:
        database.close()


def _require_data() -> None:
    """Looking at runs in a folder without data must not leave a whole server behind in it."""
    from kairos import embedded

    folder = Path(settings.read("data_dir")).resolve()
    if embedded.status(folder).version is None:
        raise DatabaseUnavailable(
            f"there is no Kairos database here: {folder} does not exist",
            hint="`kairos dev` or `kairos demo` makes one. If yours is elsewhere, go there, or set KAIROS_DATA_DIR "
            "or KAIROS_DATABASE_URL.",
        )
