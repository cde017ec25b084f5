"""What the fault tests share: seeds, a client, the final verdict."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

import kairos
from kairos.store.connect import Session
from kairos.store.verify import Verifier
from tests.faults import invariants
from tests.faults.ledger import Entry, Ledger
from tests.faults.processes import until


def seeded() -> random.Random:
    """Dice whose seed is printed; set KAIROS_SEED to repeat a schedule of faults."""
    seed = int(os.environ.get("KAIROS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"KAIROS_SEED={seed}")
    return random.Random(seed)


def open_runs(admin_dsn: str) -> int:
    """Runs that have not ended."""
    return int(
        fetch(admin_dsn, "select count(*) from kairos.run where status in ('SCHEDULED', 'RUNNING', 'PAUSED')")[0][0]
    )


def fetch(dsn: str, query: str, *params: object) -> list[tuple[Any, ...]]:
    """Rows of one query on a connection of its own."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(query, params or None)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def wait_all_ended(admin_dsn: str, timeout: float) -> None:
    """Wait until no run is open; when some stay, say what they are."""
    try:
        until(lambda: open_runs(admin_dsn) == 0, "all runs have ended", timeout, every=0.1)
    except AssertionError:
        found = invariants.check(invariants.export(admin_dsn))
        raise AssertionError("runs did not end:\n" + "\n".join(found)) from None


def verdict(admin_dsn: str, ledger: Ledger | Iterable[Entry] = (), *, all_ended: bool = True) -> None:
    """Check every invariant, and `kairos verify`."""
    entries = ledger.entries() if isinstance(ledger, Ledger) else ledger
    wrong = invariants.check(invariants.export(admin_dsn, entries), all_ended=all_ended)
    assert not wrong, "\n".join(wrong[:40])
    verify(admin_dsn)


def verify(admin_dsn: str) -> None:
    """`kairos verify --all` finds nothing."""

    async def look() -> list[str]:
        session = Session(admin_dsn, "kairos verify")
        try:
            return [str(problem) async for report in Verifier(session).every() for problem in report.problems]
        finally:
            await session.close()

    # On a thread of its own: the caller may be inside an event loop.
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: asyncio.run(look())).result()
    assert not found, "\n".join(found[:40])


def statuses(client: kairos.Client, runs: Iterable[kairos.Run]) -> set[str]:
    """The statuses of these runs, as they are now."""
    return {str(run.refresh().status) for run in runs}
