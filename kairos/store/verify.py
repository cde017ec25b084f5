"""Checks that what is stored is what happened: chain, seq, legality, and the projection against the fold.

Tamper-evident, not tamper-proof: whoever can rewrite a whole run and its head leaves no trace here. Keep a
copy of heads elsewhere if that matters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from psycopg import IsolationLevel

from kairos.domain import canonical
from kairos.domain.events import RunScheduled, StepDone
from kairos.domain.fingerprint import Definition, fingerprint
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState, apply
from kairos.domain.states import RunStatus
from kairos.errors import KairosError, RunNotFound
from kairos.store.codec import Row, decode, first_hash, link
from kairos.store.connect import Session
from kairos.store.history import Conn
from kairos.store.queries import query

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it should be; `seq` is the first event concerned, None if it is not an event."""

    check: str
    what: str
    seq: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"check": self.check, "seq": self.seq, "what": self.what}


@dataclass(slots=True)
class Verdict:
    """What was found about one run."""

    run_id: UUID
    events: int = 0
    status: str | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "run": str(self.run_id),
            "status": self.status,
            "events": self.events,
            "clean": self.is_clean,
            "problems": [problem.to_json() for problem in self.problems],
        }


async def verify_run(session: Session, run_id: UUID) -> Verdict:
    """Check one run, in one snapshot, so that a worker that goes on meanwhile does not disturb.

    Raises:
        RunNotFound: there is neither a head nor an event.
    """

    async def work(conn: Conn) -> Verdict:
        await conn.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        try:
            async with conn.transaction():
                return await _verify(conn, run_id)
        finally:
            await conn.set_isolation_level(None)

    return await session.run(work)


async def verify_all(session: Session) -> AsyncIterator[Verdict]:
    """Check every run, oldest first, and that no events lie about without a run."""
    after: UUID | None = None
    while True:
        rows = await session.execute("list_run_ids", {"after": after, "take": _PAGE})
        for (run_id,) in rows:
            yield await verify_run(session, run_id)
            after = run_id
        if len(rows) < _PAGE:
            break
    for run_id, last in await session.execute("events_without_run", {"take": 1000}):
        problem = Problem("head", f"{last} events have no head: the run's row is gone", 1)
        yield Verdict(run_id, last, None, [problem])


async def _verify(conn: Conn, run_id: UUID) -> Verdict:
    head = await (await conn.execute(query("verify_head"), {"run_id": run_id})).fetchone()
    found = await (await conn.execute(query("verify_events"), {"run_id": run_id})).fetchall()
    rows = [Row(*row) for row in found]
    verdict = Verdict(run_id, len(rows), head[9] if head else None)
    if head is None:
        if not rows:
            raise RunNotFound(f"there is no run {run_id}", run_id=str(run_id))
        verdict.problems.append(Problem("head", f"{len(rows)} events have no head: the run's row is gone", 1))
        return verdict
    problems = verdict.problems
    problems += check_chain(run_id, rows)
    problems += _check_tail(rows, last_seq=head[7], head_hash=bytes(head[8]))
    if head[11] is None:
        problems.append(Problem("definition", f"definition {head[1]} is missing"))
        return verdict
    definition = Definition.from_json(canonical.decode(bytes(head[11])))
    if fingerprint(definition) != head[1]:
        problems.append(Problem("definition", f"definition {head[1]} does not have that fingerprint any more"))
    state, bad = fold_strictly(RunState(run_id, definition.graph), rows)
    problems += bad
    if not bad:
        problems += _check_projection(state, rows, head)
        problems += await _check_payloads(conn, rows)
    return verdict


def check_chain(run_id: UUID, rows: Iterable[Row]) -> list[Problem]:
    """Seq without a gap from 1, and every hash that of its event on top of the one before. Stops at the first."""
    previous, expected = first_hash(run_id), 1
    for row in rows:
        if row.seq != expected:
            return [Problem("seq", f"event {expected} is missing: the next one is {row.seq}", expected)]
        digest = link(previous, row.seq, row.kind, row.at, row.step, row.attempt, row.token, bytes(row.body))
        if digest != bytes(row.hash):
            return [
                Problem("chain", f"event {row.seq} ({row.kind}) is not what was hashed when it was written", row.seq)
            ]
        previous, expected = digest, expected + 1
    return []


def fold_strictly(state: RunState, rows: Iterable[Row]) -> tuple[RunState, list[Problem]]:
    """Fold, naming the first event that cannot be read or that no state machine allows."""
    for row in rows:
        try:
            apply(state, decode(row))
        except KairosError as exc:
            return state, [Problem("legality", exc.message, row.seq)]
    return state, []


def _check_tail(rows: list[Row], *, last_seq: int, head_hash: bytes) -> list[Problem]:
    seen = rows[-1].seq if rows else 0
    if seen < last_seq:
        return [Problem("truncated", f"the log ends at {seen}, the head says {last_seq}", seen + 1)]
    if seen > last_seq:
        return [Problem("head", f"the log goes on to {seen}, the head says {last_seq}", last_seq + 1)]
    if rows and bytes(rows[-1].hash) != head_hash:
        return [Problem("head", "the last event does not have the hash that the head says", seen)]
    return []


def _check_projection(state: RunState, rows: list[Row], head: tuple[Any, ...]) -> list[Problem]:
    stored = {
        "workflow": head[0],
        "fingerprint": head[1],
        "queue": head[2],
        "priority": head[3],
        "key": head[4],
        "labels": head[5] or {},
        "status": head[9],
        "created_at": head[10],
    }
    folded = {
        "workflow": state.workflow,
        "fingerprint": state.fingerprint,
        "queue": state.queue,
        "priority": state.priority,
        "key": state.key,
        "labels": dict(state.labels),
        "status": state.status.value,
        "created_at": state.scheduled_at,
    }
    problems = [
        Problem("projection", f"{name} is stored as {stored[name]!r}, the log folds to {folded[name]!r}")
        for name in stored
        if stored[name] != folded[name]
    ]
    if not state.status.is_terminal and not head[12]:
        problems.append(Problem("task", f"the run is {state.status} but has no task: nobody will ever take it"))
    if state.status.is_terminal and head[12]:
        problems.append(Problem("task", f"the run is {state.status} but still has a task"))
    ended_badly = state.status in (RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.EXPIRED)
    if (head[13] is not None) != ended_badly or (ended_badly and head[13] != state.status.value):
        problems.append(Problem("failure", f"the run is {state.status}, its row among the failures says {head[13]}"))
    return problems


async def _check_payloads(conn: Conn, rows: list[Row]) -> list[Problem]:
    wanted: dict[str, tuple[int, Payload]] = {}
    for row in rows:
        event = decode(row).event
        payload = (
            event.output if isinstance(event, StepDone) else event.input if isinstance(event, RunScheduled) else None
        )
        if payload is not None and payload.sha256 is not None:
            wanted.setdefault(payload.sha256, (row.seq, payload))
    if not wanted:
        return []
    params = {"digests": [bytes.fromhex(digest) for digest in wanted]}
    found = {
        bytes(row[0]).hex(): row[1:] for row in await (await conn.execute(query("verify_blobs"), params)).fetchall()
    }
    problems = []
    for digest, (seq, payload) in wanted.items():
        if digest not in found:
            problems.append(Problem("blob", f"payload {digest[:12]} is missing", seq))
        elif not found[digest][0] or found[digest][1] != payload.size:
            problems.append(Problem("blob", f"payload {digest[:12]} is not what was stored", seq))
    return problems
