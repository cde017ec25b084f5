"""`kairos watch`: follow a run to its end."""

from __future__ import annotations

import asyncio

from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.filters import read_duration
from kairos.cli.terminal import is_live, out, print_json
from kairos.cli.waiting import print_trouble, wait_in_json, wait_showing


def watch_run(name: str, *, timeout: str | None, url: str | None, as_json: bool) -> int:
    """Follow it; the exit code tells how it ended."""
    seconds = None if timeout is None else read_duration(timeout, "--timeout").total_seconds()

    async def work() -> int:
        async with reading(url) as reader:
            run_id = await reader.find(name)
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
