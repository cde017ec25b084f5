"""What the tests of the command line share: a result to look at, workers beside a test, child processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import kairos
from kairos.engine.worker import Worker
from kairos.settings import WorkerOptions

ROOT = Path(__file__).resolve().parents[2]
FAST = WorkerOptions(lease=2.0, poll=0.05, drain_timeout=5.0, cancel_grace=1.0)


@dataclass(frozen=True)
class Result:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """Standard output by lines."""
        return self.out.splitlines()


Kairos = Callable[..., Result]


def eventually(condition: Callable[[], Any], timeout: float = 20.0) -> Any:
    """Wait until `condition` is true; returns its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout}s")
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def working(app: kairos.App, dsn: str, **options: Any) -> Iterator[Worker]:
    """A worker in a thread for the length of the block; it drains at the end."""
    worker = Worker(app, dsn, replace(FAST, **options))
    failures: list[BaseException] = []
    loop = asyncio.new_event_loop()

    def work() -> None:
        try:
            loop.run_until_complete(worker.run())
        except BaseException as exc:
            failures.append(exc)
        finally:
            loop.close()

    thread = threading.Thread(target=work, name="test-worker")
    thread.start()
    try:
        eventually(lambda: worker.ready.is_set() or failures)
        yield worker
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(worker.stop)
        thread.join(20)
        assert not failures, failures


class Process:
    """A `kairos` command in a process of its own, its output collected as it comes."""

    def __init__(
        self, arguments: tuple[str, ...], cwd: Path, env: Mapping[str, str], *, script: str | None = None
    ) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, *([script] if script else ["-m", "kairos.cli"]), *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=pair)
            for pair in ((self.popen.stdout, self.out), (self.popen.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, into: list[str]) -> None:
        with stream:
            for line in stream:
                into.append(line)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    @property
    def text(self) -> str:
        """What it has written so far, both streams."""
        return "".join(self.err) + "".join(self.out)

    def says(self, pattern: str, *, times: int = 1, timeout: float = 30.0) -> list[str]:
        """Wait until its output matches so often; returns the matches."""

        def found() -> list[str] | None:
            matches = re.findall(pattern, self.text)
            if len(matches) >= times:
                return matches
            if self.popen.poll() is not None and len(re.findall(pattern, self.text)) < times:
                raise AssertionError(f"it ended with {self.popen.returncode} before it said {pattern!r}:\n{self.text}")
            return None

        try:
            matches: list[str] = eventually(found, timeout)
            return matches
        except AssertionError as exc:
            raise AssertionError(f"{exc}: {pattern!r} in:\n{self.text}") from None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.popen.send_signal(number)

    def ends(self, timeout: float = 30.0) -> int:
        """Wait for its end; returns the exit code."""
        code = self.popen.wait(timeout)
        for reader in self._readers:
            reader.join(10)
        return code

    def destroy(self) -> None:
        """For the end of a test, however it went: ask, ask again, insist."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self.popen.poll() is None:
                self.popen.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.popen.wait(3)
        for reader in self._readers:
            reader.join(10)


def children_of(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found.append(int(entry.name))
    return sorted(found)


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
