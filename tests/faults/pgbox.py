"""A Postgres of one's own, for tests that stop it the hard way."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from kairos import embedded
from kairos.store.migrate import migrate
from tests.faults.processes import until


class PgBox:
    """An embedded server in a folder of its own, which stays down when it is stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cluster = embedded.open(folder)
        self.dsn, self.admin_dsn = self._cluster.dsn, self._cluster.admin_dsn
        migrate(self.admin_dsn, grant_to="kairos")

    def stop_immediately(self) -> None:
        """What `pg_ctl stop -m immediate` does: no checkpoint, no goodbyes."""
        status = embedded.status(self._folder)
        # The supervisor goes first: it would start the server again, later and later each time.
        for pid, number in ((status.supervisor_pid, signal.SIGKILL), (status.postmaster_pid, signal.SIGQUIT)):
            assert pid is not None
            os.kill(pid, number)
            until(lambda pid=pid: _is_gone(pid), f"{pid} has ended", 30)

    def start(self) -> None:
        """Start it again, under a new supervisor; returns when it answers."""
        old, self._cluster = self._cluster, embedded.open(self._folder)
        old.close()

    def restart_immediately(self) -> None:
        """Stop and start."""
        self.stop_immediately()
        self.start()

    def close(self) -> None:
        """Stop it for good."""
        self._cluster.close()
        embedded.stop(self._folder, force=True)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
