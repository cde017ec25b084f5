"""The blocking client: the async one, on an event loop in a thread of its own.

Usable from any thread; concurrent `start()` calls of many threads share one flush.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from psycopg import Connection

from kairos.client.aio import AnyWorkflow, AsyncClient, AsyncRun, RunRef
from kairos.client.forking import PlannedFork
from kairos.client.starting import start_within_blocking
from kairos.domain.duration import Duration
from kairos.domain.events import Recorded
from kairos.domain.keywords import checks_keywords
from kairos.domain.projection import RunState
from kairos.domain.states import RunStatus
from kairos.errors import KairosError
from kairos.store.reader import RunInfo

if TYPE_CHECKING:
    from kairos.authoring import Workflow

T = TypeVar("T")


@checks_keywords
class Run:
    """A handle on one run: what was known when it was read, and verbs.

    Attributes:
        info: the facts as last read.
    """

    def __init__(self, client: Client, run: AsyncRun) -> None:
        self._client, self._run = client, run

    @property
    def info(self) -> RunInfo:
        """The facts as last read; see `refresh`."""
        return self._run.info

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    @property
    def status(self) -> RunStatus:
        """The status when last read."""
        return self._run.status

    @property
    def output(self) -> Any:
        """The output of an ended run, waiting for it if need be; raises as `result` does."""
        return self.result()

    def refresh(self) -> Run:
        """Read the run again."""
        self._client._do(self._run.refresh())
        return self

    def wait(self, timeout: Duration | None = None) -> Run:
        """Wait until the run has ended, well or badly; returns itself. Raises WaitTimeout."""
        self._client._do(self._run.wait(timeout))
        return self

    def result(self, timeout: Duration | None = None) -> Any:
        """Wait, then return the output.

        Raises:
            WaitTimeout: it has not ended in time.
            RunFailed, RunCancelled, RunExpired: it ended badly.
        """
        return self._client._do(self._run.result(timeout))

    def cancel(self, reason: str = "cancelled by the client") -> Run:
        """See `Client.cancel`."""
        self._client._do(self._run.cancel(reason))
        return self

    def __repr__(self) -> str:
        return f"<Run {self.info.workflow} {self.id} {self.status}>"


@checks_keywords
class Client:
    """Starts runs and looks at them. Use it as `with Client() as client: ...`.

    Args:
        url: a Postgres URL; default KAIROS_DATABASE_URL, else the embedded Postgres.
        data_dir: where the embedded Postgres lives; default KAIROS_DATA_DIR.
        patience: seconds for which an outage of the database is sat out before DatabaseUnavailable.
    """

    def __init__(self, url: str | None = None, *, data_dir: str | Path | None = None, patience: float = 30.0) -> None:
        self._inner = AsyncClient(url, data_dir=data_dir, patience=patience)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread
        self._pid = 0

    def open(self) -> Client:
        """Connect. Raises DatabaseUnavailable, MigrationError."""
        if self._loop is None:
            self._pid = os.getpid()
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="kairos-client", daemon=True)
            self._thread.start()
            try:
                self._do(self._inner.open())
            except BaseException:
                self._stop_loop()
                raise
        return self

    def close(self) -> None:
        """Send what is under way, then disconnect."""
        if self._loop is not None and self._pid == os.getpid():
            try:
                self._do(self._inner.close())
            finally:
                self._stop_loop()

    def __enter__(self) -> Client:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def start(
        self,
        workflow: AnyWorkflow,
        input: Any = None,
        *,
        key: str | None = None,
        labels: Mapping[str, str] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        ttl: Duration | None = None,
        key_ttl: Duration | None = None,
        run_id: RunRef | None = None,
        connection: Connection[Any] | None = None,
    ) -> Run:
        """Start a run; durable when this returns. Arguments and errors as of `AsyncClient.start`.

        With `connection` (a blocking psycopg connection) the run is part of your transaction.
        """
        if connection is None:
            given = self._inner.start(
                workflow, input, key=key, labels=labels, queue=queue, priority=priority, ttl=ttl,
                key_ttl=key_ttl, run_id=run_id,
            )  # fmt: skip
            return Run(self, self._do(given))
        start = self._do(self._inner._prepare(workflow, input, key, labels, queue, priority, ttl, key_ttl, run_id))
        found = start_within_blocking(connection, start)
        kind = None if isinstance(workflow, str) else workflow
        return Run(self, AsyncRun(self._inner, found, start, kind))

    def start_many(
        self,
        workflow: AnyWorkflow,
        inputs: Sequence[Any],
        *,
        keys: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        ttl: Duration | None = None,
    ) -> list[Run]:
        """Start many runs of one workflow, 1,000 to a statement. See `AsyncClient.start_many`."""
        many = self._inner.start_many(
            workflow, inputs, keys=keys, labels=labels, queue=queue, priority=priority, ttl=ttl
        )
        return [Run(self, run) for run in self._do(many)]

    def get_run(self, run: RunRef, workflow: Workflow | None = None) -> Run:
        """A run by its id, a unique prefix or suffix of it, or `last`."""
        return Run(self, self._do(self._inner.get_run(run, workflow)))

    def find(self, run: RunRef) -> UUID:
        """The id that `run` means. Raises RunNotFound, AmbiguousRun."""
        return self._do(self._inner.find(run))

    def list(
        self,
        *,
        workflow: str | None = None,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        key: str | None = None,
        labels: Mapping[str, str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: RunRef | None = None,
        limit: int = 50,
    ) -> list[Run]:
        """Runs, newest first. For the next page pass the last id of this one as `before`. See `AsyncClient.list`."""
        found = self._inner.list(
            workflow=workflow, status=status, key=key, labels=labels, since=since, until=until,
            before=before, limit=limit,
        )  # fmt: skip
        return [Run(self, run) for run in self._do(found)]

    def events(self, run: RunRef, *, after: int = 0, limit: int | None = None) -> Sequence[Recorded]:
        """The events of a run with seq greater than `after`."""
        return self._do(self._inner.events(run, after=after, limit=limit))

    def state(self, run: RunRef, *, at: int | None = None) -> RunState:
        """The state of a run after event `at` (default: now)."""
        return self._do(self._inner.state(run, at=at))

    def wait(self, run: RunRef, timeout: Duration | None = None) -> Run:
        """Wait until a run has ended. Raises WaitTimeout, RunNotFound."""
        return Run(self, self._do(self._inner.wait(run, timeout)))

    def result(self, run: RunRef, timeout: Duration | None = None) -> Any:
        """Wait and return the output; raises as `Run.result` does."""
        return self._do(self._inner.result(run, timeout))

    def cancel(self, run: RunRef, reason: str = "cancelled by the client", *, author: str | None = None) -> RunStatus:
        """Ask for a run to stop; returns its status afterwards. See `AsyncClient.cancel`."""
        return self._do(self._inner.cancel(run, reason, author=author))

    def fork(
        self,
        run: RunRef,
        *,
        from_step: str,
        set: Mapping[str, Any] | None = None,
        output: Mapping[str, Any] | None = None,
        version: str = "latest",
        reason: str = "",
        author: str | None = None,
        key: str | None = None,
        workflow: Workflow | None = None,
    ) -> Run:
        """Start a new run that takes over what another one has done and goes on from `from_step`.

        Arguments and errors as of `AsyncClient.fork`.
        """
        forked = self._inner.fork(
            run, from_step=from_step, set=set, output=output, version=version, reason=reason, author=author, key=key,
            workflow=workflow,
        )  # fmt: skip
        return Run(self, self._do(forked))

    def plan_fork(
        self,
        run: RunRef,
        *,
        from_step: str,
        set: Mapping[str, Any] | None = None,
        output: Mapping[str, Any] | None = None,
        version: str = "latest",
        reason: str = "",
        author: str | None = None,
        key: str | None = None,
        workflow: Workflow | None = None,
    ) -> PlannedFork:
        """Tell what `fork` would do; writes nothing."""
        return self._do(
            self._inner.plan_fork(
                run, from_step=from_step, set=set, output=output, version=version, reason=reason, author=author,
                key=key, workflow=workflow,
            )
        )  # fmt: skip

    def start_fork(self, planned: PlannedFork) -> Run:
        """Start a fork as it was planned. See `AsyncClient.start_fork`."""
        return Run(self, self._do(self._inner.start_fork(planned)))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        if loop is None or self._pid != os.getpid():
            work.close()
            why = "is not open" if loop is None else "was opened in another process (before a fork)"
            raise KairosError(f"this client {why}", hint="Use `with kairos.Client() as client:` in this process.")
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    def _stop_loop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()
