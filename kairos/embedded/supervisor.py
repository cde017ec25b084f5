"""The process which owns the server: `python -m kairos.embedded.supervisor DATA_DIR`.

Owns: when the server starts, when it starts again, and when it stops: once nobody has held `users.lock`
for the grace time (KAIROS_EMBEDDED_GRACE seconds). It may be killed at any moment: the server runs on,
and the next supervisor adopts it.
Refuses: to talk to the database, to count users, and to run twice: whoever holds `supervisor.lock` is
the supervisor.

While it stops the server it holds `users.lock` exclusively, so a user who comes just then waits, finds
neither server nor supervisor, and starts both.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Final

from kairos.embedded import folders, locks
from kairos.embedded.keeper import Keeper, say
from kairos.embedded.paths import Layout
from kairos.embedded.report import Reporter

GRACE_VARIABLE: Final = "KAIROS_EMBEDDED_GRACE"
DEFAULT_GRACE: Final = 10.0

_TICK: Final = 0.25
_TICK_WHILE_STARTING: Final = 0.02


def grace_time() -> float:
    """The seconds between the last user's leave and the stop of the server."""
    try:
        return max(0.0, float(os.environ.get(GRACE_VARIABLE) or DEFAULT_GRACE))
    except ValueError:
        say(f"{GRACE_VARIABLE} is not a number: using {DEFAULT_GRACE:g}")
        return DEFAULT_GRACE


class Supervisor:
    """The supervisor of one data folder. It holds `supervisor.lock` already."""

    def __init__(self, layout: Layout, lock: int, report: Reporter) -> None:
        """`lock` is the held descriptor; `report` hears once that the server has come up."""
        self._layout = layout
        self._lock = lock
        self._keeper = Keeper(layout, report)
        self._grace = grace_time()
        self._users = locks.open_lock(layout.users_lock)
        self._idle_since: float | None = None
        self._asked_to_stop = False

    def run(self) -> None:
        """Keep the server up until there is a reason to stop, then stop it."""
        wake = self._listen()
        # Computed now: the names in it are gone when somebody removes the data folder.
        sockets = self._layout.socket_dir
        while (why := self._reason_to_stop()) is None:
            self._keeper.keep_up(wanted=self._idle_since is None)
            self._sleep(wake)
        say(f"stopping: {why}")
        self._keeper.stop()
        folders.drop_socket_dir(self._layout, sockets)
        # In this order: whoever gets users.lock next must not take us for a supervisor any more.
        os.close(self._lock)
        os.close(self._users)

    def _listen(self) -> int:
        """Let signals wake the loop: SIGTERM asks to stop, SIGCHLD says that the server has died."""
        wake, write = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # Whoever started us may have had them blocked, and that is inherited.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD})
        return wake

    def _on_sigterm(self, *_: object) -> None:
        self._asked_to_stop = True

    def _sleep(self, wake: int) -> None:
        tick = _TICK if self._keeper.settled else _TICK_WHILE_STARTING
        select.select([wake], [], [], tick)
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 512)

    def _reason_to_stop(self) -> str | None:
        """Why the server is to stop now. When nobody uses it, `users.lock` is ours from here on."""
        if self._asked_to_stop:
            return "asked by SIGTERM"
        ours = ((self._lock, self._layout.supervisor_lock), (self._users, self._layout.users_lock))
        if not all(locks.is_current(fd, path) for fd, path in ours):
            return f"the lock files in {self._layout.data_dir} were removed"
        if not locks.try_lock(self._users, locks.EXCLUSIVE):
            self._idle_since = None
            return None
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        # A long recovery, whose user has lost patience, goes on: else it would begin anew each time.
        if now - self._idle_since >= self._grace and not self._keeper.starting:
            return f"nobody has used it for {self._grace:g} s"
        locks.unlock(self._users)
        return None


def supervise(layout: Layout, report: Reporter) -> int:
    """Be the supervisor of `layout`, or leave when there is one. The exit code."""
    # Not at the first refusal: a process that only looks whether the lock is held has it for a moment.
    lock = locks.acquire(layout.supervisor_lock, locks.EXCLUSIVE, time.monotonic() + 0.3)
    if lock is None:
        report.busy()
        return 0
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    try:
        Supervisor(layout, lock, report).run()
    except Exception as error:
        say(f"gave up: {error!r}")
        # Free the lock before the word is out, so that who hears it can start another at once.
        os.close(lock)
        report.failed(error)
        return 1
    return 0


def main(argv: list[str]) -> int:
    """`DATA_DIR [FD]`: detach, and supervise the folder; FD is a pipe to report to."""
    if os.fork() > 0:
        # Whoever started us waits for this one, so the supervisor is nobody's zombie.
        os._exit(0)
    fd = int(argv[2]) if len(argv) > 2 else None
    if fd is not None:
        os.set_inheritable(fd, False)
    return supervise(Layout(Path(argv[1])), Reporter(fd))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
