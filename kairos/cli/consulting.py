"""`kairos doctor`: reads the facts about server, workers and queues, and prints what the checks say."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from kairos import __version__
from kairos.cli import exits, words
from kairos.cli.database import PATIENCE, open_existing
from kairos.cli.terminal import one_line, out, print_json, print_wrapped, safe
from kairos.client.facts import read_report, worker_fact
from kairos.database import Database
from kairos.diagnosis import (
    Finding,
    PoolerFacts,
    ServerFacts,
    Severity,
    SystemFacts,
    Waiting,
    WorkerHealth,
    check_connection,
    examine,
)
from kairos.errors import ConfigError, DatabaseUnavailable, MigrationError
from kairos.store.connect import Session
from kairos.store.partitions import time_of
from kairos.store.probing import probe_session
from kairos.store.reader import Reader

_MARKS: Final[dict[Severity, tuple[str, str, str]]] = {
    "ok": ("✓", "ok", "green"),
    "warning": ("!", "!", "yellow"),
    "error": ("✗", "x", "red"),
}


def consult(*, url: str | None, as_json: bool) -> int:
    """Print the findings; 1 if one of them is an error."""
    findings = _findings(url)
    counts = Counter(finding.severity for finding in findings)
    if as_json:
        summary = {"ok": not counts["error"], "errors": counts["error"], "warnings": counts["warning"]}
        print_json({**summary, "findings": [finding.to_json() for finding in findings]})
    else:
        _print(out(), findings, counts)
    return exits.ERROR if counts["error"] else exits.OK


def _findings(url: str | None) -> list[Finding]:
    try:
        database = open_existing(url)
    except MigrationError as exc:
        return [Finding("schema", "error", exc.message, exc.hint)]
    except (DatabaseUnavailable, ConfigError) as exc:
        return [Finding("unreachable", "error", exc.message, exc.hint)]
    with database:
        return asyncio.run(_examine(database))


async def _examine(database: Database) -> list[Finding]:
    probe = await probe_session(database.dsn)
    pooler = PoolerFacts(probe.keeps_backend, probe.keeps_settings, probe.hears_notify)
    session = Session(database.dsn, "kairos doctor", patience=PATIENCE)
    try:
        return examine(await _read(Reader(session), pooler, database.is_embedded))
    except Exception:
        # In a transaction pool anything may fail, prepared statements first: the cause is what to tell.
        found = list(check_connection(pooler))
        if any(finding.severity == "error" for finding in found):
            return found
        raise
    finally:
        await session.close()


async def _read(reader: Reader, pooler: PoolerFacts, is_embedded: bool) -> SystemFacts:
    ask = reader.session.execute
    partitions = await ask("list_partitions")
    ends = [time_of(row[2]) for row in partitions if row[2] is not None]
    return SystemFacts(
        now=(await ask("read_clock"))[0][0],
        kairos=__version__,
        schema=(await ask("schema_version"))[0][0],
        server=_server((await ask("server_facts"))[0], is_embedded),
        pooler=pooler,
        workers=[_health(row) for row in await ask("list_workers", {"ended": True})],
        waiting=[Waiting(*row[:5]) for row in await ask("waiting_by_queue")],
        versions={row[1]: row[0] for row in await ask("list_versions")},
        without_task=[str(row[0]) for row in await ask("runs_without_task", {"take": 1000})],
        transactions=[(row[0], row[1], row[2], row[3]) for row in await ask("long_transactions")],
        sees_all_sessions=(await ask("sees_all_sessions"))[0][0],
        statuses={row[0]: row[1] for row in await ask("count_statuses")},
        partitioned_until=max(ends, default=None),
        default_bytes=sum(row[3] for row in partitions if row[1] is None),
    )


def _server(row: tuple[Any, ...], is_embedded: bool) -> ServerFacts:
    version, fsync, synchronous_commit, user, is_standby, may_change, full_page_writes = row
    return ServerFacts(
        version=version,
        fsync=fsync == "on",
        synchronous_commit=synchronous_commit,
        full_page_writes=full_page_writes == "on",
        user=user,
        is_standby=is_standby,
        may_change_events=may_change,
        is_embedded=is_embedded,
    )


def _health(row: tuple[Any, ...]) -> WorkerHealth:
    report = read_report(row[13])
    return WorkerHealth(
        fact=worker_fact(row),
        version=row[5],
        holds=row[15],
        stale_writes=report.get("stale_writes", 0),
        loop_lag=report.get("loop_lag", 0.0),
        signal=report.get("signal"),
        abandoned=tuple(report.get("abandoned", ())),
    )


def _print(console: Console, findings: list[Finding], counts: Counter[Severity]) -> None:
    for finding in findings:
        shape, plain, style = _MARKS[finding.severity]
        word = "" if finding.severity == "ok" else f"{finding.severity}: "
        print_finding(console, shape if words.has_shapes() else plain, word, style, one_line(finding.title, 600))
        if finding.hint:
            print_wrapped(console, Text(safe(finding.hint), "dim"), indent=2)
    console.print()
    if counts["error"] or counts["warning"]:
        text = f"{words.plural(counts['error'], 'error')}, {words.plural(counts['warning'], 'warning')}"
        console.print(text, style="bold red" if counts["error"] else "bold yellow")
    else:
        console.print("all is well", style="bold green")


def print_finding(console: Console, mark: str, word: str, style: str, title: str) -> None:
    """`✗ error: ...`, further lines below the words."""
    print_wrapped(console, Text.assemble((mark, style), " ", (word, style), title), hanging=len(mark) + 1)
