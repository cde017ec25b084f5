"""How long the pages of the debugger take over many runs: `python -m bench.pages [--runs 100000] [--keep]`.

A few runs are written by `InlineRun` and copied by SQL, with ids and times spread over two weeks: ten events each, one
in forty failed. Prints one JSON object: milliseconds at the first request and at the median and 95th percentile of
the next ones, for each page, and how often the log was read as a whole meanwhile (which should be never).
`--keep` goes on serving, to look at it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg

import kairos
from bench.server import Place, embedded_server
from debugger_ui.serving import Address, Server, open_socket
from kairos.authoring.inline import InlineRun
from kairos.domain import canonical
from kairos.errors import KairosError
from kairos.store.codec import Row, encode, first_hash

WORKFLOWS = 8
SPREAD = 14 * 86_400
TIMES = 12
FAILED = "abcdef12-0000-7000-8000-000000000000"

PAGES = {
    "dashboard 1h": "/?span=1h",
    "dashboard 24h": "/?span=24h",
    "dashboard 7d": "/?span=7d",
    "runs": "/runs",
    "runs, status=failed": "/runs?status=failed",
    "runs, status=running (none)": "/runs?status=running",
    "runs, key": "/runs?key=key-50000",
    "runs, workflow": "/runs?workflow=order-3",
    "runs, unrepaired": "/runs?unrepaired=yes",
    "runs, error (none)": "/runs?error=nothing+like+it",
    "runs, page 1000": "/runs?before={deep}",
    "runs, newer than an old one": "/runs?after={deep}",
    "runs, id prefix": "/api/v1/runs?q={short}",
    "runs, input found": "/runs?input=customer%3D77",
    "runs, input not found": "/runs?input=nobody",
    "workflows": "/workflows",
    "workflow": "/workflows/order-3",
}


def definition(number: int, *, fails: bool) -> kairos.Workflow:
    """A chain of three steps, which logs a line."""
    workflow = kairos.App("bench").workflow(f"order-{number}", input=dict)

    @workflow.step
    def reserve(input: dict[str, Any], ctx: kairos.StepContext) -> dict[str, Any]:
        ctx.log.info("reserving")
        return {"customer": input["customer"], "lines": [{"sku": f"s{i}", "qty": i} for i in range(5)]}

    @workflow.step(retry=kairos.Retry(attempts=1))
    def charge(reserve: dict[str, Any]) -> int:
        if fails:
            raise ConnectionError("card declined")
        return 990

    @workflow.step
    def ship(charge: int) -> str:
        return "sent"

    return workflow


def rows_of(workflow: kairos.Workflow) -> list[Row]:
    """The log of one run of it."""
    run = InlineRun(workflow, {"customer": 4711, "note": "x" * 200})
    try:
        asyncio.run(run.finish())
    except KairosError:
        pass
    rows: list[Row] = []
    for recorded in run.history:
        rows.append(
            encode(
                recorded.event,
                recorded.seq,
                recorded.at,
                rows[-1].hash if rows else first_hash(run.state.run_id),
            )
        )
    return rows


def fill(place: Place, runs: int) -> None:
    """Write the runs."""
    with place.watch() as conn:
        conn.execute("alter table kairos.event disable trigger all")
        conn.execute("create temp table model (w int, bad bool, seq int, kind text, after interval, step text,"
                     " attempt int, token bigint, hash bytea, body bytea)")  # fmt: skip
        for number in range(WORKFLOWS):
            for bad in (False, True):
                workflow = definition(number, fails=bad)
                rows = rows_of(workflow)
                for row in rows:
                    conn.execute("insert into model values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                                 (number, bad, row.seq, row.kind, (row.at - rows[0].at) * 400, row.step, row.attempt,
                                  row.token, row.hash, row.body))  # fmt: skip
                if not bad:
                    body = canonical.encode(workflow.definition.to_json())
                    conn.execute("insert into kairos.definition (fingerprint, workflow, body) values (%s, %s, %s)",
                                 (workflow.fingerprint, workflow.name, body))  # fmt: skip
        conn.execute(
            "insert into kairos.run (id, created_at, workflow, fingerprint, queue, priority, key, labels, epoch,"
            " last_seq, head_hash, status)"
            " select (lpad(to_hex((extract(epoch from t.at) * 1000)::bigint), 12, '0') || '7' ||"
            "   substr(md5(t.n::text), 1, 3) || '8' || substr(md5(t.n::text), 4, 15))::uuid, t.at, d.workflow,"
            "   d.fingerprint, 'default', 5, case when t.n %% 2 = 0 then 'key-' || t.n end, null, 1,"
            "   (select max(seq) from model m where m.w = t.n %% %(w)s and m.bad = (t.n %% 39 = 7)), '',"
            "   case when t.n %% 39 = 7 then 'FAILED' else 'DONE' end"
            " from (select n, clock_timestamp() - make_interval(secs => (n + 30) * %(spread)s / %(runs)s::float8) as at"
            "       from generate_series(1, %(runs)s) n) t"
            " join kairos.definition d on d.workflow = 'order-' || t.n %% %(w)s",
            {"w": WORKFLOWS, "spread": float(SPREAD), "runs": runs},
        )
        conn.execute(
            "insert into kairos.event"
            " select r.id, m.seq, m.kind, r.created_at + m.after * (1 + (hashtext(r.id::text) & 1023) / 500.0), m.step,"
            "   m.attempt, m.token, m.hash, case when m.seq = 1 then convert_to(replace(convert_from(m.body, 'UTF8'),"
            "   '4711', (hashtext(r.id::text) & 65535)::text), 'UTF8') else m.body end"
            " from kairos.run r join model m on m.w = split_part(r.workflow, '-', 2)::int"
            "   and m.bad = (r.status = 'FAILED') order by r.id, m.seq"
        )
        conn.execute(
            "insert into kairos.failure select id, created_at, workflow, 'FAILED', 'charge',"
            " 'ConnectionError: card declined', workflow || '|charge|ConnectionError' from kairos.run"
            " where status = 'FAILED'"
        )
        conn.execute("alter table kairos.event enable trigger all")
        conn.execute("vacuum analyze")


@contextmanager
def debugger(dsn: str) -> Iterator[str]:
    """The debugger, in a thread."""
    listening = open_socket(Address(port=0))
    server = Server(Address(port=0), dsn, listening)
    ready, loop = threading.Event(), asyncio.new_event_loop()
    server.on_ready = ready.set
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.run_until_told()))
    thread.start()
    try:
        ready.wait(20)
        yield server.url
    finally:
        loop.call_soon_threadsafe(server.stop)
        thread.join(20)
        listening.close()


def scans(place: Place) -> int:
    """How often the log, or a part of it, was read from its beginning to its end."""
    with place.watch() as conn:
        time.sleep(1.1)  # counters are written down once a second
        row = conn.execute(
            "select sum(seq_scan) from pg_stat_user_tables where schemaname = 'kairos' and relname like 'event%'"
        ).fetchone()
    return int((row or (0,))[0])


def measure(place: Place, url: str) -> dict[str, Any]:
    """Milliseconds per page."""
    with psycopg.connect(place.admin) as conn:
        row = conn.execute("select id from kairos.run order by id desc offset least(50000,"
                           " (select count(*) / 2 from kairos.run)) limit 1").fetchone()  # fmt: skip
    deep = str(row[0]) if row else ""
    found: dict[str, Any] = {}
    with httpx.Client(trust_env=False, timeout=60) as client:
        client.get(f"{url}/healthz")
        for name, path in PAGES.items():
            taken = []
            for _ in range(TIMES):
                began = time.perf_counter()
                answer = client.get(url + path.format(deep=deep, short=deep[:8]))
                taken.append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200, (name, answer.status_code, answer.text[:500])
            rest = sorted(taken[1:])
            found[name] = {
                "first": round(taken[0], 1),
                "p50": round(statistics.median(rest), 1),
                "p95": round(rest[-1], 1),
            }
    return found


def main() -> None:
    """Fill, measure, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=100_000)
    options.add_argument("--keep", action="store_true", help="go on serving until Ctrl-C")
    given = options.parse_args()
    with embedded_server() as server, server.fresh() as place:
        began = time.perf_counter()
        fill(place, given.runs)
        filled = round(time.perf_counter() - began, 1)
        before = scans(place)
        with debugger(place.dsn) as url:
            pages = measure(place, url)
            facts = {"runs": given.runs, "filled_s": filled, "scans_of_the_log": scans(place) - before, "pages": pages}
            print(json.dumps(facts, indent=1), flush=True)
            if given.keep:
                print(url, place.admin, flush=True)
                try:
                    threading.Event().wait()
                except KeyboardInterrupt:
                    pass


if __name__ == "__main__":
    main()
