"""`kairos workflows`: what is registered, which live workers have it, what waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.grid import Column, print_grid
from kairos.cli.terminal import one_line, out, print_json
from kairos.client.facts import read_workers
from kairos.diagnosis import WorkerFact
from kairos.domain.documents import moment


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a workflow.

    Attributes:
        workers: live workers that have it.
        open: its runs that have not ended; `waiting`: those of them that no worker holds.
        is_newest: whether workers announced it last; `kairos run NAME` starts that one.
    """

    workflow: str
    fingerprint: str
    registered_at: datetime
    workers: int
    open: int
    waiting: int
    is_newest: bool

    @property
    def matters(self) -> bool:
        """Whether to show it: an old version that nobody has and nothing needs does not."""
        return self.is_newest or bool(self.workers or self.open)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "workflow": self.workflow,
            "version": self.fingerprint,
            "registered_at": moment(self.registered_at),
            "workers": self.workers,
            "open": self.open,
            "waiting": self.waiting,
            "newest": self.is_newest,
        }


def list_workflows(*, url: str | None, as_json: bool) -> int:
    """Print versions and workers."""

    async def work() -> int:
        async with reading(url) as reader:
            versions: list[Version] = []
            for row in await reader.session.execute("list_versions"):
                is_newest = not versions or versions[-1].workflow != row[0]
                versions.append(Version(row[0], row[1], row[2], row[3], row[4], row[5], is_newest))
            workers = await read_workers(reader)
            if as_json:
                listed = [_worker_json(worker) for worker in workers]
                print_json({"workflows": [version.to_json() for version in versions], "workers": listed})
            else:
                _print(out(), versions, workers)
            return exits.OK

    return asyncio.run(work())


def _worker_json(worker: WorkerFact) -> dict[str, Any]:
    return {
        "name": worker.name,
        "state": worker.state,
        "live": worker.is_live,
        "queues": list(worker.queues),
        "versions": sorted(worker.fingerprints),
        "concurrency": worker.concurrency,
        "running": worker.running,
        "beat_at": moment(worker.beat_at),
        "lease_until": moment(worker.lease_until),
    }


def _print(console: Console, versions: list[Version], workers: list[WorkerFact]) -> None:
    if not versions:
        console.print("No workflow is registered yet. `kairos dev --app ...` or `kairos worker --app ...` does it.")
        return
    shown = [version for version in versions if version.matters]
    now = words.now()
    columns = [
        Column("WORKFLOW", most=40),
        Column("VERSION"),
        Column("REGISTERED", is_right=True),
        Column("WORKERS", is_right=True),
        Column("OPEN", is_right=True),
        Column("WAITING", is_right=True),
    ]
    print_grid(console, columns, [_row(version, now) for version in shown])
    if len(shown) < len(versions):
        console.print(
            f"and {len(versions) - len(shown)} old versions that nothing needs; --json lists them", style="dim"
        )
    console.print()
    live = [worker for worker in workers if worker.is_live]
    if not live:
        console.print("No worker is running.", style="yellow")
        return
    heads = [Column("WORKER", most=40), Column("SLOTS", is_right=True), Column("BEAT", is_right=True), Column("QUEUES")]
    rows = [
        [
            Text(one_line(worker.name)),
            Text(f"{worker.running}/{worker.concurrency}"),
            Text(words.ago(worker.beat_at, now)),
            Text(", ".join(worker.queues)),
        ]
        for worker in live
    ]
    print_grid(console, heads, rows)


def _row(version: Version, now: datetime) -> list[Text]:
    unserved = version.waiting and not version.workers
    return [
        Text(one_line(version.workflow) if version.is_newest else "", "bold"),
        Text(version.fingerprint[:8], "" if version.is_newest else "dim"),
        Text(words.ago(version.registered_at, now)),
        Text(str(version.workers), "" if version.workers else "yellow" if unserved else "dim"),
        Text(str(version.open), "" if version.open else "dim"),
        Text(str(version.waiting), "yellow" if unserved else "" if version.waiting else "dim"),
    ]
