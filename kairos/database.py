"""Which Postgres to use: the one of KAIROS_DATABASE_URL, else the embedded one, started and migrated."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from kairos import settings
from kairos.domain.keywords import checks_keywords
from kairos.errors import ConfigError

EMBEDDED_ROLE = "kairos"
AGAIN_AFTER = 3600.0
"""Seconds after which the embedded server is prepared once more at the next opening."""


@checks_keywords
class Database:
    """An open choice of database. Keeps the embedded server alive until `close`.

    Attributes:
        dsn: for workers and clients.
        admin_dsn: for migrations; the same as `dsn` when the database is not embedded.
        is_embedded: whether Kairos runs the server itself.
    """

    def __init__(self, url: str | None = None, *, data_dir: str | Path | None = None) -> None:
        given = url or settings.read("database_url")
        self._cluster = None
        if given:
            self.dsn = self.admin_dsn = given
            self.is_embedded = False
            return
        from kairos import embedded

        folder = Path(data_dir or settings.read("data_dir")).resolve()
        self._cluster = embedded.open(folder)
        self.is_embedded = True
        self.dsn, self.admin_dsn = self._cluster.dsn, self._cluster.admin_dsn
        try:
            _bring_up_to_date(self.dsn, self.admin_dsn, folder / "prepared")
        except BaseException:
            self._cluster.close()
            raise

    @property
    def hold_fd(self) -> int | None:
        """What a child process must inherit to keep the embedded server up by itself; None if not embedded."""
        return None if self._cluster is None else self._cluster.hold_fd

    def require_schema(self) -> Database:
        """Raise `MigrationError` unless the schema is what this version needs; returns self."""
        if not self.is_embedded:
            from kairos.store.connect import open_sync
            from kairos.store.migrate import check_schema

            with open_sync(self.dsn, "kairos") as conn:
                if conn.info.server_version < 140000:
                    raise ConfigError(
                        f"the server is PostgreSQL {conn.info.server_version // 10000}; Kairos needs 14 or later"
                    )
                check_schema(conn)
        return self

    def close(self) -> None:
        """Let go of the embedded server (it stops some seconds after its last user has gone)."""
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    def __enter__(self) -> Database:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _bring_up_to_date(dsn: str, admin_dsn: str, done: Path) -> None:
    """Migrate the embedded server, grant what workers need, make partitions ahead; unless it was done an hour ago.

    `done`: a file that remembers what was done and when; whoever is interrupted leaves none.
    """
    from kairos.store.migrate import allow_own_tables, grants_checksum, is_current, migrate

    retention = settings.read("retention")
    what = f"{grants_checksum()} {retention}"
    if _is_recent(done) and done.read_text() == what and is_current(dsn):
        return
    done.unlink(missing_ok=True)
    migrate(admin_dsn, grant_to=EMBEDDED_ROLE, retention=retention)
    allow_own_tables(admin_dsn, EMBEDDED_ROLE)
    done.write_text(what)


def _is_recent(file: Path) -> bool:
    # Partitions are needed in time, so it is done again now and then; a clock that was set back is no reason not to.
    return file.is_file() and abs(time.time() - file.stat().st_mtime) < AGAIN_AFTER
