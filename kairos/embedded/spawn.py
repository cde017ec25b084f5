"""The start of a supervisor which outlives its starter.

Owns: the command line and the detachment: own session, cwd /, no descriptors of ours, output to a log.
Refuses: to retry without end. A supervisor that dies silently, three times over, is an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final

from kairos.embedded import files, locks, logfile, report, supervisor_main
from kairos.embedded.paths import Layout
from kairos.errors import EmbeddedPostgresError

_ATTEMPTS: Final = 3


def supervisor(layout: Layout, deadline: float) -> None:
    """Start a supervisor unless there is one, and wait for its word, or for the deadline."""
    for _ in range(_ATTEMPTS):
        if locks.is_held(layout.supervisor_lock):
            return
        if _attempt(layout, deadline) is not None or time.monotonic() >= deadline:
            return
    raise EmbeddedPostgresError(
        f"the supervisor of {layout.data_dir} ended without a word, {_ATTEMPTS} times",
        hint=f"Read {layout.supervisor_log}.",
        data_dir=layout.data_dir,
        supervisor_log=files.tail(layout.supervisor_log),
    )


def _attempt(layout: Layout, deadline: float) -> str | None:
    read, write = os.pipe()
    try:
        try:
            starter = _popen(layout, write)
        finally:
            # Or the pipe would never end for us when the supervisor dies.
            os.close(write)
        try:
            return report.listen(read, deadline)
        finally:
            # It forks and leaves at once, so that the supervisor is never a zombie of ours.
            starter.wait()
    finally:
        os.close(read)


def _popen(layout: Layout, write: int) -> subprocess.Popen[bytes]:
    logfile.shorten(layout.supervisor_log)
    # The wheel must be found in there too, however this process has come by its path.
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    log = os.open(layout.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", supervisor_main.__file__, str(layout.data_dir), str(write)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "PYTHONPATH": path},
            pass_fds=(write,),
            start_new_session=True,
        )
    finally:
        os.close(log)
