"""Removes runs that ended long ago: whole partitions where it can, rows where it must. Safe to kill at any line.

A removal of a range of ids is written down before the first run goes. In it the head of a run goes first, with
its key and its row of failures; that is the moment at which the run is gone. Then:

- A *partition* whose time is over is taken out of the log and dropped, once the heads of all that may go are gone.
  What other runs still need of it moves into the default partition in the same transaction, byte by byte.
- In the *default partition*, and where too much is still needed, the events are deleted in the transaction that
  deletes their head.

If it is killed: between two batches, nothing is half done but the range; the next call goes on with it first. Events
whose head is gone are no damage while their removal is written down as unfinished (`kairos verify` knows). A run
that goes on, is held, or ended too lately is never touched; nor is one that somebody has locked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal
from uuid import UUID

from psycopg import Connection, sql

from kairos.errors import RetentionError, RunNotFound
from kairos.store.connect import Session
from kairos.store.failpoints import failpoint
from kairos.store.partitions import (
    Partition,
    Range,
    briefly,
    list_partitions,
    make_partitions,
    only_one,
    run_ddl,
    time_of,
)
from kairos.store.queries import query

BATCH: Final = 500
"""Most runs in one transaction."""
MAX_EVENTS: Final = 20_000
"""Most events that are deleted, or moved while the log is locked, in one transaction (about 0.2 s)."""
UNUSED: Final = timedelta(days=2)
"""A blob must be unused for this much longer than a run: the mark is a day coarse, a flush may be late."""

Action = Literal["drop", "delete", "keep"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A range of ids, and what becomes of it.

    Attributes:
        partition: its name; None for a range that lies in the default partition.
        runs: all runs in it; `going`, `held` and `recent` are those that stay, by reason.
        events: how many events the runs that stay have.
        bytes: what the partition takes on disk; 0 for a range of the default one.
        action: `drop` the partition, `delete` rows, or `keep` it as it is.
    """

    range: Range
    partition: str | None
    runs: int
    going: int
    held: int
    recent: int
    events: int
    bytes: int

    @property
    def removable(self) -> int:
        """Runs that go."""
        return self.runs - self.going - self.held - self.recent

    @property
    def action(self) -> Action:
        """See the class."""
        if self.partition is not None and self.events <= MAX_EVENTS:
            return "drop"
        return "delete" if self.removable else "keep"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        low, high = (None, None) if self.partition is None else _times(self.range)
        return {
            "partition": self.partition or "event_default",
            "from": low,
            "to": high,
            "ids": [str(self.range.low), None if self.range.high is None else str(self.range.high)],
            "action": self.action,
            "runs": self.runs,
            "removable": self.removable,
            "going_on": self.going,
            "held": self.held,
            "recent": self.recent,
            "bytes": self.bytes,
        }


@dataclass(slots=True)
class Outcome:
    """What was planned and done.

    Attributes:
        older_than: runs that had ended before this may go; None if everything is kept.
        resumed: removals of an earlier call that was interrupted, brought to their end.
        removed: runs that are gone.
        blobs: payloads that no run refers to any more and that are gone.
        made: partitions made ahead.
    """

    older_than: datetime | None = None
    stretches: list[Stretch] = field(default_factory=list)
    resumed: int = 0
    removed: int = 0
    dropped: int = 0
    blobs: int = 0
    made: int = 0


@dataclass(frozen=True, slots=True)
class Removal:
    """A row of `removal`: `part` is dropped; without one, rows are deleted."""

    id: int
    part: str | None
    low: UUID
    high: UUID | None
    older_than: datetime


def plan(conn: Connection[Any], older_than: datetime) -> list[Stretch]:
    """What there is to remove, in partitions whose time is over and in the default one."""
    parts = list_partitions(conn)
    past = [(p.range, p) for p in parts if p.range and p.range.high and time_of(p.range.high) <= older_than]
    found = [_count(conn, range, part, older_than) for range, part in past]
    rest = [_count(conn, gap, None, older_than) for gap in _gaps(p.range for p in parts if p.range)]
    return found + [stretch for stretch in rest if stretch.runs]


def remove_old_runs(
    conn: Connection[Any],
    keep: timedelta | None,
    *,
    width: timedelta | None = None,
    is_dry: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Remove what ended longer than `keep` ago, and make partitions for the time to come.

    Args:
        keep: None removes nothing.
        width: the usual time for which runs are kept, by which new partitions are cut; default: `keep`.
        is_dry: only look.
        on_progress: called with the number of runs removed so far.

    Raises:
        RetentionError: the role does not own the log; somebody else is removing; the log was in use for a minute.
    """
    done = Outcome()
    now = (conn.execute(query("read_clock")).fetchone() or (None,))[0]
    assert now is not None
    if keep is not None:
        done.older_than = now - keep
    if is_dry:
        done.stretches = [] if done.older_than is None else plan(conn, done.older_than)
        return done
    _require_owner(conn)
    with only_one(conn) as is_free:
        if not is_free:
            raise RetentionError(
                "another process is removing runs or making partitions", hint="Wait for it to end, then look again."
            )
        for row in conn.execute(query("unfinished_removals")).fetchall():
            done.resumed += 1
            _carry_out(conn, Removal(*row), done, on_progress)
        if done.older_than is not None:
            _remove(conn, done.older_than, done, on_progress)
    done.made = len(make_partitions(conn, width or keep))
    return done


def _remove(
    conn: Connection[Any], older_than: datetime, done: Outcome, on_progress: Callable[[int], None] | None
) -> None:
    done.stretches = plan(conn, older_than)
    for stretch in done.stretches:
        if stretch.action != "keep":
            part = stretch.partition if stretch.action == "drop" else None
            bounds = {"low": stretch.range.low, "high": stretch.range.high}
            row = conn.execute(query("begin_removal"), {"part": part, **bounds, "older_than": older_than}).fetchone()
            assert row is not None
            failpoint("after_removal_begun")
            _carry_out(conn, Removal(*row), done, on_progress)
    done.blobs = _sweep_blobs(conn, older_than)


def _carry_out(
    conn: Connection[Any], removal: Removal, done: Outcome, on_progress: Callable[[int], None] | None
) -> None:
    low: UUID | None = removal.low
    while low is not None:
        low, count = briefly(conn, partial(_remove_batch, conn, removal, low))
        failpoint("after_removal")
        done.removed += count
        if on_progress is not None:
            on_progress(done.removed)
    if removal.part is None:
        conn.execute(query("end_removal"), {"id": removal.id})
    else:
        briefly(conn, partial(_drop, conn, removal, removal.part))
        failpoint("after_drop")
        done.dropped += 1


def _remove_batch(conn: Connection[Any], removal: Removal, low: UUID) -> tuple[UUID | None, int]:
    """Remove some runs from `low` on; returns where to go on, or None, and how many are gone."""
    params = {"low": low, "high": removal.high, "older_than": removal.older_than, "take": BATCH}
    rows = conn.execute(query("lock_removable"), params).fetchall()
    if not rows:
        return None, 0
    ids = [row[0] for row in rows] if removal.part else _fitting(rows)
    gone = [row[0] for row in conn.execute(query("delete_heads"), {"run_ids": ids}).fetchall()]
    if removal.part is None:
        conn.execute(query("delete_events"), {"run_ids": gone})
    conn.execute(query("count_removed"), {"id": removal.id, "count": len(gone)})
    failpoint("before_removal")
    return UUID(int=ids[-1].int + 1) if ids[-1].int + 1 < 2**128 else None, len(gone)


def _fitting(rows: Sequence[tuple[UUID, int]]) -> list[UUID]:
    """The first runs with at most `MAX_EVENTS` events together; one at least."""
    ids: list[UUID] = []
    events = 0
    for run_id, last_seq in rows:
        events += last_seq
        if ids and events > MAX_EVENTS:
            break
        ids.append(run_id)
    return ids


def _drop(conn: Connection[Any], removal: Removal, part: str) -> None:
    # The log is locked from here to the commit: whatever is still written to the partition was written before.
    run_ddl(conn, query("detach_partition"), part)
    left = conn.execute(query("runs_left"), {"low": removal.low, "high": removal.high}).fetchall()
    if left:
        move = sql.SQL(query("move_events")).format(name=sql.Identifier(part))
        conn.execute(move, {"run_ids": [row[0] for row in left]})
    run_ddl(conn, query("drop_detached"), part)
    conn.execute(query("end_removal"), {"id": removal.id})
    failpoint("before_drop")


def _sweep_blobs(conn: Connection[Any], older_than: datetime) -> int:
    """Delete the payloads that nobody refers to; returns how many.

    Whoever refers to a blob has put it just before, which marks it as used. So one that was not used since some
    time is referred to by events from before that time, thus of runs created before it: few, after a removal.
    """
    lows = (time_of(p.range.low) for p in list_partitions(conn) if p.range and p.range.high)
    horizon = min(max((low for low in lows if low <= older_than), default=older_than), older_than)
    referred = {row[0] for row in conn.execute(query("list_referred_blobs"), {"before": horizon})}
    unused_since = horizon - UNUSED
    after, swept = b"", 0
    while True:
        params = {"after": after, "unused_since": unused_since, "take": BATCH}
        page = [bytes(row[0]) for row in conn.execute(query("list_old_blobs"), params)]
        if not page:
            return swept
        after = page[-1]
        digests = [digest for digest in page if digest.hex() not in referred]
        with conn.transaction():
            swept += conn.execute(query("delete_blobs"), {"digests": digests, "unused_since": unused_since}).rowcount
            failpoint("before_sweep")
        failpoint("after_sweep")


async def hold_run(session: Session, run_id: UUID, reason: str) -> None:
    """Have retention leave a run alone, for ever. Raises RunNotFound."""
    if not await session.execute("hold_run", {"run_id": run_id, "reason": reason}):
        raise RunNotFound(f"there is no run {run_id}", run_id=str(run_id))


async def unhold_run(session: Session, run_id: UUID) -> bool:
    """Let retention have a run again; whether somebody had asked for it to be kept."""
    return bool(await session.execute("unhold_run", {"run_id": run_id}))


def _require_owner(conn: Connection[Any]) -> None:
    owns, role = conn.execute(query("owns_the_log")).fetchone() or (False, "?")
    if not owns:
        raise RetentionError(
            f"role {role!r} may not remove runs: it does not own the log",
            hint="Use the role that runs `kairos migrate`. Workers and clients have no right to remove history.",
        )


def _count(conn: Connection[Any], range: Range, part: Partition | None, older_than: datetime) -> Stretch:
    params = {"low": range.low, "high": range.high, "older_than": older_than}
    row = conn.execute(query("count_runs"), params).fetchone()
    assert row is not None
    runs, going, held, recent, events = row
    size = part.bytes if part else 0
    return Stretch(range, part.name if part else None, runs, going, held, recent, events, size)


def _gaps(ranges: Iterable[Range]) -> Iterator[Range]:
    """What lies before, between and behind ranges that are in order."""
    low: UUID | None = UUID(int=0)
    for range in ranges:
        if low is not None and range.low > low:
            yield Range(low, range.low)
        low = range.high
    if low is not None:
        yield Range(low, None)


def _times(range: Range) -> tuple[str, str | None]:
    return time_of(range.low).isoformat(), None if range.high is None else time_of(range.high).isoformat()
