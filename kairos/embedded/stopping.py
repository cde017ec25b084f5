"""To stop an embedded server on request.

Owns: the check that nobody else uses it, and the wait until it has ended.
Refuses: to stop what others use, unless forced; and to signal a pid that is not a living supervisor.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Final

from kairos.embedded import locks, postmaster, process, state
from kairos.embedded.paths import Layout
from kairos.errors import EmbeddedPostgresError

_PATIENCE: Final = 80.0


def stop(layout: Layout, *, force: bool) -> bool:
    """Stop the server of `layout`; False when there was nothing to stop."""
    before = state.read(layout)
    if before.supervisor_pid is None and not before.running:
        return False
    # Held until the server has ended: whoever comes now waits instead of meeting a closing door.
    users = locks.acquire(layout.users_lock, locks.EXCLUSIVE, time.monotonic() + 0.3)
    try:
        if users is None and not force:
            raise EmbeddedPostgresError(
                f"the embedded server in {layout.data_dir} is in use",
                hint="Close the processes that use it first, or force the stop.",
                data_dir=layout.data_dir,
                users=before.users,
            )
        return _stop_alone(layout) or _terminate(layout)
    finally:
        if users is not None:
            os.close(users)


def _stop_alone(layout: Layout) -> bool:
    """Stop a server whose supervisor is dead, in that one's place."""
    lock = locks.try_acquire(layout.supervisor_lock, locks.EXCLUSIVE)
    if lock is None:
        return False
    try:
        server = postmaster.find(layout)
        return server is not None and postmaster.shut_down(server, layout)
    finally:
        os.close(lock)


def _terminate(layout: Layout) -> bool:
    pid = state.supervisor_pid(layout)
    if pid is None:
        return False
    command = process.command_line(pid)
    if "supervisor" not in command or str(layout.data_dir) not in command:
        raise EmbeddedPostgresError(
            f"the process {pid} is not a supervisor that this process can see",
            hint="It may run in another container; stop it there.",
            data_dir=layout.data_dir,
        )
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    while locks.is_held(layout.supervisor_lock):
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"the embedded server in {layout.data_dir} did not stop within {_PATIENCE:g} s",
                hint=f"Read {layout.log} and {layout.supervisor_log}.",
                data_dir=layout.data_dir,
            )
        time.sleep(0.03)
    return True
