"""Brings the schema up to date: numbered files, upwards only, checksummed, under an advisory lock."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import psycopg
from psycopg import sql

from kairos.errors import MigrationError, RetentionError
from kairos.store.partitions import make_partitions
from kairos.store.queries import query

# Any number will do as long as every version of Kairos takes the same one ("kairos" in ASCII).
LOCK_KEY = 0x6B6169726F73
# An index may take its time, and "already exists, skipping" is no news.
SETTINGS = {"statement_timeout": "0", "client_min_messages": "warning"}


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `migrations/`."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """sha256 of the file's text, in hex."""
        return sha256(self.text.encode()).hexdigest()


def find_migrations() -> list[Migration]:
    """The files in order. A wheel has them inside the package, a checkout beside it: both are tried.

    Raises:
        MigrationError: neither place exists, or the numbering has a gap.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "migrations", package.parent / "migrations"):
        files = sorted(folder.glob("[0-9]*.sql"))
        if files:
            return _read(files)
    raise MigrationError("no migration files were found", hint="Reinstall Kairos: the package is incomplete.")


def _read(files: list[Path]) -> list[Migration]:
    found = [Migration(int(f.name.split("_", 1)[0]), f.stem, f.read_text("utf-8")) for f in files]
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"migration files are not numbered 1 to {len(found)}")
    return found


def migrate(dsn: str, *, grant_to: str | None = None, retention: timedelta | None = None) -> list[Migration]:
    """Apply what is missing and return it; safe to call from many processes at once.

    Partitions of the log are made ahead too.

    Args:
        dsn: a role that may create schemas and tables.
        grant_to: a role that workers and clients use; it gets what they need, and no right to change
            or delete events.
        retention: how long runs are kept: decides how much time a partition spans.

    Raises:
        MigrationError: an applied file was changed since, or the schema is newer than this Kairos.
    """
    files = find_migrations()
    with psycopg.connect(dsn, autocommit=True, application_name="kairos migrate") as conn:
        conn.execute(query("set_settings"), {"names": list(SETTINGS), "values": list(SETTINGS.values())})
        # Held for the session, not a transaction: each file commits on its own.
        conn.execute(query("lock_migrations"), {"key": LOCK_KEY})
        try:
            conn.execute(query("create_schema"))
            conn.execute(query("create_migration_table"))
            pending = _pending(conn, files)
            for migration in pending:
                with conn.transaction():
                    conn.execute(migration.text)
                    row = (migration.version, migration.name, migration.checksum)
                    conn.execute(
                        query("record_migration"),
                        dict(zip(("version", "name", "checksum"), row, strict=True)),
                    )
            if grant_to is not None:
                _grant(conn, grant_to)
            # Without them the log works as well: nobody needs to wait, or to fail, for their sake.
            with suppress(RetentionError):
                make_partitions(conn, retention, patience=5.0)
        finally:
            conn.execute(query("unlock_migrations"), {"key": LOCK_KEY})
    return pending


def is_current(dsn: str) -> bool:
    """Whether the schema is what this version needs, as far as the role of `dsn` can see."""
    with psycopg.connect(dsn, autocommit=True, application_name="kairos") as conn:
        try:
            check_schema(conn)
        except (MigrationError, psycopg.errors.InsufficientPrivilege):
            return False
    return True


def grants_checksum() -> str:
    """What a role is granted, in this version of Kairos, as one hash."""
    return sha256((query("grant_to_role") + query("grant_public")).encode()).hexdigest()


def allow_own_tables(dsn: str, role: str) -> None:
    """Let the role of workers keep the user's own tables in schema public, as transactional steps need them."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        if conn.execute(query("may_create_tables"), {"role": role}).fetchone() != (True,):
            for statement in query("grant_public").split(";"):
                conn.execute(sql.SQL(statement).format(role=sql.Identifier(role)))


def check_schema(conn: psycopg.Connection) -> None:
    """Raise `MigrationError` unless the schema is exactly what this version needs."""
    if conn.execute(query("has_migration_table")).fetchone() == (False,):
        raise MigrationError("the database has no Kairos schema", hint="Run `kairos migrate`.")
    pending = _pending(conn, find_migrations())
    if pending:
        names = ", ".join(m.name for m in pending)
        raise MigrationError(f"the schema is behind by {len(pending)}: {names}", hint="Run `kairos migrate`.")


def _pending(conn: psycopg.Connection, files: list[Migration]) -> list[Migration]:
    applied = {row[0]: (row[1], row[2]) for row in conn.execute(query("list_migrations"))}
    newest = max(applied, default=0)
    if newest > len(files):
        raise MigrationError(
            f"the schema is at version {newest}, this Kairos knows {len(files)}",
            hint="Upgrade Kairos on this machine; an older version must not write to a newer schema.",
        )
    for migration in files:
        if migration.version in applied and applied[migration.version][1] != migration.checksum:
            raise MigrationError(
                f"migration {migration.name} was changed after it had been applied",
                hint="Restore the file: migrations are never edited, only added.",
                version=migration.version,
            )
    return [m for m in files if m.version not in applied]


def _grant(conn: psycopg.Connection, role: str) -> None:
    for statement in query("grant_to_role").split(";"):
        if statement.strip():
            conn.execute(sql.SQL(statement).format(role=sql.Identifier(role)))
