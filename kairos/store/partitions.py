"""The partitions of the log: one per stretch of time, made ahead. Knows ids and bounds, nothing of runs.

Run ids are UUIDv7, so a range of ids is a range of time. An id that falls into no partition lies in the default
one: that is slower to clear, and otherwise all right. So nobody depends on partitions being there.

The log is locked only to hang a partition in or out, which takes milliseconds, and never waited for longer than
`LOCK_WAIT`: what waits for such a lock holds up every flush behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg
from psycopg import Connection, sql

from kairos.errors import RetentionError
from kairos.store.connect import backoff
from kairos.store.queries import query

T = TypeVar("T")

# Any number will do as long as every version of Kairos takes the same one ("kairos" in ASCII, plus one).
LOCK_KEY: Final = 0x6B6169726F74
LOCK_WAIT: Final = "100ms"
PATIENCE: Final = 60.0
"""Seconds after which a lock that is not to be had is an error."""

FOREVER: Final = timedelta(days=90)
"""How much time a partition spans while nothing is ever removed."""
AHEAD: Final = 4
"""Partitions that are there for the time to come."""
SMALL: Final = 16 * 2**20
"""A default partition of at most this many bytes is looked through in milliseconds, even under a lock."""
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Range:
    """Ids from `low` to before `high`; None: to the end."""

    low: UUID
    high: UUID | None


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of the log, with its size on disk. `range` is None for the default one."""

    name: str
    range: Range | None
    bytes: int


def id_at(at: datetime) -> UUID:
    """The lowest id of the runs that are created at `at`, to the millisecond."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def time_of(bound: UUID) -> datetime:
    """The time at which ids like this one begin."""
    return datetime.fromtimestamp((bound.int >> 80) / 1000, UTC)


def width_for(retention: timedelta | None) -> timedelta:
    """How much time a new partition spans: a quarter of what is kept, in whole hours or days.

    So runs are removed at most a quarter late, and there are about ten partitions: reading by id costs a little
    for each.
    """
    if retention is None:
        return FOREVER
    unit = _DAY if retention >= 4 * _DAY else _HOUR
    return min(max(retention // 4 // unit * unit, _HOUR), FOREVER)


def missing(existing: Sequence[Partition], now: datetime, width: timedelta) -> Iterator[Range]:
    """The ranges that should be there, from the present one to `AHEAD` further, and are not.

    They begin at whole multiples of the width, or where the last partition ends: a new width takes effect behind
    what there is.
    """
    highest = max((p.range.high for p in existing if p.range is not None and p.range.high is not None), default=None)
    step = width // timedelta(milliseconds=1)
    ms = int(now.timestamp() * 1000)
    begin = max(ms // step * step, 0 if highest is None else highest.int >> 80)
    while begin <= ms + AHEAD * step:
        end = (begin // step + 1) * step
        yield Range(UUID(int=begin << 80), UUID(int=end << 80))
        begin = end


def list_partitions(conn: Connection[Any]) -> list[Partition]:
    """All of them, oldest first, the default one last."""
    rows = conn.execute(query("list_partitions")).fetchall()
    return [Partition(name, None if low is None else Range(low, high), size) for name, low, high, size in rows]


def make_partitions(conn: Connection[Any], retention: timedelta | None, *, patience: float = PATIENCE) -> list[Range]:
    """Make the partitions that are missing, if this role may, and return their ranges.

    A range of which the default partition already holds something is left to it: taking its rows out would
    mean to change history.

    Raises:
        RetentionError: the log was in use for `patience` seconds.
    """
    made = []
    if conn.execute(query("may_make_partitions")).fetchone() == (True,):
        with only_one(conn) as is_free:
            now = (conn.execute(query("read_clock")).fetchone() or (None,))[0]
            assert now is not None
            for range in missing(list_partitions(conn), now, width_for(retention)) if is_free else ():
                if _make(conn, range, is_future=time_of(range.low) > now + _DAY, patience=patience):
                    made.append(range)
    return made


@contextmanager
def only_one(conn: Connection[Any]) -> Iterator[bool]:
    """Hold the right to make and drop partitions; False if somebody else has it."""
    is_free = conn.execute(query("try_partition_lock"), {"key": LOCK_KEY}).fetchone() == (True,)
    try:
        yield is_free
    finally:
        if is_free and not conn.closed:
            conn.execute(query("free_partition_lock"), {"key": LOCK_KEY})


def briefly(conn: Connection[Any], work: Callable[[], T], *, patience: float = PATIENCE) -> T:
    """Do `work` in a transaction that gives way to everybody else, again until it comes through.

    Raises:
        RetentionError: for `patience` seconds there was always somebody who held what it needs.
    """
    began, tries = time.monotonic(), 0
    while True:
        try:
            with conn.transaction():
                conn.execute(query("wait_for_locks"), {"value": LOCK_WAIT})
                return work()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as exc:
            tries += 1
            if time.monotonic() - began > patience:
                raise RetentionError(
                    f"the log was in use for {patience:g}s without a pause: {_users(conn)}",
                    hint="End what holds it (a dump, a long query, an open transaction), then run this again.",
                ) from exc
            time.sleep(backoff(tries, base=0.1, cap=2.0))


def run_ddl(conn: Connection[Any], text: str, name: str, range: Range | None = None) -> None:
    """Execute statements in which `name` and the bounds of `range` are filled in."""
    bounds = {} if range is None else {"low": sql.Literal(str(range.low)), "high": sql.Literal(str(range.high))}
    for statement in text.split(";"):
        conn.execute(sql.SQL(statement).format(name=sql.Identifier(name), **bounds))


def _make(conn: Connection[Any], range: Range, *, is_future: bool, patience: float) -> bool:
    begins = time_of(range.low)
    name = f"event_{begins:%Y%m%d}" if begins.hour == begins.minute == 0 else f"event_{begins:%Y%m%d_%H%M}"
    bounds = {"low": range.low, "high": range.high}
    size = (conn.execute(query("default_size")).fetchone() or (0,))[0]
    if conn.execute(query("default_holds_any"), bounds).fetchone() != (False,):
        return False
    is_large = size > SMALL
    if is_large and not is_future:
        return False  # the present: it would be filled faster than it is looked through

    def attach() -> None:
        conn.execute(query("keep_out_writers"))
        run_ddl(conn, query("create_partition"), name)
        run_ddl(conn, query("attach_partition"), name, range)

    def admit() -> None:
        run_ddl(conn, query("admit_to_default"), name)

    try:
        if is_large:
            # Attaching would read all of it under a lock. What proves that there is nothing to read stands only
            # for so long; meanwhile a run with an id of a day that is yet to come would be refused.
            briefly(conn, admit, patience=patience)
            briefly(conn, lambda: run_ddl(conn, query("exclude_from_default"), name, range), patience=patience)
            run_ddl(conn, query("prove_default_excludes"), name)
        briefly(conn, attach, patience=patience)
    except psycopg.errors.CheckViolation:  # somebody was faster: it is the default partition's now
        return False
    finally:
        if is_large:
            briefly(conn, admit)
    return True


def _users(conn: Connection[Any]) -> str:
    rows = conn.execute(query("who_locks_the_log")).fetchall()
    said = [f"session {pid} ({name or 'no name'}, {state or '?'}, {age or 0:.0f}s)" for pid, name, state, age in rows]
    return ", ".join(said) or "it is free now"
