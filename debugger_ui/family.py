"""The tree of forks that a run belongs to, and where its branches are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from debugger_ui.ui import Ui
from kairos.store.forks import Fork, read_family, read_forks_of
from kairos.store.reader import RunInfo

MAX_RUNS: Final = 500
ROW: Final = 44
"""Height of a row in CSS pixels; the drawing and the rows beside it share it."""
COLUMN: Final = 20
MAX_COLUMNS: Final = 16
"""A branch that is deeper is drawn in the last column: its lines still tell where it comes from."""


@dataclass(frozen=True, slots=True)
class Member:
    """One run of the family.

    Attributes:
        info: None if the run is gone; `fork`: None for the root.
        depth: how many forks lie between it and the root.
        row: its place in the drawing, from the top; `above`: that of its parent.
    """

    run_id: UUID
    info: RunInfo | None
    fork: Fork | None
    depth: int
    row: int
    above: int | None

    @property
    def x(self) -> int:
        """Centre of its mark."""
        return 12 + min(self.depth, MAX_COLUMNS) * COLUMN

    @property
    def y(self) -> int:
        """Centre of its mark."""
        return self.row * ROW + ROW // 2


@dataclass(frozen=True, slots=True)
class Family:
    """The tree. `hidden`: forks beyond `MAX_RUNS`, the newest."""

    root: UUID
    members: list[Member]
    hidden: int

    @property
    def width(self) -> int:
        """Of the drawing, in CSS pixels."""
        return max((member.x for member in self.members), default=12) + 14

    @property
    def height(self) -> int:
        """Of the drawing, in CSS pixels."""
        return len(self.members) * ROW

    @property
    def lines(self) -> list[tuple[str, Member]]:
        """Path of each branch, and the run that it leads to."""
        found = []
        for member in self.members:
            if member.above is not None:
                above = self.members[member.above]
                bend = min(8, max(member.x - above.x, 0))
                found.append(
                    (f"M{above.x} {above.y + 7}V{member.y - bend}q0 {bend} {bend} {bend}H{member.x - 7}", member)
                )
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain JSON: a list of runs, parents first, each with what it is a fork of."""
        return {
            "root": str(self.root),
            "runs": [
                {
                    "id": str(member.run_id),
                    "run": None if member.info is None else member.info.to_json(),
                    "fork": None if member.fork is None else member.fork.to_json(),
                }
                for member in self.members
            ],
            "hidden": self.hidden,
        }


async def read_tree(ui: Ui, run_id: UUID) -> Family:
    """The family of a run. Raises RunNotFound."""
    async with ui.reads.reader() as reader:
        forks = await read_family(reader.session, run_id)
        root = forks[0].root_id if forks else run_id
        shown = forks[:MAX_RUNS]
        infos = await reader.runs([root, *(fork.run_id for fork in shown)])
        if run_id not in infos:
            infos[run_id] = await reader.run(run_id)
    return arrange(root, shown, infos, len(forks) - len(shown))


def arrange(root: UUID, forks: list[Fork], infos: Mapping[UUID, RunInfo], hidden: int = 0) -> Family:
    """The tree, each run directly above what was forked from it; forks of one run in the order of their making."""
    known = {root, *(fork.run_id for fork in forks)}
    below: dict[UUID, list[Fork]] = {}
    for fork in forks:
        # A parent that is gone: its forks hang on the root, so that none is lost.
        below.setdefault(fork.parent_id if fork.parent_id in known else root, []).append(fork)
    members: list[Member] = []
    waiting: list[tuple[UUID, Fork | None, int, int | None]] = [(root, None, 0, None)]
    while waiting:
        run_id, fork_, depth, above = waiting.pop()
        row = len(members)
        members.append(Member(run_id, infos.get(run_id), fork_, depth, row, above))
        waiting += [(f.run_id, f, depth + 1, row) for f in reversed(below.get(run_id, []))]
    return Family(root, members, hidden)


async def count_forks(ui: Ui, run_id: UUID) -> int:
    """How many forks were made of a run; of one in a file, nobody knows."""
    if ui.file is not None:
        return 0
    async with ui.reads.reader() as reader:
        return len(await read_forks_of(reader.session, [run_id]))
