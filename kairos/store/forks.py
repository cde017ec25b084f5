"""Reads what forks are made from, and which run continues which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from kairos.domain.forking import KINDS, Origin, Parent, read_parent
from kairos.errors import RunNotFound
from kairos.store.codec import Row, decode, output_of_done
from kairos.store.connect import Session
from kairos.store.history import Conn
from kairos.store.queries import query


@dataclass(frozen=True, slots=True)
class Fork:
    """One row of the table of forks: `run_id` continues `parent_id` from `from_step`."""

    run_id: UUID
    parent_id: UUID
    root_id: UUID
    parent_seq: int
    from_step: str
    at: datetime
    author: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "run_id": str(self.run_id),
            "parent": str(self.parent_id),
            "root": str(self.root_id),
            "parent_seq": self.parent_seq,
            "from_step": self.from_step,
            "at": self.at.isoformat(),
            "author": self.author,
            "reason": self.reason,
        }


async def load_parent(conn: Conn, run_id: UUID) -> Parent:
    """What of a run as it stands now matters to a fork; no output of it is read. Raises RunNotFound."""
    head = await (await conn.execute(query("read_head"), {"run_id": run_id}, prepare=True)).fetchone()
    if head is None:
        raise RunNotFound(f"there is no run {run_id}", run_id=str(run_id))
    params = {"run_id": run_id, "upto": head[1], "kinds": list(KINDS)}
    cursor = await conn.execute(query("read_fork_source"), params, prepare=True)
    parent, done, rest = str(run_id), dict[str, Origin](), list[Row]()
    for row in map(_row, await cursor.fetchall()):
        if row.kind == "step_done" and row.step is not None:
            done[row.step] = Origin(parent, row.seq, *output_of_done(row))
        else:
            rest.append(row)
    return read_parent(parent, head[1], map(decode, rest), done)


def _row(columns: tuple[Any, ...]) -> Row:
    return Row(*columns)


async def read_family(session: Session, run_id: UUID) -> list[Fork]:
    """Every fork in the tree to which a run belongs, in order of their ids; empty if it has none and is none."""
    return [Fork(*row) for row in await session.execute("list_family", {"run_id": run_id})]


async def read_forks_of(session: Session, run_ids: Iterable[UUID]) -> list[Fork]:
    """The forks of these runs, first ones first."""
    return [Fork(*row) for row in await session.execute("list_forks_of", {"run_ids": list(run_ids)})]
