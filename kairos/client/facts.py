"""Reads the facts that a diagnosis needs: workers, tasks, versions, the clock of the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kairos.diagnosis import RunFacts, TaskFact, WorkerFact
from kairos.domain import canonical
from kairos.domain.projection import RunState
from kairos.store.reader import Reader


@dataclass(frozen=True, slots=True)
class QueueFact:
    """Tasks of one workflow and version that wait in one queue. `is_served`: some live worker would take them."""

    workflow: str
    queue: str
    fingerprint: str
    waiting: int
    oldest: datetime
    is_served: bool


async def run_facts(reader: Reader, state: RunState) -> RunFacts:
    """What is known about a run in this state right now."""
    run_id = state.run_id
    tasks = [_task(row) for row in await reader.session.execute("get_tasks", {"run_id": run_id})]
    workers = await read_workers(reader)
    now = (await reader.session.execute("read_clock"))[0][0]
    fingerprints = {f for w in workers for f in w.fingerprints}
    waiting = 0
    for row in await reader.session.execute("waiting_by_queue"):
        waiting += row[3] if row[1] == state.queue else 0
    found = [] if tasks else await reader.session.execute("find_import", {"run_id": run_id})
    imported = found[0][0] if found else None
    return RunFacts(state, tasks, workers, now, await read_versions(reader, fingerprints), waiting, imported)


async def read_workers(reader: Reader, *, with_ended: bool = False) -> list[WorkerFact]:
    """Workers that are live, draining, or still hold something; `with_ended`: all that are remembered."""
    rows = await reader.session.execute("list_workers", {"ended": with_ended})
    return [worker_fact(row) for row in rows]


async def read_queues(reader: Reader) -> list[QueueFact]:
    """What waits, by workflow, queue and version; the oldest first."""
    rows = await reader.session.execute("waiting_by_queue")
    facts = [QueueFact(row[0], row[1], row[2], row[3], row[4], bool(row[7])) for row in rows]
    return sorted(facts, key=lambda fact: fact.oldest)


def worker_fact(row: Sequence[Any]) -> WorkerFact:
    """One row of `list_workers`."""
    report = read_report(row[13])
    return WorkerFact(
        id=str(row[0]),
        name=row[1],
        state=row[12],
        queues=tuple(row[6]),
        fingerprints=frozenset(row[7]),
        beat_at=row[10],
        lease_until=row[11],
        is_live=row[12] == "live" and bool(row[14]),
        concurrency=row[8],
        running=report.get("running", 0),
    )


def read_report(raw: bytes | None) -> dict[str, Any]:
    """What a worker says about itself with each heartbeat; empty if it cannot be read."""
    try:
        data = canonical.decode(bytes(raw or b"{}"))
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


async def read_versions(reader: Reader, fingerprints: set[str]) -> dict[str, str]:
    """fingerprint -> workflow, of these definitions."""
    rows = await reader.session.execute("workflows_of_versions", {"fingerprints": sorted(fingerprints)})
    return {row[0]: row[1] for row in rows}


def _task(row: Sequence[Any]) -> TaskFact:
    state = row[10]
    return TaskFact(
        step=row[1],
        queue=row[2],
        ready_at=row[4],
        expires_at=row[5],
        fingerprint=row[7],
        worker=row[9] if state is not None else None,
        worker_state=state,
        lease_until=row[11],
        is_leased=bool(row[12]) and state in ("live", "draining"),
        lost_by=row[14],
        killed_by=read_report(row[15]).get("signal"),
    )
