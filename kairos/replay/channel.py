"""The child's end of the two pipes. Out of reach of code that prints to, or closes, the first few descriptors."""

from __future__ import annotations

import fcntl
import os
import resource
import threading

from kairos.replay.messages import Answer, Request, line_of, read_request

_FAR = 700
"""Descriptors from here on are rarely touched by accident."""


class Channel:
    """Reads requests, writes answers. Writing is safe in any thread.

    Attributes:
        is_busy: a line is being written: an interrupt now would leave half of it.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._in = os.fdopen(_move_away(read_fd), "rb")
        self._out = _move_away(write_fd)
        self._lock = threading.Lock()
        self.is_busy = False

    def receive(self) -> Request | None:
        """The next request; None when the parent has nothing more to ask, or is gone."""
        line = self._in.readline()
        return read_request(line) if line.endswith(b"\n") else None

    def send(self, message: Answer) -> None:
        """Write one line. Raises OSError if the pipe is closed."""
        line = memoryview(line_of(message))
        with self._lock:
            self.is_busy = True
            try:
                while line:
                    line = line[os.write(self._out, line) :]
            finally:
                self.is_busy = False


def _move_away(fd: int) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = _FAR if soft == resource.RLIM_INFINITY else max(3, min(_FAR, soft - 16))
    far = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, low)
    os.close(fd)
    return far
