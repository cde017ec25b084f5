"""Processes that cannot outlive the measurement that started them.

Each gets a session of its own, so that whatever it starts in turn can be found by the session's id; and on Linux
the kernel ends it when its parent dies. Ends nothing that was not started here. Imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: little is safe between fork and exec


@contextmanager
def running(
    *commands: Sequence[object],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int | IO[str] = subprocess.PIPE,
    patience: float = 5.0,
) -> Iterator[list[subprocess.Popen[str]]]:
    """Run the commands for the length of the block; afterwards nothing is left of them or of their children.

    `patience`: seconds to end in by themselves, for each. Who starts processes in turn needs more than they do.
    """
    started: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            started.append(
                subprocess.Popen(
                    [str(part) for part in command],
                    env={**os.environ, **(env or {})},
                    cwd=cwd,
                    stdout=stdout,
                    stderr=None if stdout == subprocess.PIPE else subprocess.STDOUT,
                    text=True,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            )
        yield started
    finally:
        _end(started, patience)


def _end(processes: Sequence[subprocess.Popen[str]], patience: float) -> None:
    """Ask the processes to stop, wait, and kill what is left in their sessions."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    for pid in _members({process.pid for process in processes}):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def wait_ready(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until each has written a line. Raises RuntimeError if one ends instead."""
    for process in processes:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"{process.args!r} ended before it was ready, exit code {process.wait()}")


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 180.0, pause: float = 0.02) -> None:
    """Call `condition` until it is true. Raises TimeoutError, naming `what`."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(pause)


def terminate_on_sigterm() -> None:
    """Let SIGTERM unwind the stack like Ctrl-C, so that every block above ends what it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def die_with_parent() -> None:
    """On Linux: have the kernel end this process when its parent dies, however that comes about."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _members(sessions: set[int]) -> list[int]:
    """Live processes of these sessions. A session's id is the pid of its first process, which we started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
        except (OSError, IndexError, ValueError):
            continue
        if session in sessions:
            found.append(int(folder.name))
    return found
