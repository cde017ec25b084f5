"""Keeps this worker's lease, from a thread of its own, and gives up those of dead workers.

The heartbeat must go on while user code blocks the event loop, while draining, and until the last body has
ended: hence a thread with its own connection.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

from kairos.domain import canonical
from kairos.domain.commands import Expire, LoseLease
from kairos.engine.office import Identity, Office
from kairos.errors import KairosError
from kairos.store.connect import backoff, impatient_dsn, open_sync
from kairos.store.history import Advanced, Conn
from kairos.store.queries import query

log = logging.getLogger("kairos.worker")


class Heartbeat(threading.Thread):
    """Renews the lease every third of its length.

    Args:
        report: what to store beside the lease, for `kairos doctor`; called on this thread.
        on_lost: called (on this thread) when the worker has been declared dead.
    """

    def __init__(
        self,
        dsn: str,
        identity: Identity,
        lease: float,
        report: Callable[[], dict[str, Any]],
        on_lost: Callable[[], None],
    ) -> None:
        super().__init__(name="kairos-heartbeat", daemon=True)
        # A connection that takes longer than this would come too late to save the lease.
        self._dsn = impatient_dsn(dsn, max(2, int(lease / 3)))
        self._identity, self._lease = identity, lease
        self._report, self._on_lost = report, on_lost
        self._ended = threading.Event()
        self._conn: psycopg.Connection[Any] | None = None

    def stop(self) -> None:
        """End the thread; the lease is not given up by that."""
        self._ended.set()

    def run(self) -> None:
        """Beat until stopped or declared dead."""
        tries = 0
        pause = self._lease / 3
        while not self._ended.wait(pause):
            try:
                if not self._beat():
                    log.error("lease_lost worker=%s: it was silent for too long and was given up", self._identity.name)
                    self._on_lost()
                    break
                tries, pause = 0, self._lease / 3 * random.uniform(0.8, 1.0)
            except (psycopg.Error, KairosError, OSError) as exc:
                tries += 1
                pause = min(backoff(tries), self._lease / 6)
                self._close()
                log.warning("heartbeat_failed tries=%s: %s", tries, str(exc).splitlines()[0] if str(exc) else exc)
        self._close()

    def _beat(self) -> bool:
        if self._conn is None:
            self._conn = open_sync(self._dsn, "kairos heartbeat", statement_timeout="5s", lock_timeout="3s")
        params = {"id": self._identity.id, "lease": self._lease, "report": _encode(self._report())}
        # A half-open socket raises no error, and this thread would wait for ever: hang up while there is time
        # for another beat.
        impatient = threading.Timer(self._lease / 3, _hang_up, [self._conn])
        impatient.start()
        try:
            return self._conn.execute(query("beat"), params).fetchone() is not None
        finally:
            impatient.cancel()

    def _close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def killed_by(report: bytes | None) -> str | None:
    """What ended a worker, as its parent has reported it: a signal or an exit code; None if nobody knows."""
    signal: str | None = canonical.decode(bytes(report)).get("signal") if report else None
    return signal


def _hang_up(conn: psycopg.Connection[Any]) -> None:
    try:
        with socket.socket(fileno=os.dup(conn.fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        pass  # it has been closed meanwhile


def _encode(report: dict[str, Any]) -> bytes:
    return canonical.encode_trusted({**report, "at": time.time()})


class Reaper:
    """Finds workers whose lease has run out and sets free what they held. Every worker is one."""

    def __init__(self, office: Office) -> None:
        self.office = office

    async def sweep(self) -> int:
        """One round; returns how many runs and steps were set free."""
        work = self.office.work
        for _, name in await work.execute("reap_workers"):
            log.warning("worker_given_up worker=%s: its lease has run out", name)
        freed = len(await work.execute("free_runs_of_dead"))
        for row in await work.execute("steps_of_dead", {"take": 200}):
            freed += await self._free_step(*row)
        for (run_id,) in await work.execute("list_expired", {"take": 200}):
            await self._expire(run_id)
        return freed

    async def _free_step(self, run_id: Any, step: str, token: int | None, worker: Any, name: str,
                         state: str, report: bytes) -> int:  # fmt: skip
        """A helper is gone: record that its attempt is lost, and offer the step again."""
        signal = killed_by(report)
        suspect = state == "dead"
        lost = LoseLease(step, token or 0, "worker_lost", name, signal, suspect=suspect)
        params = {"run_id": run_id, "step": step, "worker": worker, "crashed": suspect, "ready_at": None}

        async def within(conn: Conn, done: Advanced) -> None:
            await conn.execute(query("release_step_task"), params)

        async def append(conn: Conn) -> Advanced:
            return await self.office.history.advance(conn, run_id, [lost] if token else [], within=within)

        try:
            await self.office.work.run(append)
        except KairosError as exc:
            log.error("step_not_freed run=%s step=%s: %s", run_id, step, exc)
            return 0
        return 1

    async def give_back(self, run_id: Any, step: str, token: int | None) -> None:
        """Set free a task of this very worker that nothing in it knows of."""
        me = self.office.identity
        if step:
            await self._free_step(run_id, step, token, me.id, me.name, "live", b"")
        else:
            await self.office.work.execute("free_orphan", {"run_id": run_id, "worker": me.id})

    async def _expire(self, run_id: Any) -> None:
        async def append(conn: Conn) -> Advanced:
            return await self.office.history.advance(conn, run_id, [Expire()])

        try:
            done = await self.office.work.run(append)
        except KairosError as exc:
            log.error("run_not_expired run=%s: %s", run_id, exc)
            return
        if done.events:
            log.warning("run_expired run=%s", run_id)
