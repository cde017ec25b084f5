"""The care for one server: to adopt or launch it, to see when it is ready, to start it again.

Owns: the life of the server from the first launch to the request to stop.
Refuses: to know about users; whether anybody wants the server is told to it.
"""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from typing import Final

from kairos.embedded import files, logfile, postmaster
from kairos.embedded.paths import Layout
from kairos.embedded.postmaster import Postmaster
from kairos.embedded.report import Reporter
from kairos.errors import EmbeddedPostgresError

_ORPHANS_AFTER: Final = 10.0
_FIRST_RETRY: Final = 0.2
_LAST_RETRY: Final = 30.0
_STABLE_AFTER: Final = 60.0


def say(text: str) -> None:
    """Write a line to the supervisor's log, which is its stdout."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
    # A full disk must not take the supervisor down.
    with contextlib.suppress(OSError):
        os.write(1, f"{stamp} [{os.getpid()}] {text}\n".encode(errors="replace"))


class Keeper:
    """Keeps the server of one data folder up."""

    def __init__(self, layout: Layout, report: Reporter) -> None:
        """`report` hears once that the server has come up."""
        self._layout = layout
        self._report = report
        self._server: Postmaster | None = None
        self._was_ready = False
        self._ready_since = 0.0
        self._retry_at = 0.0
        self._retry_after = _FIRST_RETRY
        self._blocked_since: float | None = None
        self._log_start = 0

    @property
    def settled(self) -> bool:
        """Whether the server is up, so that there is nothing to wait for."""
        return self._ready_since > 0

    @property
    def starting(self) -> bool:
        """Whether the server is on its way up: perhaps it recovers from a crash, which may take long."""
        return self._server is not None and not self._ready_since

    def keep_up(self, *, wanted: bool) -> None:
        """Look after the server; when there is none and it is wanted, adopt or launch one.

        Raises when a server cannot be started at all; one that has been up before is tried again.
        """
        logfile.shorten(self._layout.log)
        if self._server is not None and not self._server.alive():
            self._note_death(self._server)
        if self._server is None and wanted and time.monotonic() >= self._retry_at:
            self._start()
        self._watch_readiness()

    def stop(self) -> None:
        """Stop the server and wait for its end."""
        gone = self._server is None or postmaster.shut_down(self._server, self._layout)
        say("the server has stopped" if gone else "THE SERVER DID NOT STOP")

    def _start(self) -> None:
        try:
            self._adopt_or_launch()
        except (OSError, EmbeddedPostgresError) as error:
            if not self._was_ready:
                raise
            self._back_off(f"THE SERVER CANNOT BE STARTED AGAIN: {error}")

    def _adopt_or_launch(self) -> None:
        if (found := postmaster.find(self._layout)) is not None:
            say(f"adopted the running server, pid {found.pid}")
            self._server = found
            return
        self._log_start = logfile.size(self._layout.log)
        self._server = postmaster.launch(self._layout)
        if self._server is None:
            self._wait_for_orphans()
            return
        self._blocked_since = None
        say(f"launched the server, pid {self._server.pid}")

    def _wait_for_orphans(self) -> None:
        """Something of an earlier server lives on; give it time to see that it is alone, then end it."""
        now = time.monotonic()
        if self._blocked_since is None:
            self._blocked_since = now
            say("waiting for what is left of an earlier server")
        if now - self._blocked_since > _ORPHANS_AFTER:
            self._retry_at = now + 1
            if killed := postmaster.kill_orphans(self._layout):
                say(f"killed what an earlier server left: {killed}")

    def _note_death(self, server: Postmaster) -> None:
        """The server is dead. One of ours that never came up is a failure; any other starts again."""
        self._server = None
        stable = self._ready_since and time.monotonic() - self._ready_since > _STABLE_AFTER
        self._ready_since = 0.0
        tail = files.tail(self._layout.log, start=self._log_start)
        if server.child is None:
            say(f"the adopted server has ended, pid {server.pid}")
            return
        said = f"exit code {server.child.returncode}: {logfile.last_complaint(tail)}"
        if not self._was_ready:
            raise EmbeddedPostgresError(
                f"PostgreSQL did not start, {said}",
                hint=logfile.advice(tail, self._layout.log),
                server_log=tail,
            )
        self._retry_after = _FIRST_RETRY if stable else self._retry_after
        self._back_off(f"THE SERVER DIED, {said}")

    def _back_off(self, why: str) -> None:
        self._retry_at = time.monotonic() + self._retry_after
        logfile.shorten(self._layout.supervisor_log)
        say(f"{why} (next start in {self._retry_after:g} s)")
        self._retry_after = min(_LAST_RETRY, self._retry_after * 2)

    def _watch_readiness(self) -> None:
        if not self.starting or self._server is None or not self._server.ready(self._layout):
            return
        self._ready_since = time.monotonic()
        self._was_ready = True
        say("the server accepts connections")
        self._report.ready()
