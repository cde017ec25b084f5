"""The command: `python -m bench` (`make bench`). Prints a table, writes JSON, compares with the baseline."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench import kairos_work, limits, long_work, processes, report
from bench.peers import cases as peers
from bench.plan import Case, Options, select
from bench.report import Results
from bench.server import embedded_server

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "bench" / "baseline.json"
DOCUMENT = ROOT / "docs" / "performance.md"
SHORT = "w1,w2,w3,w4,w5,limit"


def cases(options: Options) -> list[Case]:
    """Everything that can be measured with these options."""
    found = []
    for count in options.workers:
        name = f"{count} worker" + "s" * (count > 1)
        found.append(
            Case(
                f"w1-{count}",
                f"W1 chain of 5, started one by one, {name}",
                "steps/s",
                partial(kairos_work.w1, count=count),
            )
        )
        found.append(
            Case(
                f"w1-bulk-{count}",
                f"W1 chain of 5, start_many, {name}",
                "steps/s",
                partial(kairos_work.w1, count=count, is_bulk=True),
            )
        )
    found += [
        Case("w1-ten", "W1 with ten steps, one by one, 1 worker", "steps/s", kairos_work.w1_ten),
        Case("w2", "W2 latency of a chain of 5, idle", "p50 ms", kairos_work.w2),
        Case("w3", "W3 enqueue to body, idle", "p50 ms", kairos_work.w3),
        Case("w3-polling", "W3 with NOTIFY off", "p50 ms", kairos_work.w3_polling),
        Case("w4", "W4 1,000 parallel steps and a join", "steps/s", kairos_work.w4),
        Case("w5", "W5 jobs, enqueued one by one", "drained/s", kairos_work.w5),
        Case("w5-bulk", "W5 jobs, start_many", "drained/s", partial(kairos_work.w5, is_bulk=True)),
        Case("limit-insert", "bare inserts, 100 rows a commit", "rows/s", limits.insert_rate),
        Case("limit-flush", "bare flush of two events", "p50 ms", limits.bare_flush),
        Case("limit-prototype", "prototype like for like, psycopg", "steps/s", limits.prototype),
    ]
    for size, short, runs in ((1024, "1k", 400), (65_536, "64k", 100), (1_048_576, "1m", 12)):
        title = f"W6 outputs of {short.upper()}B"
        found.append(Case(f"w6-{short}", title, "MB/s", partial(long_work.payloads, size=size, runs=runs)))
    found.append(Case("w7-steps", "W7 one run of 10,000 steps", "us/step at 10,000", long_work.long_run))
    found.append(
        Case("w7-states", "W7 state(at=) of one run of 100,000 events", "ms at 100,000", long_work.past_states)
    )
    for count in (1, 2, 4, 8):
        case = partial(long_work.scaling, count=count)
        found.append(Case(f"w8-{count}", f"W8 W1 in bulk, {count} processes", "steps/s", case))
    found.append(Case("w9", "W9 soak at half load", "p95 ms", long_work.soak))
    fast = partial(limits.prototype, driver="asyncpg")
    found.append(Case("limit-prototype-asyncpg", "prototype like for like, asyncpg and uvloop", "steps/s", fast))
    return [*found, *peers.cases()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, compare, write."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    default = Options()
    add = parser.add_argument
    add("--only", default=SHORT, help=f"cases or families of cases, separated by commas (default {SHORT}); see --list")
    add("--peers", action="store_true", help="also the peers, which are installed first if need be")
    add("--list", action="store_true", help="show the cases and stop")
    add("--reps", type=int, default=3, help="repetitions of each case, each on a fresh database (default 3)")
    add("--runs", type=int, default=default.runs, help="runs of W1 (default 1,000)")
    add("--jobs", type=int, default=default.jobs, help="jobs of W5 (default 10,000)")
    add("--latencies", type=int, default=default.latencies, help="samples of W2 and W3 (default 200)")
    add("--workers", default="1,2", help="worker processes of W1, each count a case (default 1,2)")
    add("--concurrency", type=int, default=default.concurrency, help="of each worker process (default 500)")
    add("--callers", type=int, default=default.callers, help="concurrent callers of start() in W5 (default 1,000)")
    add("--minutes", type=float, default=default.minutes, help="length of the soak W9 (default 10)")
    add("--old-events", type=int, default=default.old_events, help="rows before the soak W9 (default 1,000,000)")
    add("--profile", default="", help="write a cProfile of each worker to this path and its pid (slows it down)")
    add("--json", type=Path, default=ROOT / ".bench" / "results.json", help="where results go, beside what it holds")
    add("--save-baseline", action="store_true", help="also keep the results in bench/baseline.json")
    add("--markdown", action="store_true", help="write the tables of the baseline into docs/performance.md and stop")
    args = parser.parse_args(arguments)
    if args.markdown:
        results = Results.load(BASELINE)
        report.write_document(DOCUMENT, document(results))
        print(f"{DOCUMENT.relative_to(ROOT)}: {len(results.found)} cases of {BASELINE.relative_to(ROOT)}")
        return
    options = Options(
        runs=args.runs,
        jobs=args.jobs,
        latencies=args.latencies,
        concurrency=args.concurrency,
        callers=args.callers,
        workers=tuple(int(part) for part in args.workers.split(",")),
        minutes=args.minutes,
        old_events=args.old_events,
        profile=args.profile,
        environments=ROOT / ".bench",
    )
    known = cases(options)
    if args.list:
        print("\n".join(f"{case.key:26} {case.title}" for case in known))
        return
    only = f"{args.only},peer" if args.peers else args.only
    try:
        if "peer" in only:
            peers.install(options.environments)
        chosen = select(known, only)
        if not (options.environments / "peers").exists():
            chosen = [case for case in chosen if case.key != "limit-prototype-asyncpg"]
    except ValueError as exc:
        parser.error(str(exc))
    results = Results()
    try:
        failed = measure(chosen, options, args.reps, results)
    finally:  # also when interrupted: minutes of measuring are not thrown away
        if results.found:
            print(report.head(next(iter(results.found.values())).facts, args.reps), end="\n\n")
            print(report.table(results, Results.load(BASELINE) if BASELINE.exists() else None))
            print("\n".join(["", *report.ratios(results)]), flush=True)
            results.save(args.json)
            if any(key.startswith("peer-") for key in results.found):
                print("", report.peer_table(Results.load(args.json)), sep="\n", flush=True)
    if args.save_baseline:
        results.save(BASELINE)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


def measure(chosen: Sequence[Case], options: Options, reps: int, results: Results) -> list[str]:
    """Every case once, then every case again: a machine that changes its pace changes it for all alike.

    Adds to `results`; returns the keys of cases that failed at least once (the error is printed at once).
    """
    failed: dict[str, None] = {}
    with embedded_server() as server:
        facts = server.facts()
        for rep in range(reps):
            for case in chosen:
                began = time.perf_counter()
                try:
                    metrics = case.measure(server, options)
                except (RuntimeError, TimeoutError, AssertionError) as exc:
                    failed[case.key] = None
                    print(f"{rep + 1}/{reps} {case.key}: FAILED: {exc}", file=sys.stderr, flush=True)
                    continue
                results.add(case, metrics, facts, options)
                main = f"{report.number(metrics[case.main])} {case.main}"
                took = time.perf_counter() - began
                print(f"{rep + 1}/{reps} {case.key:26} {main:24} ({took:.1f} s)", file=sys.stderr, flush=True)
    return list(failed)


def document(results: Results) -> str:
    """The measured part of docs/performance.md."""
    keys = [case.key for case in cases(Options())]
    groups = {
        "Throughput and latency": [key for key in keys if key[:2] in ("w1", "w2", "w3", "w4", "w5")],
        "The limits of this machine": [key for key in keys if key.startswith("limit")],
        "Payloads, long runs, many processes, soak": [key for key in keys if key[:2] in ("w6", "w7", "w8", "w9")],
    }
    return report.markdown(results, groups)


if __name__ == "__main__":
    processes.terminate_on_sigterm()
    main()
