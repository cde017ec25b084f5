"""The parent of worker processes: starts them, buries and replaces those that die, drains all at the end.

It runs no user code and imports no app, so nothing that a step does can take it down. A child that is killed
is declared dead in the database at once (the next worker need not wait for the lease) and its process group
is killed after it, isolated steps included. Refuses: to know what workers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final

from kairos.domain import canonical
from kairos.engine.child import CANNOT_START
from kairos.engine.offspring import Child, Plan, ending, signal_name, spawn
from kairos.errors import KairosError
from kairos.store.connect import Session

__all__ = ["Child", "Plan", "Supervisor"]

log = logging.getLogger("kairos.supervisor")

STABLE_AFTER: Final = 30.0
"""A child that lived this long is replaced at once when it dies; before, after a pause that doubles."""
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 30.0
NO_ROOM_PAUSE: Final = 5.0
"""Seconds until the next try when the system has no room for another process."""
DRAIN_MARGIN: Final = 15.0
"""Seconds that a child gets beyond its drain timeout before it is killed."""


class Supervisor:
    """Keeps `plan.processes` workers running until `stop()`.

    Args:
        plan: what to run.
        waits_for_change: when the app cannot be loaded, wait for `restart()` instead of giving up.
        takes_signals: SIGTERM, SIGINT and SIGHUP are for this supervisor while it runs.
        on_ready: called with each child once its worker is registered.
        on_drain: called with each child once it lets its last steps end; `child.draining` names them.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        waits_for_change: bool = False,
        takes_signals: bool = True,
        on_ready: Callable[[Child], None] | None = None,
        on_drain: Callable[[Child], None] | None = None,
    ) -> None:
        self.plan, self._waits_for_change = plan, waits_for_change
        self._on_ready, self._on_drain = on_ready, on_drain
        self._takes_signals = takes_signals
        self.children: dict[int, Child] = {}
        self.stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._session = Session(plan.dsn, "kairos supervisor", patience=10)
        self._has_worked = False
        self._exit_code = 0
        self._signals = 0

    async def run(self) -> int:
        """Supervise until stopped; returns the exit code: 0 after a clean drain."""
        with self._signals_handled():
            keepers = [asyncio.create_task(self._keep(n)) for n in range(1, self.plan.processes + 1)]
            try:
                await asyncio.gather(*keepers)
            finally:
                for keeper in keepers:
                    keeper.cancel()
                await asyncio.gather(*keepers, return_exceptions=True)
                await self._session.close()
        return self._exit_code

    def stop(self) -> None:
        """Ask every child to drain; `run` returns when all have ended."""
        self.stopping.set()
        for child in self.children.values():
            self._ask_to_stop(child)

    def restart(self) -> None:
        """Replace every child, after its drain, by one that loads the app anew."""
        self._changed.set()
        for child in self.children.values():
            self._ask_to_stop(child)

    def _ask_to_stop(self, child: Child) -> None:
        if not child.is_asked:
            child.ask_to_stop()
            patience = self.plan.options.drain_timeout + DRAIN_MARGIN
            asyncio.get_running_loop().call_later(patience, self._insist, child)

    def _insist(self, child: Child) -> None:
        """It did not drain in time: user code blocks its event loop, most likely."""
        if child.process.returncode is None:
            log.error("worker_stuck pid=%s: it did not drain in time and is killed", child.pid)
            if self.stopping.is_set():
                self._exit_code = 1
            child.process.kill()

    # -- one child ---------------------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        pause = FIRST_PAUSE
        while not self.stopping.is_set():
            self._changed.clear()
            try:
                child = await self._start(number)
            except OSError as exc:
                log.error("worker_not_started number=%s: %s", number, exc)
                await _first_of(self.stopping, timeout=NO_ROOM_PAUSE)
                continue
            code = await self._await_end(child)
            if self.stopping.is_set():
                return
            if code == CANNOT_START and not await self._may_try_again():
                return
            if child.is_asked or code == CANNOT_START:
                pause = FIRST_PAUSE
                continue
            is_stable = time.monotonic() - child.started > STABLE_AFTER
            wait = 0.0 if is_stable or pause == FIRST_PAUSE else pause
            pause = FIRST_PAUSE * 2 if is_stable else min(pause * 2, LONGEST_PAUSE)
            log.warning("worker_replaced number=%s pid=%s %s: the next one starts %s", number, child.pid,
                        ending(code), f"in {wait:g}s" if wait else "now")  # fmt: skip
            await _first_of(self.stopping, self._changed, timeout=wait)

    async def _may_try_again(self) -> bool:
        """After a child could not load the app."""
        if self._waits_for_change:
            log.error("app_not_loaded app=%s: save a change to try again", self.plan.app_spec)
            await _first_of(self.stopping, self._changed, timeout=None)
            return not self.stopping.is_set()
        if self._has_worked:
            # It worked before: perhaps a deployment is half done. The other children go on.
            await _first_of(self.stopping, timeout=5.0)
            return not self.stopping.is_set()
        self._exit_code = 1
        self.stop()
        return False

    async def _start(self, number: int) -> Child:
        child = self.children[number] = await spawn(self.plan, number, self._hear)
        if self.stopping.is_set():
            self._ask_to_stop(child)
        return child

    def _hear(self, child: Child) -> None:
        self._has_worked = True
        tell = self._on_ready if child.draining is None else self._on_drain
        if tell is not None:
            tell(child)

    async def _await_end(self, child: Child) -> int:
        code = await child.process.wait()
        del self.children[child.number]
        os.close(child.life_fd)
        if code:
            # What it started goes with it: a step that runs on beside its own second attempt helps nobody.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        if child.listener is not None:
            await asyncio.wait([child.listener], timeout=1)
            child.listener.cancel()
        if code and child.workers:
            await self._bury(child, code)
        return code

    async def _bury(self, child: Child, code: int) -> None:
        """Declare a dead child's worker dead and free its runs, without waiting for the lease."""
        report = {"signal": signal_name(code) or f"exit code {code}", "pid": child.pid, "at": time.time()}
        try:
            for worker in child.workers:
                params = {"id": worker, "report": canonical.encode_trusted(report)}
                await self._session.execute("bury_worker", params)
            freed = await self._session.execute("free_runs_of_dead")
            await self._session.execute("notify", {"channel": "kairos_task", "payload": ""})
            log.warning("worker_died worker=%s pid=%s %s runs_freed=%s", child.name, child.pid, ending(code),
                        len(freed))  # fmt: skip
        except KairosError as exc:
            log.warning("worker_died worker=%s pid=%s %s; its lease will free its runs: %s", child.name, child.pid,
                        ending(code), exc.message)  # fmt: skip

    # -- signals -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals_handled(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        # What is ignored on purpose stays so: `nohup kairos worker` must survive the end of its terminal.
        maybe = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
        numbers = [signal.SIGTERM, *maybe] if self._takes_signals else []
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals == 1:
            log.info("draining: what runs may end; a second signal stops at once")
            self.stop()
            return
        self.kill(128 + number)

    def kill(self, exit_code: int) -> None:
        """End every child at once. Their runs are freed and go on elsewhere, or at the next start."""
        self._exit_code = exit_code
        self.stopping.set()
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()


async def _first_of(*events: asyncio.Event, timeout: float | None) -> None:
    waiters = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiters, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for waiter in waiters:
        waiter.cancel()
