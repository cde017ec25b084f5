"""What must hold after any fault: checked over exported rows and the ledger, by code that shares only the
domain's fold and the definition of the hash with the engine.

Numbers are those of the fault plan: I1 one completion, I2 gap-free and chained, I3 fold == head, I4 fences,
I5 legality, I6 dependencies first, I8 bounded over-execution, I10 nothing lost.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg

from kairos.domain import canonical
from kairos.domain.fingerprint import Definition
from kairos.domain.projection import RunState, apply
from kairos.domain.states import StepStatus
from kairos.store.codec import Row, decode, first_hash, link
from tests.faults.ledger import Entry

_ENDED = ("DONE", "FAILED", "CANCELLED", "EXPIRED")


@dataclass(frozen=True)
class Head:
    """A row of `run`."""

    id: UUID
    fingerprint: str
    epoch: int
    last_seq: int
    hash: bytes
    status: str


@dataclass
class Export:
    """Everything the checker looks at."""

    heads: list[Head]
    events: dict[UUID, list[Row]]
    definitions: dict[str, Definition]
    tasks: list[tuple[Any, ...]]
    failures: set[UUID]
    keys: list[tuple[Any, ...]]
    ledger: list[Entry] = field(default_factory=list)


def export(admin_dsn: str, ledger: Iterable[Entry] = ()) -> Export:
    """One consistent snapshot of the tables."""
    with psycopg.connect(admin_dsn) as conn:
        conn.execute("set transaction isolation level repeatable read")
        heads = [
            Head(*row)
            for row in conn.execute("select id, fingerprint, epoch, last_seq, head_hash, status from kairos.run")
        ]
        events: dict[UUID, list[Row]] = defaultdict(list)
        for row in conn.execute(
            "select run_id, seq, kind, at, step, attempt, token, hash, body from kairos.event order by run_id, seq"
        ):
            events[row[0]].append(Row(*row[1:]))
        definitions = {
            row[0]: Definition.from_json(canonical.decode(bytes(row[1])))
            for row in conn.execute("select fingerprint, body from kairos.definition")
        }
        tasks = conn.execute("select run_id, step, worker from kairos.task").fetchall()
        failures = {row[0] for row in conn.execute("select run_id from kairos.failure")}
        keys = conn.execute("select workflow, key, run_id from kairos.run_key").fetchall()
    return Export(heads, events, definitions, tasks, failures, keys, list(ledger))


def check(data: Export, *, all_ended: bool = True) -> list[str]:
    """Everything that does not hold, in words; an empty list is what tests want."""
    wrong: list[str] = []
    by_step: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in data.ledger:
        by_step[entry.who].append(entry)
    known = {head.id for head in data.heads}
    wrong += [f"events of a run without a head: {run}" for run in data.events if run not in known]
    wrong += [f"a key leads to no run: {key}" for key in data.keys if key[2] not in known]
    wrong += [f"a body ran for an unknown run: {run}" for run, _ in by_step if UUID(run) not in known]
    for head in data.heads:
        try:
            state = _check_log(head, data, wrong)
        except Exception as exc:
            wrong.append(f"{head.id}: I5: {type(exc).__name__}: {exc}")
            continue
        _check_tasks(head, data, wrong, all_ended)
        if data.ledger:
            _check_bodies(head, state, data.events[head.id], by_step, wrong)
    return wrong


def _check_log(head: Head, data: Export, wrong: list[str]) -> RunState:
    rows = data.events[head.id]
    seqs = [row.seq for row in rows]
    if seqs != list(range(1, head.last_seq + 1)):
        wrong.append(f"{head.id}: I2: head at {head.last_seq}, events {seqs}")
    previous = first_hash(head.id)
    for row in rows:
        previous = link(previous, row.seq, row.kind, row.at, row.step, row.attempt, row.token, bytes(row.body))
        if previous != bytes(row.hash):
            wrong.append(f"{head.id}: I2: the chain breaks at seq {row.seq}")
            break
    if rows and bytes(rows[-1].hash) != bytes(head.hash):
        wrong.append(f"{head.id}: I2: the head's hash is not that of its last event")
    state = RunState(head.id, data.definitions[head.fingerprint].graph)
    tokens: dict[str, int] = {}
    done_at: dict[str, int] = {}
    for row in rows:
        if row.kind == "step_started":
            _check_start(head, state, row, tokens, done_at, wrong)
        elif row.kind == "step_done":
            if row.step in done_at:
                wrong.append(f"{head.id}: I1: {row.step} is done twice, at {done_at[row.step]} and {row.seq}")
            done_at[str(row.step)] = row.seq
        apply(state, decode(row))
    if state.status.value != head.status:
        wrong.append(f"{head.id}: I3: the head says {head.status}, the fold {state.status}")
    done = {name for name, step in state.steps.items() if step.status is StepStatus.DONE}
    if done != set(done_at):
        wrong.append(f"{head.id}: I1: DONE are {sorted(done)}, step_done events {sorted(done_at)}")
    ends = Counter(row.kind for row in rows)
    if head.status in _ENDED and sum(ends[f"run_{status.lower()}"] for status in _ENDED) != 1:
        wrong.append(f"{head.id}: I5: {ends} end a run that is {head.status}")
    if (head.id in data.failures) != (head.status in _ENDED and head.status != "DONE"):
        wrong.append(
            f"{head.id}: I3: {head.status}, and it has {'a' if head.id in data.failures else 'no'} failure row"
        )
    return state


def _check_start(
    head: Head, state: RunState, row: Row, tokens: dict[str, int], done_at: dict[str, int], wrong: list[str]
) -> None:
    name = str(row.step)
    if (row.token or 0) <= tokens.get(name, 0):
        wrong.append(f"{head.id}: I4: {name} starts with token {row.token} after {tokens[name]}")
    tokens[name] = row.token or 0
    missing = [up for up in state.graph.steps[name].upstream if up not in done_at]
    if missing:
        wrong.append(f"{head.id}: I6: {name} starts at seq {row.seq} before {missing} are done")


def _check_tasks(head: Head, data: Export, wrong: list[str], all_ended: bool) -> None:
    steps = [task[1] for task in data.tasks if task[0] == head.id]
    if head.status in _ENDED:
        if steps:
            wrong.append(f"{head.id}: I10: it is {head.status} and has tasks left: {steps}")
        return
    if all_ended:
        kinds = [row.kind for row in data.events[head.id]][-8:]
        wrong.append(f"{head.id}: I10: it has not ended: {head.status}, last events {kinds}, tasks {steps}")
    if "" not in steps:
        wrong.append(f"{head.id}: I10: it is {head.status} and nothing stands in the queue for it")


def _check_bodies(
    head: Head, state: RunState, rows: list[Row], by_step: dict[tuple[str, str], list[Entry]], wrong: list[str]
) -> None:
    recorded: dict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        if row.kind == "step_started":
            recorded[str(row.step)][row.token or 0] += 1
    for name, step in state.steps.items():
        entries = by_step.get((str(head.id), name), [])
        begins = [e for e in entries if e.what == "begin"]
        _check_begins(head, state, name, begins, recorded[name], wrong)
        if step.status is StepStatus.DONE:
            ended = {e.token for e in entries if e.what == "end"}
            if step.token not in ended:
                wrong.append(f"{head.id}: I1: {name} is DONE by token {step.token}, but only {ended} came to an end")


def _check_begins(
    head: Head, state: RunState, name: str, begins: list[Entry], recorded: Counter[int], wrong: list[str]
) -> None:
    """Each recorded start has at most one body. A root step may begin before its start is recorded: at most
    once for each claim that died before it wrote anything."""
    counts = Counter(e.token for e in begins)
    twice = {token: count for token, count in counts.items() if count > 1}
    if twice:
        wrong.append(f"{head.id}: I4: several bodies of {name} had the same token: {twice}")
    unrecorded = [e for e in begins if not recorded[e.token]]
    allowed = max(head.epoch - 1, 0) if name in state.graph.roots else 0
    if len(unrecorded) > allowed:
        wrong.append(
            f"{head.id}: I8: {len(unrecorded)} bodies of {name} have no step_started (allowed: {allowed}): {unrecorded}"
        )
    bound = 1 + state.steps[name].failures + state.steps[name].losses + allowed
    if len(begins) > bound:
        wrong.append(f"{head.id}: I8: {name} began {len(begins)} times, bound {bound}")
