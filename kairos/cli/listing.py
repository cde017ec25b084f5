"""`kairos runs`: a page of runs, newest first, and the command for the next page."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from rich.console import Console
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.filters import read_labels, read_moment, read_status
from kairos.cli.grid import Column, print_grid
from kairos.cli.terminal import one_line, out, print_json
from kairos.cli.usage import UsageError
from kairos.domain.matching import read_input_query
from kairos.domain.states import RunStatus
from kairos.errors import InvalidArgument
from kairos.store.lists import RunFilter
from kairos.store.reader import Reader, RunInfo
from kairos.store.searching import Found, search_inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was typed."""

    workflow: str | None = None
    statuses: tuple[str, ...] = ()
    key: str | None = None
    labels: tuple[str, ...] = ()
    queue: str | None = None
    version: str | None = None
    step: str | None = None
    error: str | None = None
    group: str | None = None
    unrepaired: bool = False
    input: str | None = None
    since: str | None = None
    until: str | None = None
    before: str | None = None
    limit: int = 20

    def next_page(self, last: UUID) -> str:
        """The command that shows what comes after `last`."""
        parts = ["kairos", "runs"]
        for name in ("workflow", "key", "queue", "version", "step", "error", "group", "input", "since", "until"):
            value = getattr(self, name)
            parts += [f"--{name}", value] if value else []
        parts += ["--unrepaired"] if self.unrepaired else []
        for option, values in (("--status", self.statuses), ("--label", self.labels)):
            for value in values:
                parts += [option, value]
        parts += ["--limit", str(self.limit)] if self.limit != 20 else []
        return shlex.join([*parts, "--before", str(last)])

    @property
    def is_narrow(self) -> bool:
        """Whether anything was filtered."""
        texts = (self.workflow, self.key, self.queue, self.version, self.step, self.error, self.group, self.input)
        return any((*texts, self.statuses, self.labels, self.unrepaired, self.since, self.until, self.before))

    def read(self) -> RunFilter:
        """The conditions. Raises UsageError."""
        wanted = RunFilter(
            tuple(read_status(text) for text in self.statuses),
            workflow=self.workflow,
            version=self.version,
            queue=self.queue,
            key=self.key,
            labels=read_labels(self.labels) or None,
            since=read_moment(self.since, "--since"),
            until=read_moment(self.until, "--until"),
            step=self.step,
            error=self.error,
            group=self.group,
            unrepaired=self.unrepaired,
        )
        try:
            return wanted.checked()
        except InvalidArgument as exc:
            raise UsageError(exc.message, hint=exc.hint) from None


def list_runs(request: Request, *, url: str | None, as_json: bool) -> int:
    """Print one page."""
    wanted = request.read()
    try:
        query = None if request.input is None else read_input_query(request.input)
    except InvalidArgument as exc:
        raise UsageError(f"--input: {exc.message}", hint=exc.hint) from None

    async def work() -> int:
        async with reading(url) as reader:
            before = None if request.before is None else await reader.find(request.before)
            found: Found | None = None
            if query is not None:
                found = await search_inputs(reader, query, wanted, before=before, limit=request.limit)
                page, last = found.runs, found.following
            else:
                infos = await reader.select_runs(wanted, before=before, limit=request.limit + 1)
                page = infos[: request.limit]
                last = page[-1].id if len(infos) > request.limit else None
            following = None if last is None else request.next_page(last)
            if as_json:
                looked = {} if found is None else {"searched": found.looked}
                print_json({"runs": [info.to_json() for info in page], "next": following, **looked})
            elif page:
                _print(out(), page, following)
            else:
                await _print_nothing(reader, request)
            if found is not None and not as_json:
                _print_searched(out(), found, following if not page else None)
            return exits.OK

    return asyncio.run(work())


def _print_searched(console: Console, found: Found, following: str | None) -> None:
    back = f", back to {found.back_to:%Y-%m-%d %H:%M:%S} UTC" if found.following and found.back_to else ""
    skipped = f"; {found.skipped} were too long to be looked into, or are gone" if found.skipped else ""
    console.print(f"looked into the inputs of {found.looked:,} runs{back}{skipped}", style="dim")
    if following is not None:
        console.print(Text.assemble(("further back: ", "dim"), following), soft_wrap=True)


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


async def _print_nothing(reader: Reader, wanted: Request) -> None:
    console = out()
    if not wanted.is_narrow or not await reader.list_runs(limit=1):
        console.print("No runs yet. `kairos run WORKFLOW` starts one; `kairos demo` shows how it looks.")
    else:
        console.print("No runs match.")
