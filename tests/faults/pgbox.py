"""A Postgres of one's own, for tests that stop it the hard way."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psycopg

from kairos import embedded
from kairos.store.migrate import migrate
from tests.faults.processes import until


class PgBox:
    """An embedded server in a folder of its own. Its supervisor starts it again whenever it dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cluster = embedded.open(folder)
        self.dsn, self.admin_dsn = self._cluster.dsn, self._cluster.admin_dsn
        migrate(self.admin_dsn, grant_to="kairos")

    def stop_immediately(self) -> int:
        """What `pg_ctl stop -m immediate` does: no checkpoint, no goodbyes; returns the pid of what was."""
        pid = embedded.status(self._folder).postmaster_pid
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        return pid

    def restart_immediately(self) -> None:
        """Stop it that way, and wait until its supervisor has it up again."""
        old = self.stop_immediately()
        until(lambda: self._is_up(old), "the server is back", 30)

    def _is_up(self, old: int) -> bool:
        if embedded.status(self._folder).postmaster_pid in (None, old):
            return False
        try:
            psycopg.connect(self.dsn, connect_timeout=2, autocommit=True).close()
        except psycopg.OperationalError:
            return False
        return True

    def close(self) -> None:
        """Stop it for good."""
        self._cluster.close()
        embedded.stop(self._folder, force=True)
