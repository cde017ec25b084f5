"""What the meter counts is what happened."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import kairos_work, limits, processes
from bench.meter import Meter, cpu, tree_cpu
from bench.plan import Options
from bench.server import Server

SPIN = """
import time
end = time.process_time() + {}
while time.process_time() < end:
    pass
print("ready", flush=True)
input()
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
TINY = Options(runs=20, jobs=60, latencies=10, callers=5)


@linux_only
def test_the_cpu_of_another_process_is_read_as_it_reads_its_own() -> None:
    began = time.process_time()
    mine = cpu(os.getpid())
    assert mine == pytest.approx(began, abs=0.01)


@linux_only
def test_cpu_spent_before_the_section_does_not_count(bench_server: Server) -> None:
    with bench_server.fresh(with_schema=False) as place, place.watch() as conn:
        with processes.running([sys.executable, "-c", SPIN.format(0.3)]) as (process,):
            processes.wait_ready([process])
            assert tree_cpu(process.pid) >= 0.3
            meter = Meter(conn, 0, [process.pid]).begin().end()
    assert meter.worker < 0.05


def test_commits_are_counted_one_by_one(bench_server: Server) -> None:
    with bench_server.fresh(with_schema=False) as place, place.watch() as conn, place.watch() as other:
        conn.execute("create table t (x integer)")
        meter = Meter(conn, 0).begin()
        for number in range(7):
            other.execute("insert into t values (%s)", (number,))
            other.execute("select x from t")
        meter.end()
    assert meter.commits == 7
    assert meter.wal > 0


def test_a_database_is_fresh_and_goes_afterwards(bench_server: Server) -> None:
    with bench_server.fresh() as place, place.watch() as conn:
        assert conn.execute("select count(*) from kairos.run").fetchone() == (0,)
        name = conn.info.dbname
    with bench_server.fresh(with_schema=False) as place, place.watch() as conn:
        assert conn.execute("select from pg_database where datname = %s", (name,)).fetchone() is None


def test_the_url_of_a_database_leads_to_it(bench_server: Server) -> None:
    import psycopg

    with bench_server.fresh(with_schema=False) as place, place.watch() as conn, psycopg.connect(place.url) as other:
        assert other.info.dbname == conn.info.dbname


@pytest.mark.parametrize("key", ["w1-2", "w1-bulk-1", "w2", "w4", "w5", "w5-bulk", "limit-flush", "limit-prototype"])
def test_a_case_measures_its_main_metric(bench_server: Server, key: str) -> None:
    case = next(case for case in command.cases(TINY) if case.key == key)
    metrics = case.measure(bench_server, TINY)
    assert metrics[case.main] > 0
    assert all(value >= 0 or math.isnan(value) for value in metrics.values())


def test_a_measurement_whose_runs_are_not_all_done_is_refused(bench_server: Server) -> None:
    with bench_server.fresh() as place, place.watch() as conn:
        with pytest.raises(AssertionError, match=r"3 runs should be DONE; there are \{\}"):
            kairos_work.require_done(conn, 3)


def test_a_process_that_fails_says_what_it_said(bench_server: Server) -> None:
    with bench_server.fresh(with_schema=False) as place:
        with pytest.raises(RuntimeError, match="exit code 3:\nno luck"):
            limits.run_json([sys.executable, "-c", "print('no luck'); raise SystemExit(3)"], place)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"])
print(child.pid, flush=True)
import time; time.sleep(600)
"""


@linux_only
def test_a_grandchild_does_not_outlive_the_block() -> None:
    with processes.running([sys.executable, "-c", PARENT]) as (process,):
        assert process.stdout is not None
        said = {process.stdout.readline().strip(), process.stdout.readline().strip()}
        grandchild = int((said - {"up"}).pop())
        assert _is_alive(grandchild)
    processes.wait_until(lambda: not _is_alive(grandchild), "the grandchild has gone", timeout=10)


KILLED = """
import sys, time
from bench import processes
with processes.running([sys.executable, "-c", "import time; time.sleep(600)"]) as (child,):
    print(child.pid, flush=True)
    time.sleep(600)
"""


@linux_only
def test_a_process_dies_with_the_bench_that_was_killed() -> None:
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", KILLED], cwd=root, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        child = int(bench.stdout.readline())
        assert _is_alive(child)
        bench.kill()
    processes.wait_until(lambda: not _is_alive(child), "the child has gone", timeout=10)
