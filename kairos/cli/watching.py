"""`kairos watch`: follow a run to its end."""

from __future__ import annotations

import asyncio
from uuid import UUID

from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.filters import read_duration
from kairos.cli.terminal import is_live, out, print_json
from kairos.cli.waiting import print_trouble, wait_in_json, wait_showing
from kairos.domain.states import ENDED
from kairos.errors import InvalidArgument
from kairos.store.reader import Reader


def watch_run(name: str, *, timeout: str | None, url: str | None, as_json: bool) -> int:
    """Follow it; the exit code tells how it ended."""
    seconds = None if timeout is None else read_duration(timeout, "--timeout").total_seconds()

    async def work() -> int:
        async with reading(url) as reader:
            run_id = await reader.find(name)
            await _refuse_evidence(reader, run_id)
            if as_json:
                ending = await wait_in_json(reader, run_id, seconds)
                print_json(ending.to_json(), lines=True)
            else:
                ending = await wait_showing(reader, run_id, seconds, out())
                if ending.exit_code != exits.OK:
                    print_trouble(ending, timeout)
                elif is_live():
                    out().print(f"\nkairos show {words.short_id(run_id)}", style="dim")
            return ending.exit_code

    return asyncio.run(work())


async def _refuse_evidence(reader: Reader, run_id: UUID) -> None:
    """Nothing more happens to a run that was imported before its end: nobody shall wait for it."""
    if (await reader.run(run_id)).status in ENDED:
        return
    found = await reader.session.execute("find_import", {"run_id": run_id})
    if found:
        raise InvalidArgument(
            f"run {run_id} was imported from {found[0][0]} before its end, so nothing more happens",
            hint=f"Look at it: kairos show {words.short_id(run_id)}   kairos replay {words.short_id(run_id)}",
        )
