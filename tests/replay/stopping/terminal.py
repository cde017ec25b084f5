"""A terminal to type at: a program on a pty of its own, as its controlling terminal, so that Ctrl-C is a real one."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_ON_TERMINAL = "import fcntl,os,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """One program and what it has printed."""

    def __init__(self, *command: str, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._fd, theirs = pty.openpty()
        self.popen = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *command],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "200", **(env or {})},
        )  # fmt: skip
        os.close(theirs)
        self.text = ""
        self._seen = 0

    def says(self, pattern: str, timeout: float = 20.0) -> re.Match[str]:
        """Wait until what it prints, after what was waited for before, matches."""
        deadline = time.monotonic() + timeout
        while not (match := re.compile(pattern).search(self.text, self._seen)):
            if not self._read(max(0.0, deadline - time.monotonic())):
                raise AssertionError(
                    f"it never said {pattern!r} after:\n{self.text[: self._seen]}\n--\n{self.text[self._seen :]}"
                )
        self._seen = match.end()
        return match

    def types(self, text: str, *, end: str = "\n") -> None:
        """Type a line, or with `end=""` a key."""
        os.write(self._fd, (text + end).encode())

    def presses_ctrl_c(self, pattern: str) -> re.Match[str]:
        """At the prompt: Ctrl-C, and wait for what comes of it."""
        self.types("\x03", end="")
        try:
            return self.says(pattern, timeout=3.0)
        except AssertionError:
            # One that comes in the moment before Python waits for a key is noticed with the next signal.
            self.types("\x03", end="")
            return self.says(pattern)

    def asks(self, command: str, pattern: str) -> re.Match[str]:
        """At the prompt: type a command, and wait for its answer."""
        self.says(r"\(kairos\) ")
        self.types(command)
        self.says(r"\n")  # the echo
        return self.says(pattern)

    def ends(self, timeout: float = 20.0) -> int:
        """Wait for its end; returns the exit code."""
        deadline = time.monotonic() + timeout
        # Not until everybody has closed the terminal: debugpy's adapter stays until its client leaves.
        while self.popen.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        while self._read(0.0):
            pass
        return self.popen.wait(1)

    def close(self) -> None:
        """For the end of a test, however it went."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(10)
        os.close(self._fd)

    def _read(self, timeout: float) -> bool:
        if not select.select([self._fd], [], [], timeout)[0]:
            return False
        data = b""
        with contextlib.suppress(OSError):  # EIO: nobody has the other side open any more
            data = os.read(self._fd, 65536)
        self.text += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)
