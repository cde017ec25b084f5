"""Counts what a timed section cost: CPU of the workers, of Postgres and of the driver; commits; bytes of WAL.

CPU is read at the section's begin and end, so imports and shutdown do not count. Needs psycopg only.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

_TICK = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2


def cpu(pid: int) -> float:
    """CPU seconds of a process so far, all threads, to the microsecond; nan where the system does not tell."""
    try:
        # The kernel's clock of another process; /proc/PID/stat has the same number in ticks of 10 ms.
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return math.nan


def tree_cpu(pid: int) -> float:
    """CPU seconds of a process, its live descendants and the children that it has reaped."""
    parents: dict[int, list[int]] = {}
    reaped: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(folder.name))
        reaped[int(folder.name)] = (int(fields[13]) + int(fields[14])) / _TICK
    total, todo = 0.0, [pid]
    while todo:
        one = todo.pop()
        spent = cpu(one)
        total += reaped.get(one, 0.0) + (0.0 if math.isnan(spent) and one != pid else spent)
        todo += parents.get(one, [])
    return total


class Meter:
    """Reads all counters at `begin` and at `end`.

    Args:
        conn: an autocommit connection to the server (not timed: it reads counters only).
        postmaster: pid of the server; 0 if unknown.
        workers: pids whose trees count as workers.
    """

    def __init__(self, conn: psycopg.Connection[Any], postmaster: int, workers: Sequence[int] = ()) -> None:
        self._conn, self._postmaster, self._workers = conn, postmaster, list(workers)
        self.seconds = 0.0

    def begin(self) -> Meter:
        """Start the clock."""
        self._before = self._read()
        self._began = time.perf_counter()
        return self

    def end(self) -> Meter:
        """Stop the clock."""
        self.seconds = time.perf_counter() - self._began
        after = self._read()
        self.worker, self.postgres, self.driver, self.commits, self.wal = (
            b - a for a, b in zip(self._before, after, strict=True)
        )
        return self

    def costs(self, units: int, unit: str = "step") -> dict[str, float]:
        """What one of `units` units cost."""
        return {
            f"worker us/{unit}": self.worker * 1e6 / units,
            f"postgres us/{unit}": self.postgres * 1e6 / units,
            f"driver us/{unit}": self.driver * 1e6 / units,
            f"commits/{unit}": self.commits / units,
            f"WAL B/{unit}": self.wal / units,
        }

    def _read(self) -> tuple[float, float, float, float, float]:
        # Transaction ids are given to transactions that write, and only to those: an exact count of commits,
        # where the statistics views lag by seconds.
        row = self._conn.execute(
            "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint, pg_current_wal_insert_lsn() - '0/0'"
        ).fetchone()
        assert row is not None
        postgres = tree_cpu(self._postmaster) if self._postmaster else math.nan
        workers = sum(tree_cpu(pid) for pid in self._workers)
        return workers, postgres, time.process_time(), float(row[0]), float(row[1])
