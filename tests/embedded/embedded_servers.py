"""What the tests of the embedded server share: users in processes of their own, waiting, killing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from kairos import embedded

ROOT = Path(__file__).resolve().parents[2]

# A user of the server in a process of its own: says what it got, and leaves at the end of its input.
USER = """
import json, os, sys
from pathlib import Path
from kairos import embedded
try:
    cluster = embedded.open(Path(sys.argv[1]), start_timeout=float(sys.argv[2]))
except Exception as error:
    print(json.dumps({"error": str(error)}), flush=True)
    raise
print(json.dumps({"created": cluster.created, "dsn": cluster.dsn, "pid": os.getpid()}), flush=True)
sys.stdin.read()
cluster.close()
"""


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 20.0) -> Any:
    """The first true value of the condition; fails with `what` when there is none in time."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)
    return value


class User:
    """A process that opens a data folder and holds it open."""

    def __init__(self, data_dir: Path, *, python: str = sys.executable, **options: Any) -> None:
        self.process = subprocess.Popen(
            [python, "-c", USER, str(data_dir), "30"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            **options,
        )

    def opened(self) -> dict[str, Any]:
        """What it says once it is connected."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the user process ended without a word"
        return json.loads(line)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.end()

    def end(self) -> None:
        """Let it leave in its own time, and collect it."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait(timeout=30)


def alive(pid: int) -> bool:
    """Whether the process exists (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def kill_all(data_dir: Path) -> embedded.Status:
    """kill -9 of supervisor and server, as a power cut would; what was there before."""
    before = embedded.status(data_dir)
    for pid in (before.supervisor_pid, before.postmaster_pid):
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not alive(pid), f"{pid} is dead")
    return before


def query(dsn: str, sql: str) -> Any:
    """The first column of the first row, on a connection of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None
