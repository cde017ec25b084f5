"""`kairos lineage`: which runs continue which, and how each of them went."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.terminal import columns, one_line, out, print_json
from kairos.store.forks import Fork, read_family
from kairos.store.reader import Reader, RunInfo

MAX_RUNS = 500


def show_lineage(name: str, *, url: str | None, as_json: bool) -> int:
    """Print the tree."""

    async def work() -> int:
        async with reading(url) as reader:
            run_id = await reader.find(name)
            forks = await read_family(reader.session, run_id)
            root = forks[0].root_id if forks else run_id
            infos = await _infos(reader, [root, *(fork.run_id for fork in forks)])
            if as_json:
                print_json(document(root, forks, infos))
            else:
                print_tree(out(), root, forks, infos, run_id)
            return exits.OK

    return asyncio.run(work())


async def _infos(reader: Reader, ids: Sequence[UUID]) -> dict[UUID, RunInfo]:
    if len(ids) == 1:
        await reader.run(ids[0])  # raises RunNotFound
    return await reader.runs(ids)


def document(root: UUID, forks: Sequence[Fork], infos: Mapping[UUID, RunInfo]) -> dict[str, object]:
    """The tree as JSON: a list of runs, parents first, each with what it is a fork of."""
    entries = [(root, None), *((fork.run_id, fork) for fork in forks)]
    return {
        "root": str(root),
        "runs": [
            {"run": infos[run_id].to_json(), "fork": None if fork is None else fork.to_json()}
            for run_id, fork in entries
            if run_id in infos
        ],
    }


def print_tree(console: Console, root: UUID, forks: Sequence[Fork], infos: Mapping[UUID, RunInfo], asked: UUID) -> None:
    """Each run below the one that it continues; the one that was asked for is marked."""
    is_short = console.is_terminal or console.width < 100
    tree = Tree(_line(infos.get(root), root, None, root == asked and bool(forks), is_short))
    branches = {root: tree}
    for fork in forks[:MAX_RUNS]:
        # In order of their ids: made after its parent. A clock that went back may not hide a run.
        above = branches.get(fork.parent_id, tree)
        line = _line(infos.get(fork.run_id), fork.run_id, fork, fork.run_id == asked, is_short)
        branches[fork.run_id] = above.add(line)
    if columns(console) is None:
        console.width = 10_000  # lines stay whole where nobody's terminal ends
    console.print(tree)
    if not forks:
        console.print("no forks: `kairos fork RUN --from STEP` makes one", style="dim")
    elif len(forks) > MAX_RUNS:
        console.print(f"and {len(forks) - MAX_RUNS:,} more forks; --json shows all", style="dim")


def _line(info: RunInfo | None, run_id: UUID, fork: Fork | None, is_asked: bool, is_short: bool) -> Text:
    name = words.short_id(run_id) if is_short else str(run_id)
    line = Text(no_wrap=True, overflow="ellipsis")
    if fork is None and info is not None:
        line.append(f"{one_line(info.workflow)}  ", "bold")
    line.append(name, "bold cyan" if is_asked else "cyan")
    if info is None:
        return line.append("  is gone", "dim")
    line.append("  ").append_text(words.status_text(info.status))
    if fork is not None:
        line.append(f"  from {one_line(fork.from_step, 40)}")
        why = f": {one_line(fork.reason, 80)}" if fork.reason else ""
        line.append(f"  {words.ago(fork.at, words.now())} by {one_line(fork.author, 40)}{why}", "dim")
    else:
        line.append(f"  {words.ago(info.created_at, words.now())}", "dim")
    if info.reason:
        line.append(f"  {one_line(info.reason, 100)}", "red" if info.failed_steps else "dim")
    return line.append("  <- this run", "bold") if is_asked else line
