"""The async client: start runs, wait for them, look at them, cancel them."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias
from uuid import UUID

from psycopg import AsyncConnection

from kairos import settings
from kairos.client.forking import Forker, ForkRequest, PlannedFork
from kairos.client.starting import Start, Starter, clean_text, prepare, start_within
from kairos.client.waiting import Waiter
from kairos.database import Database
from kairos.domain import canonical
from kairos.domain.commands import RequestCancel
from kairos.domain.duration import Duration, parse_duration
from kairos.domain.events import Recorded
from kairos.domain.fingerprint import Definition
from kairos.domain.keywords import checks_keywords
from kairos.domain.names import nearest
from kairos.domain.projection import RunState
from kairos.domain.states import RunStatus, read_run_status
from kairos.errors import (
    InvalidArgument,
    PayloadError,
    RunCancelled,
    RunExpired,
    RunFailed,
    WaitTimeout,
    WorkflowNotFound,
)
from kairos.store.clock import DatabaseClock
from kairos.store.connect import PLAN_ONCE, Session
from kairos.store.history import Advanced, Conn, History
from kairos.store.queries import query
from kairos.store.reader import Ended, Finished, Reader, RunInfo

if TYPE_CHECKING:
    # Only whoever holds a workflow has loaded pydantic; starts by name do without.
    from kairos.authoring import Workflow

RunRef = UUID | str
AnyWorkflow: TypeAlias = "Workflow | str"


@checks_keywords
class AsyncRun:
    """A handle on one run: what was known when it was read, and verbs.

    Made by the verbs of `AsyncClient`.
    """

    def __init__(
        self,
        client: AsyncClient,
        run_id: UUID,
        known: RunInfo | Start | Ended,
        workflow: Workflow | None = None,
        since: float | None = None,
    ) -> None:
        self._client, self._run_id, self._known, self._workflow = client, run_id, known, workflow
        self._since = since
        self._finished: Finished | None = None

    @property
    def info(self) -> RunInfo:
        """The facts as last read; `id`, `status` and the rest are taken from it."""
        known = self._known
        # Built when asked for: most runs of a program that starts many are never looked at.
        if isinstance(known, Start):
            known = self._known = _info_of_start(known, self._run_id)
        elif isinstance(known, Ended):
            known = self._known = known.info
        return known

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self._run_id)

    @property
    def status(self) -> RunStatus:
        """The status when last read; see `refresh`."""
        return self.info.status

    async def refresh(self) -> AsyncRun:
        """Read the run again."""
        self._known = await self._client._reader.run(self._run_id)
        return self

    async def wait(self, timeout: Duration | None = None) -> AsyncRun:
        """Wait until the run has ended, well or badly; returns itself. Raises WaitTimeout."""
        self._known = await self._wait(timeout)
        return self

    async def result(self, timeout: Duration | None = None) -> Any:
        """Wait, then return the output.

        One sink step: its output. Several: a dict of their outputs by name. Typed if the run was started
        from (or read with) a Workflow object, else plain JSON values.

        Raises:
            WaitTimeout: it has not ended in time.
            RunFailed, RunCancelled, RunExpired: it ended badly.
        """
        if self._finished is None or self._finished.info.status is not RunStatus.DONE:
            ended = await self._wait(timeout, outputs=True)
            self._finished = await self._client._reader.output(ended)
            self._known = self._finished.info
        return output_of(self._finished, self._workflow)

    async def _wait(self, timeout: Duration | None, *, outputs: bool = False) -> Ended:
        seconds = None if timeout is None else parse_duration(timeout, what="timeout").total_seconds()
        client, run_id = self._client, self._run_id
        try:
            return await client._waiter.wait(run_id, seconds=seconds, outputs=outputs, since=self._since)
        except TimeoutError:
            ended = (await client._reader.ended([run_id])).get(run_id)
            if ended is not None:
                return ended
            info = await client._reader.run(run_id)  # raises RunNotFound
            raise WaitTimeout(
                f"run {run_id} is still {info.status} after {seconds:g}s",
                hint=f"It goes on. `kairos why {run_id}` says what it waits for.",
                run_id=str(run_id),
                status=info.status,
            ) from None

    async def cancel(self, reason: str = "cancelled by the client") -> AsyncRun:
        """See `AsyncClient.cancel`."""
        await self._client.cancel(self._run_id, reason)
        return await self.refresh()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info.workflow} {self.id} {self.status}>"


def _info_of_start(start: Start, run_id: UUID) -> RunInfo:
    """What is known of a run that has just been started."""
    at = start.at or datetime.now(UTC)
    return RunInfo(
        id=run_id,
        workflow=start.workflow,
        status=RunStatus.SCHEDULED,
        created_at=at,
        updated_at=at,
        ended_at=None,
        queue=start.queue,
        priority=start.priority,
        key=start.key,
        labels=start.labels,
        fingerprint=start.fingerprint,
        seq=1,
        claims=0,
        reason=None,
    )


def output_of(finished: Finished, workflow: Workflow | None) -> Any:
    """The output of an ended run, or the error that says why there is none."""
    info = finished.info
    if info.status is not RunStatus.DONE:
        _raise_ending(finished)
    if workflow is not None and workflow.fingerprint == info.fingerprint:
        values = {name: workflow.steps[name].output_adapter.decode(raw) for name, raw in finished.outputs.items()}
    else:
        values = {name: canonical.decode(raw) for name, raw in finished.outputs.items()}
    return next(iter(values.values())) if len(values) == 1 else values


def _raise_ending(finished: Finished) -> NoReturn:
    info = finished.info
    facts = {"run_id": str(info.id), "status": info.status}
    if info.status is RunStatus.CANCELLED:
        raise RunCancelled(f"run {info.id} was cancelled: {info.reason}", **facts)
    if info.status is RunStatus.EXPIRED:
        raise RunExpired(f"run {info.id} expired: {info.reason}", **facts)
    raise RunFailed(
        f"run {info.id} of {info.workflow!r} failed: {info.reason}",
        hint=f"`kairos show {info.id}` shows what happened.",
        step=info.failed_steps[0] if info.failed_steps else None,
        error=finished.error,
        **facts,
    )


@checks_keywords
class AsyncClient:
    """Starts runs and looks at them. Use it as `async with AsyncClient() as client: ...`.

    Args:
        url: a Postgres URL; default KAIROS_DATABASE_URL, else the embedded Postgres.
        data_dir: where the embedded Postgres lives; default KAIROS_DATA_DIR.
        patience: seconds for which an outage of the database is sat out before DatabaseUnavailable.
    """

    def __init__(self, url: str | None = None, *, data_dir: str | Path | None = None, patience: float = 30.0) -> None:
        self._url, self._data_dir, self._patience = url, data_dir, patience
        self._database: Database | None = None

    async def open(self) -> AsyncClient:
        """Connect. Raises DatabaseUnavailable, MigrationError."""
        if self._database is not None:
            return self
        loop = asyncio.get_running_loop()
        database = await loop.run_in_executor(None, lambda: Database(self._url, data_dir=self._data_dir))
        await loop.run_in_executor(None, database.require_schema)
        self._database = database
        dsn = database.dsn
        self._reads = Session(dsn, "kairos client", patience=self._patience)
        self._writes = Session(dsn, "kairos client", patience=self._patience)
        self._starts = Session(dsn, "kairos starter", patience=self._patience, **PLAN_ONCE)
        self._reader = Reader(self._reads)
        self._history = History(self._reader.definitions, keep=16)
        self._clock = DatabaseClock()
        self._clock.hear((await self._starts.execute("read_clock"))[0][0])
        self._starter = Starter(self._starts, self._clock, notify=settings.read("notify"))
        self._forker = Forker(self._writes, self._reader.definitions, notify=settings.read("notify"))
        self._waiter = Waiter(dsn, self._reader)
        return self

    async def close(self) -> None:
        """Send what is under way, then disconnect."""
        if self._database is None:
            return
        await self._starter.settle()
        await self._waiter.close()
        for session in (self._reads, self._writes, self._starts):
            await session.close()
        self._database.close()
        self._database = None

    async def __aenter__(self) -> AsyncClient:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    # -- starting ----------------------------------------------------------------------------------------

    async def start(
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
        connection: AsyncConnection[Any] | None = None,
    ) -> AsyncRun:
        """Start a run; durable when this returns.

        Args:
            workflow: a Workflow or Job, or the name of one that a worker has registered.
            input: what the workflow's input type accepts.
            key: an idempotency key: the same key with the same input is the same run.
            labels: short strings to find the run by.
            queue, priority, ttl: override those of the workflow.
            key_ttl: how long the key is kept; default: as long as the run.
            run_id: an id of your own making (a UUIDv7), for starts that must be safe to repeat.
            connection: a psycopg connection; the run then exists if, and only if, its transaction commits.

        Raises:
            PayloadError: the input does not fit.
            KeyConflict: the key was used with another input.
            WorkflowNotFound: no definition of that name is in the database.
        """
        kind = None if isinstance(workflow, str) else workflow
        start = await self._prepare(workflow, input, key, labels, queue, priority, ttl, key_ttl, run_id)
        if connection is not None:
            return AsyncRun(self, await start_within(connection, start), start, kind)
        now = asyncio.get_running_loop().time()
        found = await self._starter.start(start)
        return AsyncRun(self, found, start, kind, now if run_id is None and found is start.run_id else None)

    async def start_many(
        self,
        workflow: AnyWorkflow,
        inputs: Sequence[Any],
        *,
        keys: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        ttl: Duration | None = None,
    ) -> list[AsyncRun]:
        """Start many runs of one workflow, 1,000 to a statement; much faster than one by one.

        Raises:
            PayloadError: an input does not fit; says which one. Nothing is started then.
            InvalidArgument: `keys` and `inputs` differ in length.
        """
        if keys is not None and len(keys) != len(inputs):
            raise InvalidArgument(
                f"{len(inputs)} inputs but {len(keys)} keys", hint="Give one key for each input, in the same order."
            )
        target = await self._named(workflow) if isinstance(workflow, str) else workflow
        options: dict[str, Any] = {
            "labels": labels,
            "queue": queue,
            "priority": priority,
            "ttl": None if ttl is None else parse_duration(ttl, what="ttl"),
            "key_ttl": None,
            "run_id": None,
        }
        starts = []
        for i, value in enumerate(inputs):
            try:
                start = prepare(target, value, key=keys[i] if keys else None, **options)
            except PayloadError as exc:
                raise PayloadError(f"inputs[{i}]: {exc.message}", hint=exc.hint, **exc.facts, index=i) from exc
            starts.append(start)
        now = asyncio.get_running_loop().time()
        ids = await self._starter.start_many(starts)
        kind = None if isinstance(workflow, str) else workflow
        return [
            AsyncRun(self, run_id, start, kind, now if run_id is start.run_id else None)
            for start, run_id in zip(starts, ids, strict=True)
        ]

    async def _prepare(
        self,
        workflow: AnyWorkflow,
        value: Any,
        key: str | None,
        labels: Mapping[str, str] | None,
        queue: str | None,
        priority: int | None,
        ttl: Duration | None,
        key_ttl: Duration | None,
        run_id: RunRef | None,
    ) -> Start:
        return prepare(
            await self._named(workflow) if isinstance(workflow, str) else workflow,
            value,
            key=key,
            labels=labels,
            queue=queue,
            priority=priority,
            ttl=None if ttl is None else parse_duration(ttl, what="ttl"),
            key_ttl=None if key_ttl is None else parse_duration(key_ttl, what="key_ttl"),
            run_id=None if run_id is None else UUID(str(run_id)),
        )

    async def _named(self, name: str) -> tuple[str, str, Definition]:
        rows = await self._reads.execute("latest_definition", {"workflow": name})
        if not rows:
            known = {row[0] for row in await self._reads.execute("list_definitions")}
            raise WorkflowNotFound(f"no workflow {name!r} has been registered here", hint=nearest(name, known))
        return name, rows[0][0], Definition.from_json(canonical.decode(bytes(rows[0][1])))

    # -- looking -----------------------------------------------------------------------------------------

    async def get_run(self, run: RunRef, workflow: Workflow | None = None) -> AsyncRun:
        """A run by its id, a unique prefix or suffix of it, or `last`. `workflow` makes its output typed.

        Raises:
            RunNotFound, AmbiguousRun
        """
        run_id = await self.find(run)
        return AsyncRun(self, run_id, await self._reader.run(run_id), workflow)

    async def find(self, run: RunRef) -> UUID:
        """The id that `run` means. Raises RunNotFound, AmbiguousRun."""
        return run if isinstance(run, UUID) else await self._reader.find(run)

    async def list(
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
    ) -> list[AsyncRun]:
        """Runs, newest first. For the next page pass the last id of this one as `before`.

        Raises:
            InvalidArgument: an unknown status, or a limit outside 1 to 1,000.
        """
        if not 1 <= limit <= 1000:
            raise InvalidArgument(
                f"limit={limit}: must be between 1 and 1,000",
                hint="For more, ask for the next page: before=<the last id of this one>.",
            )
        wanted = [status] if isinstance(status, str) else status
        infos = await self._reader.list_runs(
            workflow=workflow,
            statuses=None if wanted is None else [read_run_status(s).value for s in wanted],
            key=key,
            labels=labels,
            since=since,
            until=until,
            before=None if before is None else UUID(str(before)),
            limit=limit,
        )
        return [AsyncRun(self, info.id, info) for info in infos]

    async def events(self, run: RunRef, *, after: int = 0, limit: int | None = None) -> Sequence[Recorded]:
        """The events of a run with seq greater than `after`."""
        run_id = await self.find(run)
        upto = 2**31 - 1 if limit is None else after + limit
        found = await self._reader.events(run_id, after, upto)
        if not found and after == 0:
            await self._reader.run(run_id)  # raises RunNotFound
        return found

    async def state(self, run: RunRef, *, at: int | None = None) -> RunState:
        """The state of a run after event `at` (default: now): the fold of its events up to there."""
        if at is not None and at < 0:
            raise InvalidArgument(f"at={at}: seq counts from 1; 0 is the moment before the first event")
        return await self._reader.state(await self.find(run), at)

    async def wait(self, run: RunRef, timeout: Duration | None = None) -> AsyncRun:
        """Wait until a run has ended. Raises WaitTimeout, RunNotFound."""
        return await (await self.get_run(run)).wait(timeout)

    async def result(self, run: RunRef, timeout: Duration | None = None) -> Any:
        """Wait and return the output; raises as `AsyncRun.result` does."""
        return await (await self.get_run(run)).result(timeout)

    # -- changing ----------------------------------------------------------------------------------------

    async def cancel(
        self, run: RunRef, reason: str = "cancelled by the client", *, author: str | None = None
    ) -> RunStatus:
        """Ask for a run to stop. Returns its status afterwards.

        A run that no worker has begun is CANCELLED at once. Otherwise nothing new starts, running steps are
        told (`ctx.cancelled`; async ones get a CancelledError) and have KAIROS_CANCEL_GRACE to end; then
        their fences are revoked. Cancelling a run that has ended or is being cancelled changes nothing.
        """
        run_id = await self.find(run)
        command = RequestCancel(author=clean_text(author or _whoami()), reason=clean_text(reason))

        async def tell(conn: Conn, done: Advanced) -> None:
            if done.events:
                await conn.execute(query("wake_run"), {"run_id": run_id})
                await conn.execute(query("notify"), {"channel": "kairos_task", "payload": f"run:{run_id.hex}"})

        async def work(conn: Conn) -> Advanced:
            return await self._history.advance(conn, run_id, [command], within=tell)

        return (await self._writes.run(work)).run.state.status

    async def fork(
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
    ) -> AsyncRun:
        """Start a new run that takes over what another one has done and goes on from one of its steps.

        Every step that is done is inherited by reference, unless it is `from_step` or downstream of it; all else
        runs. The parent does not change, and may go on, have ended in any way, or be a fork itself. The fork has its
        parent's queue, priority and labels; it has no time to live, and no key but the one given here.

        Args:
            from_step: where to go on: this step and what follows it run again.
            set: what to change, by path into the run's input or the output of a step that does not run again:
                `{"input.amount": 5, "reserve.items[0].price": 9.5}`. The place must exist.
            output: step -> an output for it; the step does not run. That may be `from_step` itself, to repair it.
            version: `latest` (of `workflow` if that is given, else the one that workers announced last), `pinned` (the
                parent's), or the beginning of a fingerprint.
            reason, author: kept in the fork's log; the author is the user of this process if left out.
            key: an idempotency key: the same fork with the same key is the same run.
            workflow: the Workflow object; edits are then checked by its types, else by the schemas it was
                registered with.

        Raises:
            RunNotFound, AmbiguousRun
            InvalidArgument: no such step or version; an edit leads nowhere, or is of a step that runs anyway.
            PayloadError: an edited value does not have its type.
            KeyConflict: the key is held by another run.
        """
        planned = await self.plan_fork(
            run, from_step=from_step, set=set, output=output, version=version, reason=reason, author=author, key=key,
            workflow=workflow,
        )  # fmt: skip
        return await self.start_fork(planned)

    async def plan_fork(
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
        """Check all that `fork` checks and tell what it would do; writes nothing. See `fork` and `start_fork`."""
        request = ForkRequest(
            from_step,
            set or {},
            output or {},
            version,
            clean_text(reason),
            clean_text(author or _whoami()),
            key,
            workflow,
        )
        return await self._forker.plan(await self.find(run), request)

    async def start_fork(self, planned: PlannedFork) -> AsyncRun:
        """Start a fork as it was planned; durable when this returns. Starting it twice is starting it once.

        Raises:
            RunNotFound: the parent has been removed since.
            KeyConflict: the key is held by another run.
        """
        run_id = await self._forker.start(planned)
        return AsyncRun(self, run_id, await self._reader.run(run_id), planned.request.workflow)


def _whoami() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
