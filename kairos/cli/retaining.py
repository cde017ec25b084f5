"""`kairos retention` and `kairos keep`: what goes, and what must not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from rich.console import Console
from rich.text import Text

from kairos import settings
from kairos.cli import exits, words
from kairos.cli.database import open_existing, reading
from kairos.cli.grid import Column, print_grid
from kairos.cli.terminal import err, out, print_json
from kairos.domain.duration import parse_duration
from kairos.store.connect import open_sync
from kairos.store.partitions import time_of
from kairos.store.retention import Outcome, Stretch, hold_run, remove_old_runs, unhold_run


def remove_runs(*, older_than: str | None, is_dry: bool, url: str | None, as_json: bool) -> int:
    """Remove runs, or say which would be, and print what was done."""
    usual: timedelta | None = settings.read("retention")
    keep = usual if older_than is None else parse_duration(older_than, what="--older-than")
    database = open_existing(url)
    try:
        # Counting the runs of a large partition takes as long as it takes; what locks anything is brief.
        with open_sync(database.admin_dsn, "kairos retention", statement_timeout="0") as conn:
            with err().status("looking", spinner="line") as status:
                done = remove_old_runs(
                    conn,
                    keep,
                    width=usual,
                    is_dry=is_dry,
                    on_progress=lambda count: status.update(f"removed {words.plural(count, 'run')}"),
                )
    finally:
        database.close()
    if as_json:
        print_json(_document(done, is_dry))
    else:
        _print(out(), done, is_dry)
    return exits.OK


def keep_run(name: str, *, reason: str, release: bool, url: str | None, as_json: bool) -> int:
    """Hold a run, or let go of it."""

    async def work() -> int:
        async with reading(url) as reader:
            run_id = await reader.find(name)
            if release:
                was_kept = await unhold_run(reader.session, run_id)
                said = "retention may remove it" if was_kept else "it was not kept"
            else:
                await hold_run(reader.session, run_id, reason)
                said = "retention leaves it alone"
        if as_json:
            print_json({"run_id": str(run_id), "kept": not release})
        else:
            out().print(f"{run_id}  {said}", soft_wrap=True)
        return exits.OK

    return asyncio.run(work())


def _document(done: Outcome, is_dry: bool) -> dict[str, object]:
    return {
        "dry_run": is_dry,
        "older_than": None if done.older_than is None else done.older_than.isoformat(),
        "stretches": [stretch.to_json() for stretch in done.stretches],
        "resumed": done.resumed,
        "removed_runs": done.removed,
        "dropped_partitions": done.dropped,
        "removed_payloads": done.blobs,
        "made_partitions": done.made,
    }


def _print(console: Console, done: Outcome, is_dry: bool) -> None:
    if done.older_than is None:
        console.print("Nothing is removed: KAIROS_RETENTION is `forever`. Set it, or pass --older-than.")
    elif done.stretches:
        columns = [Column("PARTITION"), Column("FROM"), Column("TO"), Column("RUNS", is_right=True),
                   Column("GO", is_right=True), Column("STAY"), Column("")]  # fmt: skip
        print_grid(console, columns, [_row(stretch) for stretch in done.stretches])
    if is_dry:
        gone = sum(stretch.removable for stretch in done.stretches)
        console.print(f"would remove {words.plural(gone, 'run')} and the payloads that only they refer to")
        return
    if done.resumed:
        console.print(f"finished {words.plural(done.resumed, 'removal')} that had been interrupted")
    if done.older_than is not None:
        console.print(
            f"removed {words.plural(done.removed, 'run')} that ended before {done.older_than:%Y-%m-%d %H:%M} UTC, "
            f"{words.plural(done.dropped, 'partition')}, {words.plural(done.blobs, 'payload')}"
        )
    if done.made:
        console.print(f"made {words.plural(done.made, 'partition')} for the time to come")


def _row(stretch: Stretch) -> list[Text]:
    begin = end = "any"
    if stretch.partition is not None and stretch.range.high is not None:
        begin, end = f"{time_of(stretch.range.low):%Y-%m-%d}", f"{time_of(stretch.range.high):%Y-%m-%d}"
    reasons = {"go on": stretch.going, "kept": stretch.held, "ended lately": stretch.recent}
    stay = ", ".join(f"{count:,} {why}" for why, count in reasons.items() if count) or "-"
    action = {"drop": "drop it", "delete": "delete rows", "keep": "nothing to do"}[stretch.action]
    return [
        Text(stretch.partition or "event_default"),
        Text(begin),
        Text(end),
        Text(f"{stretch.runs:,}"),
        Text(f"{stretch.removable:,}"),
        Text(stay),
        Text(action, "dim"),
    ]
