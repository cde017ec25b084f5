"""Forks of runs: one service behind the clients, the command line and the debugger.

A fork is planned first, and nothing is written: what is reused, what runs, whether the edits fit. Starting it is one
transaction, whose first act is to lock the parent's head against retention (and against nothing else: it may run on).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from kairos.client.edited import Checker
from kairos.client.starting import Start, check_text, holders_of, key_params, new_run_id, resolve, start_params
from kairos.domain import canonical
from kairos.domain.editing import Edit, apply_edits, read_edits, value_at
from kairos.domain.events import RunScheduled
from kairos.domain.fingerprint import Definition
from kairos.domain.forking import ForkPlan, Parent, fork_events, plan_fork
from kairos.domain.payload import INLINE_MAX, Payload
from kairos.domain.projection import RunState
from kairos.errors import InvalidArgument, RunNotFound, WorkflowNotFound
from kairos.store import arrays
from kairos.store.batch import Batch
from kairos.store.codec import encode, first_hash
from kairos.store.connect import Session
from kairos.store.drive import OpenRun
from kairos.store.failpoints import failpoint
from kairos.store.forks import load_parent
from kairos.store.history import Conn, Definitions, fetch_payloads, flush, put_definition
from kairos.store.queries import query

if TYPE_CHECKING:
    from kairos.authoring import Workflow

LATEST: Literal["latest"] = "latest"
PINNED: Literal["pinned"] = "pinned"


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """What is asked for; see `AsyncClient.fork`."""

    from_step: str
    set: Mapping[str, Any]
    output: Mapping[str, Any]
    version: str
    reason: str
    author: str
    key: str | None
    workflow: Workflow | None


@dataclass(frozen=True, slots=True)
class PlannedFork:
    """A fork that has not been started: everything about it is checked.

    Attributes:
        run_id: the id that it will have.
        plan: which steps are reused, given, run.
        fingerprint: the version that it will run; `is_pinned`: that is its parent's.
        is_announced: whether a worker has ever had that version.
        latest: the version that workers announced last; None if there is none.
        payloads: what was edited, as it will be stored: step -> its output, None -> the input.
    """

    run_id: UUID
    plan: ForkPlan
    definition: Definition
    fingerprint: str
    payloads: Mapping[str | None, Payload]
    request: ForkRequest
    is_announced: bool = True
    latest: str | None = None

    @property
    def parent(self) -> Parent:
        """The run that is forked, as it stood."""
        return self.plan.parent

    @property
    def is_pinned(self) -> bool:
        """Whether it runs the version of its parent."""
        return self.fingerprint == self.parent.scheduled.fingerprint

    @property
    def edits(self) -> dict[str, Any]:
        """What was changed, by path, as it is stored (thus redacted); a long value by its hash and size."""
        found: dict[str, Any] = {}
        for edit in self.plan.edits:
            payload = self.payloads[edit.step]
            value = value_at(canonical.decode(payload.data or b"null"), edit)
            raw = canonical.encode_trusted(value)
            is_long = len(raw) > INLINE_MAX
            found[edit.path] = {"sha256": sha256(raw).hexdigest(), "size": len(raw)} if is_long else value
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        plan = self.plan
        return {
            "parent": plan.parent.run_id,
            "parent_seq": plan.parent.seq,
            "root": plan.parent.root,
            "workflow": plan.parent.scheduled.workflow,
            "from_step": plan.from_step,
            "version": self.fingerprint,
            "is_pinned": self.is_pinned,
            "is_announced": self.is_announced,
            "reused": {name: origin.run for name, origin in plan.reused.items()},
            "overridden": list(plan.overridden),
            "runs": dict(plan.runs),
            "stale": list(plan.stale),
            "notes": plan.notes,
            "edits": self.edits,
            "reason": self.request.reason,
            "author": self.request.author,
        }


class Forker:
    """Plans and starts forks through one session."""

    def __init__(self, session: Session, definitions: Definitions, *, notify: bool = True) -> None:
        self._session, self._definitions, self._notify = session, definitions, notify

    async def plan(self, run_id: UUID, request: ForkRequest) -> PlannedFork:
        """Read the parent, work out what becomes of each step, check the edits. Writes nothing.

        Raises:
            RunNotFound: there is no such run.
            InvalidArgument: no such step or version; an edit that leads nowhere or makes no sense.
            PayloadError: an edited value does not have its type.
        """
        return await self._session.run(lambda conn: self._plan(conn, run_id, request))

    async def _plan(self, conn: Conn, run_id: UUID, request: ForkRequest) -> PlannedFork:
        if request.key is not None:
            check_text(request.key, "the key")
        parent = await load_parent(conn, run_id)
        fingerprint = await self._version(conn, parent, request)
        workflow = request.workflow
        if workflow is not None and workflow.fingerprint == fingerprint:
            self._definitions.add(fingerprint, workflow.definition)
        else:
            workflow = None
        definition = await self._definitions.get(conn, fingerprint)
        edits = read_edits(request.set, request.output, definition.graph.steps)
        try:
            plan = plan_fork(parent, definition.graph, request.from_step, edits)
        except InvalidArgument as exc:
            await self._explain(conn, exc, parent, fingerprint, request.from_step)
            raise
        payloads = await _edited(conn, plan, Checker(definition, workflow))
        return PlannedFork(
            new_run_id(), plan, definition, fingerprint, payloads, request,
            is_announced=await self._is_announced(conn, fingerprint), latest=await self._latest(conn, parent),
        )  # fmt: skip

    async def _is_announced(self, conn: Conn, fingerprint: str) -> bool:
        row = await (await conn.execute(query("is_announced"), {"fingerprint": fingerprint})).fetchone()
        return bool(row and row[0])

    async def _latest(self, conn: Conn, parent: Parent) -> str | None:
        found = {"workflow": parent.scheduled.workflow}
        row = await (await conn.execute(query("latest_fingerprint"), found)).fetchone()
        return None if row is None else str(row[0])

    async def _version(self, conn: Conn, parent: Parent, request: ForkRequest) -> str:
        """The fingerprint of the version to run."""
        name, workflow = parent.scheduled.workflow, request.workflow
        if workflow is not None and workflow.name != name:
            raise InvalidArgument(f"run {parent.run_id} is of workflow {name!r}, not of {workflow.name!r}")
        if request.version == PINNED:
            return parent.scheduled.fingerprint
        if request.version == LATEST:
            if workflow is not None:
                return workflow.fingerprint
            latest = await self._latest(conn, parent)
            if latest is None:
                raise WorkflowNotFound(f"no version of workflow {name!r} is registered here")
            return latest
        if workflow is not None and workflow.fingerprint.startswith(request.version) and request.version:
            return workflow.fingerprint
        params = {"workflow": name, "prefix": request.version}
        found = [row[0] for row in await (await conn.execute(query("find_fingerprints"), params)).fetchall()]
        if len(found) != 1 or not request.version:
            how = "several versions" if found else "no version"
            raise InvalidArgument(
                f"version={request.version!r} means {how} of workflow {name!r}",
                hint="Give latest, pinned, or the beginning of a fingerprint: `kairos workflows` lists them.",
                version=request.version,
            )
        return str(found[0])

    async def _explain(self, conn: Conn, exc: InvalidArgument, parent: Parent, fingerprint: str, step: str) -> None:
        """A step that the run has but the version does not: say so."""
        if parent.scheduled.fingerprint != fingerprint:
            own = await self._definitions.get(conn, parent.scheduled.fingerprint)
            chosen = await self._definitions.get(conn, fingerprint)
            if step in own.graph.steps and step not in chosen.graph.steps:
                exc.hint = f"Version {fingerprint[:8]} no longer has it. The run's own has: version pinned. {exc.hint}"

    async def start(self, planned: PlannedFork) -> UUID:
        """Start a planned fork; durable when this returns. Its id, or that of the fork which holds its key.

        Raises:
            RunNotFound: the parent has been removed since.
            KeyConflict: the key is held by another run.
        """
        found = await self._session.run(lambda conn: self._write(conn, planned))
        failpoint("after_commit")
        return found

    async def _write(self, conn: Conn, planned: PlannedFork) -> UUID:
        parent, request = planned.parent, planned.request
        parent_id = UUID(parent.run_id)
        if request.workflow is not None and request.workflow.fingerprint == planned.fingerprint:
            await put_definition(conn, planned.fingerprint, planned.definition)
        async with conn.transaction():
            locked = await (await conn.execute(query("lock_parent"), {"run_id": parent_id})).fetchone()
            if locked is None:
                raise RunNotFound(f"run {parent.run_id} was removed before it could be forked", run_id=parent.run_id)
            blobs = {p.sha256: p.data for p in planned.payloads.values() if p.sha256 is not None and p.data is not None}
            if blobs:
                digests = arrays.byteas([bytes.fromhex(digest) for digest in blobs])
                await conn.execute(query("put_blobs"), {"digests": digests, "datas": arrays.byteas([*blobs.values()])})
            now = (await (await conn.execute(query("read_clock"))).fetchone() or (None,))[0]
            assert now is not None
            start = _start_of(planned)
            failpoint("before_append")
            cursor = await conn.execute(query("start_runs"), start_params([start], now, notify=self._notify))
            created = {row[0] for row in await cursor.fetchall()}
            if start.run_id not in created:
                # Written by an earlier try whose reply was lost, or its key is held.
                keys = key_params([start])
                held = await (await conn.execute(query("find_keys"), keys)).fetchall() if keys else []
                return resolve(start, created, holders_of(held))
            await flush(conn, _rest(planned, start, now).params())
            await conn.execute(query("put_fork"), _row(planned, now))
            needed = {parent.run_id, *(origin.run for origin in planned.plan.reused.values())}
            params = {"holder": start.run_id, "run_ids": sorted(UUID(run) for run in needed)}
            await conn.execute(query("hold_for_fork"), params)
            failpoint("before_commit")
        return start.run_id


def _rest(planned: PlannedFork, start: Start, now: datetime) -> Batch:
    """What follows the first event of the fork. It is not folded: only where its log ends matters here."""
    given = {step: payload for step, payload in planned.payloads.items() if step is not None}
    events = fork_events(planned.plan, given, planned.edits, planned.request.author, planned.request.reason)
    rows = [encode(_scheduled(start), 1, now, first_hash(start.run_id))]
    for seq, event in enumerate(events, 2):
        rows.append(encode(event, seq, now, rows[-1].hash))
    end = RunState(start.run_id, planned.definition.graph, seq=len(rows))
    batch = Batch()
    batch.add(OpenRun(end, rows[-1].hash), 1, rows[1:])
    return batch


def _start_of(planned: PlannedFork) -> Start:
    """The fork as a start. Queue, priority and labels are its parent's; key and time to live are not."""
    given, request = planned.parent.scheduled, planned.request
    return Start(
        run_id=planned.run_id,
        workflow=given.workflow,
        fingerprint=planned.fingerprint,
        definition=planned.definition,
        input=planned.payloads.get(None, given.input),
        queue=given.queue,
        priority=given.priority,
        key=request.key,
        labels=given.labels,
        ttl=None,
        trigger="fork",
        identity=_identity(planned) if request.key is not None else None,
    )


def _scheduled(start: Start) -> RunScheduled:
    return RunScheduled(
        workflow=start.workflow,
        fingerprint=start.fingerprint,
        input=start.input,
        queue=start.queue,
        priority=start.priority,
        trigger=start.trigger,
        key=start.key,
        labels=start.labels,
    )


def _identity(planned: PlannedFork) -> str:
    """What makes two forks with one key the same: all that was asked for, but not how far the parent had come."""
    request = planned.request
    edits = {edit.path: edit.value for edit in planned.plan.edits}
    asked = [planned.parent.run_id, request.from_step, edits, request.version]
    return sha256(canonical.encode(asked)).hexdigest()


def _row(planned: PlannedFork, now: datetime) -> dict[str, Any]:
    parent, request = planned.parent, planned.request
    return {
        "run_id": planned.run_id,
        "parent_id": UUID(parent.run_id),
        "root_id": UUID(parent.root),
        "parent_seq": parent.seq,
        "from_step": planned.plan.from_step,
        "at": now,
        "author": request.author,
        "reason": request.reason,
    }


async def _edited(conn: Conn, plan: ForkPlan, checker: Checker) -> dict[str | None, Payload]:
    """The new values, checked: by step, the input under None. Only what is edited is read."""
    by_target: dict[str | None, list[Edit]] = {}
    for edit in plan.edits:
        by_target.setdefault(edit.step, []).append(edit)
    found: dict[str | None, Payload] = {}
    for step, edits in by_target.items():
        old = None
        if not edits[0].is_whole:
            held = plan.parent.scheduled.input if step is None else plan.parent.outputs[step].payload
            old = canonical.decode(await _bytes_of(conn, held))
        value = apply_edits(old, edits)
        found[step] = checker.input(value) if step is None else checker.output(step, value)
        _check_kept(found[step], edits)
    return found


async def _bytes_of(conn: Conn, payload: Payload) -> bytes:
    if payload.data is not None:
        return payload.data
    return (await fetch_payloads(conn, [payload]))[payload.digest]


def _check_kept(payload: Payload, edits: Sequence[Edit]) -> None:
    """A type may drop what it does not know: an edit of that would have no effect, silently."""
    stored = canonical.decode(payload.data or b"null")
    for edit in edits:
        if edit.keys and edit.value is not None and value_at(stored, edit) is None:
            text = f"{edit.path!r} is not kept by its type, so the edit would have no effect"
            raise InvalidArgument(text, path=edit.path)
