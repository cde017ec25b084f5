"""`kairos runs`: a page of runs, newest first, and the command for the next page."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Console
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.filters import read_labels, read_moment, read_status
from kairos.cli.grid import Column, print_grid
from kairos.cli.terminal import one_line, out, print_json
from kairos.domain.states import RunStatus
from kairos.store.reader import Reader, RunInfo


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What was typed."""

    workflow: str | None
    statuses: tuple[str, ...]
    key: str | None
    labels: tuple[str, ...]
    since: str | None
    until: str | None
    before: str | None
    limit: int

    def next_page(self, last: RunInfo) -> str:
        """The command that shows what comes after `last`."""
        parts = ["kairos", "runs"]
        for option, value in (("--workflow", self.workflow), ("--key", self.key), ("--since", self.since)):
            parts += [option, value] if value else []
        parts += ["--until", self.until] if self.until else []
        for option, values in (("--status", self.statuses), ("--label", self.labels)):
            for value in values:
                parts += [option, value]
        parts += ["--limit", str(self.limit)] if self.limit != 20 else []
        return shlex.join([*parts, "--before", str(last.id)])

    @property
    def is_narrow(self) -> bool:
        """Whether anything was filtered."""
        return any((self.workflow, self.statuses, self.key, self.labels, self.since, self.until, self.before))


def list_runs(wanted: RunFilter, *, url: str | None, as_json: bool) -> int:
    """Print one page."""
    statuses = [read_status(text) for text in wanted.statuses]
    labels = read_labels(wanted.labels)
    since, until = read_moment(wanted.since, "--since"), read_moment(wanted.until, "--until")

    async def work() -> int:
        async with reading(url) as reader:
            before = None if wanted.before is None else await reader.find(wanted.before)
            infos = await reader.list_runs(
                workflow=wanted.workflow, statuses=[s.value for s in statuses] or None, key=wanted.key,
                labels=labels or None, since=since, until=until, before=before, limit=wanted.limit + 1,
            )  # fmt: skip
            page = infos[: wanted.limit]
            following = wanted.next_page(page[-1]) if len(infos) > wanted.limit else None
            if as_json:
                print_json({"runs": [info.to_json() for info in page], "next": following})
            elif page:
                _print(out(), page, following)
            else:
                await _print_nothing(reader, wanted)
            return exits.OK

    return asyncio.run(work())


def _print(console: Console, page: list[RunInfo], following: str | None) -> None:
    now = words.now()
    is_whole = not console.is_terminal and console.width >= 100
    columns = [
        Column("RUN"),
        Column("WORKFLOW", most=32 if console.width >= 80 else 16),
        Column("STATUS"),
        Column("CREATED", is_right=True),
        Column("TOOK", is_right=True),
        Column(""),
    ]
    rows = [
        [
            Text(str(info.id) if is_whole else words.short_id(info.id), "bold"),
            Text(one_line(info.workflow)),
            words.status_text(info.status),
            Text(words.ago(info.created_at, now)),
            Text(_length(info, now)),
            about(info),
        ]
        for info in page
    ]
    print_grid(console, columns, rows)
    if following is not None:
        console.print(Text.assemble(("older: ", "dim"), following), soft_wrap=True)


def about(info: RunInfo) -> Text:
    """Why it ended badly, its key and labels."""
    parts = []
    if info.reason and info.status is not RunStatus.DONE:
        parts.append(Text(one_line(info.reason, 120)))
    if info.key is not None:
        parts.append(Text.assemble(("key ", "dim"), one_line(info.key, 60)))
    parts += [Text.assemble((f"{one_line(k, 40)}=", "dim"), one_line(v, 40)) for k, v in info.labels.items()]
    return Text("  ").join(parts)


def _length(info: RunInfo, now: datetime) -> str:
    if info.ended_at is None and info.status is RunStatus.SCHEDULED:
        return ""
    end = info.ended_at or now
    return words.took(max(end - info.created_at, timedelta()))


async def _print_nothing(reader: Reader, wanted: RunFilter) -> None:
    console = out()
    if not wanted.is_narrow or not await reader.list_runs(limit=1):
        console.print("No runs yet. `kairos run WORKFLOW` starts one; `kairos demo` shows how it looks.")
    else:
        console.print("No runs match.")
