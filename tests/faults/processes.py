"""Worker processes as tests handle them: start, kill -9, freeze, thaw, SIGTERM, read their logs."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.ledger import VARIABLE, Ledger

ROOT = Path(__file__).resolve().parents[2]


def until(condition: Callable[[], Any], what: str, timeout: float = 20.0, *, every: float = 0.01) -> Any:
    """The first true value of the condition; fails with `what` when there is none in time."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(every)
    return value


class Proc:
    """A Python process that says `ready` on its standard output."""

    def __init__(self, argv: list[str], log: Path, env: dict[str, str]) -> None:
        self.log = log
        clean = {k: v for k, v in os.environ.items() if not k.startswith("KAIROS_")}
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env={**clean, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", **env},
            )
        self.is_ready = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.process.poll()

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait for the word `ready`; returns as well when the process has ended before."""
        if self.is_ready:
            return
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(timeout), f"not ready within {timeout:g} s:\n{self.text()}"
        self.is_ready = self.process.stdout.readline().strip() == b"ready"

    def family(self) -> list[int]:
        """Its process id and those of its children."""
        try:
            threads = list(Path(f"/proc/{self.pid}/task").iterdir())
            return [self.pid, *(int(child) for t in threads for child in (t / "children").read_text().split())]
        except FileNotFoundError:
            return [self.pid]

    def text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and collect it."""
        self.send(signal.SIGKILL)
        self.end()

    def freeze(self) -> None:
        """SIGSTOP; returns when it stands still."""
        self.send(signal.SIGSTOP)
        until(lambda: self.is_frozen, f"{self.pid} is stopped")

    @property
    def is_frozen(self) -> bool:
        """Whether the kernel says that it is stopped."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except FileNotFoundError:
            return False

    def thaw(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM: it should drain and leave."""
        self.send(signal.SIGTERM)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(timeout)

    def end(self) -> None:
        """Collect it, whatever it does."""
        if self.code is None:
            self.process.kill()
        self.process.wait(timeout=30)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Crew:
    """Starts workers on one database, and ends those that are left at the end of a test."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.folder = dsn, folder
        self.ledger = Ledger(folder / "ledger")
        self.procs: list[Proc] = []

    def start(self, *, dsn: str | None = None, wait: bool = True, **settings: object) -> Proc:
        """Start a worker; settings are those of KAIROS_* in lower case."""
        given = {"lease": "2s", "poll": "100ms", "concurrency": 8, "cancel_grace": "1s", **settings}
        env = {f"KAIROS_{name.upper()}": str(value) for name, value in given.items()}
        env |= {"KAIROS_DATABASE_URL": dsn or self.dsn, VARIABLE: str(self.ledger.path)}
        proc = Proc(["-m", "tests.faults.worker"], self._log(), env)
        self.procs.append(proc)
        if wait:
            proc.wait_ready()
        return proc

    def run(self, code: str, *args: str, **settings: object) -> Proc:
        """Start a process that executes `code`."""
        env = {f"KAIROS_{name.upper()}": str(value) for name, value in settings.items()}
        env |= {"KAIROS_DATABASE_URL": self.dsn, VARIABLE: str(self.ledger.path)}
        proc = Proc(["-c", code, *args], self._log(), env)
        self.procs.append(proc)
        return proc

    def _log(self) -> Path:
        return self.folder / f"process{len(self.procs)}.log"

    def logs(self) -> str:
        """What all of them logged: for messages of failed tests."""
        return "\n".join(f"--- {p.log.name} (pid {p.pid}, code {p.code})\n{p.text()[-6000:]}" for p in self.procs)

    def close(self) -> None:
        """End all that still run."""
        for proc in self.procs:
            proc.end()
