"""Whether one run's rows and head are what they must be. Pure: `verify` reads them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from kairos.domain.events import (
    EffectRecorded,
    Event,
    Recorded,
    RunDone,
    RunScheduled,
    StepDone,
    StepOverridden,
    StepsInherited,
    output_in,
)
from kairos.domain.fingerprint import Definition
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState, apply
from kairos.domain.states import StepStatus
from kairos.errors import KairosError
from kairos.store.codec import Row, decode, first_hash, link


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it must be.

    Attributes:
        code: a stable word: `gap`, `chain`, `reordered`, `truncated`, `beyond_head`, `head_hash`, `unreadable`,
            `illegal`, `projection`, `blob`, `definition`, `task`, `failure`, `output`, `orphan`, `fork`, `origin`.
        seq: the first event concerned, if it is about one.
    """

    run_id: UUID
    code: str
    message: str
    seq: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"run_id": str(self.run_id), "code": self.code, "seq": self.seq, "message": self.message}


@dataclass(slots=True)
class Report:
    """What was checked and what was found."""

    runs: int = 0
    events: int = 0
    blobs: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        problems = [problem.to_json() for problem in self.problems]
        return {
            "ok": self.is_clean,
            "runs": self.runs,
            "events": self.events,
            "blobs": self.blobs,
            "problems": problems,
        }


@dataclass(frozen=True, slots=True)
class Head:
    """A run's row, and what stands beside it in the same snapshot."""

    run_id: UUID
    created_at: datetime
    workflow: str
    fingerprint: str
    queue: str
    priority: int
    key: str | None
    labels: dict[str, str]
    last_seq: int
    head_hash: bytes
    status: str
    newest: int
    tasks: tuple[str, ...]
    failure: str | None
    parent: UUID | None
    is_imported: bool = False

    @classmethod
    def of(cls, row: Sequence[Any]) -> Head:
        """One row of `verify_heads`."""
        return cls(
            run_id=row[0],
            created_at=row[1],
            workflow=row[2],
            fingerprint=row[3],
            queue=row[4],
            priority=row[5],
            key=row[6],
            labels=row[7] or {},
            last_seq=row[8],
            head_hash=bytes(row[9]),
            status=row[10],
            newest=row[11] or 0,
            tasks=tuple(row[12] or ()),
            failure=row[13],
            parent=row[14],
            is_imported=row[15],
        )


def check_run(
    head: Head,
    rows: Sequence[Row],
    definition: Definition | None,
    report: Report,
    *,
    redacted: Collection[int] = (),
) -> list[tuple[UUID, int, Payload]]:
    """Check a run's rows against its head; adds to `report`, returns the payloads that its events name.

    `redacted`: events of which something was blanked; their own hash is taken as it stands, the chain goes on from it.
    """

    def found(code: str, message: str, seq: int | None = None) -> None:
        report.problems.append(Problem(head.run_id, code, message, seq))

    report.runs += 1
    report.events += len(rows)
    before = len(report.problems)
    for problem in _check_chain(head, rows, redacted):
        found(*problem)
    if len(report.problems) > before or definition is None:
        # On a broken chain everything that follows would be a consequence: one cause, one message.
        return []
    state = RunState(head.run_id, definition.graph)
    payloads: list[tuple[UUID, int, Payload]] = []
    events: dict[int, Recorded] = {}
    for row in rows:
        try:
            recorded = decode(row)
        except KairosError as exc:
            found("unreadable", exc.message, row.seq)
            return payloads
        try:
            apply(state, recorded)
        except KairosError as exc:
            found("illegal", f"the rules do not allow {row.kind} here: {exc.message}", row.seq)
            return payloads
        events[row.seq] = recorded
        payloads += [(head.run_id, row.seq, payload) for payload in payloads_of(recorded.event)]
    checks = (_check_projection(head, state), _check_fork(head, state), _check_tasks(head, state))
    for problem in (*chain.from_iterable(checks), *_check_outputs(events)):
        found(*problem)
    return payloads


def payloads_of(event: Event) -> list[Payload]:
    """The values that an event holds or refers to."""
    match event:
        case RunScheduled():
            return [event.input]
        case StepDone() | StepOverridden():
            return [event.output]
        case EffectRecorded():
            return [payload for payload in (event.arguments, event.result) if payload is not None]
        case StepsInherited():
            return [Payload.inherited(event.run, *entry) for entry in event.outputs.values()]
        case _:
            return []


_Found = tuple[str, str] | tuple[str, str, int]


def _check_chain(head: Head, rows: Sequence[Row], redacted: Collection[int]) -> Iterable[_Found]:
    """Numbering, hashes, and the end of the chain; stops at the first that is wrong."""
    previous = first_hash(head.run_id)
    for expected, row in enumerate(rows, 1):
        if row.seq != expected:
            yield "gap", f"event {expected} is missing; the next one there is {row.seq}", expected
            return
        if row.seq not in redacted and _hash(previous, row) != row.hash:
            yield _broken(previous, row, rows)
            return
        previous = row.hash
    if not rows:
        yield "truncated", f"it has no events at all, its head says {head.last_seq}", 1
    elif rows[-1].seq < head.last_seq:
        first = rows[-1].seq + 1
        yield "truncated", f"events {first} to {head.last_seq} are missing at the end", first
    elif rows[-1].seq > head.last_seq:
        first = head.last_seq + 1
        yield "beyond_head", f"its head says {head.last_seq} events, but there are {rows[-1].seq}", first
    elif previous != head.head_hash:
        yield "head_hash", "the hash in its head is not that of its last event", rows[-1].seq


def _hash(previous: bytes, row: Row, seq: int | None = None) -> bytes:
    return link(previous, seq or row.seq, row.kind, row.at, row.step, row.attempt, row.token, row.body)


def _broken(previous: bytes, row: Row, rows: Sequence[Row]) -> _Found:
    """The chain breaks at `row`: say whether another event stands in its place, or it was changed."""
    for other in rows:
        if other.seq != row.seq and _hash(previous, other, row.seq) == other.hash:
            return "reordered", f"event {row.seq} stands at {other.seq}: events were put in another order", row.seq
    return (
        "chain",
        f"event {row.seq} ({row.kind}), or the one before it, was changed: its hash does not follow",
        row.seq,
    )


def _check_projection(head: Head, state: RunState) -> Iterable[_Found]:
    pairs = (
        ("status", head.status, state.status.value),
        ("last_seq", head.last_seq, state.seq),
        ("workflow", head.workflow, state.workflow),
        ("fingerprint", head.fingerprint, state.fingerprint),
        ("queue", head.queue, state.queue),
        ("priority", head.priority, state.priority),
        ("key", head.key, state.key),
        ("labels", head.labels, dict(state.labels)),
        ("created_at", head.created_at, state.scheduled_at),
    )
    for name, stored, folded in pairs:
        if stored != folded:
            yield "projection", f"the stored {name} is {stored!r}, its events say {folded!r}"
    ended_badly = state.status.is_terminal and state.status != "DONE"
    if (head.failure is not None) != ended_badly or (ended_badly and head.failure != state.status):
        yield "failure", f"it is {state.status}, but the table of failures says {head.failure or 'nothing'}"


def _check_fork(head: Head, state: RunState) -> Iterable[_Found]:
    told = None if state.forked is None else state.forked.parent
    stored = None if head.parent is None else str(head.parent)
    if told != stored:
        yield (
            "fork",
            f"its events say it is a fork of {told or 'nothing'}, the table of forks says {stored or 'nothing'}",
        )


def _check_tasks(head: Head, state: RunState) -> Iterable[_Found]:
    """Promise 1: a run that goes on has a task; one that has ended, or was imported, has none."""
    if state.status.is_terminal or head.is_imported:
        if head.tasks:
            why = "has ended" if state.status.is_terminal else "was imported"
            yield "task", f"it {why} but still has {len(head.tasks)} tasks"
        return
    if "" not in head.tasks:
        yield "task", f"it is {state.status} but has no task: no worker would ever look at it"
    for name in head.tasks:
        if name and (name not in state.steps or state.steps[name].status is StepStatus.PENDING):
            yield "task", f"step {name!r} is offered to workers but is not ready"


def _check_outputs(events: dict[int, Recorded]) -> Iterable[_Found]:
    """The end of a run names the events that hold its outputs."""
    last = events[max(events)].event if events else None
    if not isinstance(last, RunDone):
        return
    for step, seq in last.outputs.items():
        if seq not in events or output_in(events[seq].event, step) is None:
            yield "output", f"the output of {step!r} should be event {seq}, which is something else", max(events)
