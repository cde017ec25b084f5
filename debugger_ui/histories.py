"""Runs as held in memory: their events, and the state after any of them.

A run is read once and then only its tail. The state at a seq is folded from the nearest keyframe by the same
`apply` that the engine uses, so a page can show no other past than the one that the engine lived.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from debugger_ui.bundles import BundleReader
from debugger_ui.reads import Reads
from kairos.domain.events import Recorded
from kairos.domain.fingerprint import Definition
from kairos.domain.projection import RunState, apply
from kairos.domain.states import RunStatus
from kairos.errors import HistoryError, InvalidTransition, RunNotFound
from kairos.store.codec import Row, decode
from kairos.store.reader import Reader

KEYFRAME_EVERY: Final = 512
MAX_KEYFRAMES: Final = 64
CHUNK: Final = 2_000
"""Events that are read and decoded in one go: others get their turn in between."""
MAX_HELD: Final = 400_000
"""Events in memory, of all runs together; the run that was looked at least recently goes first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in its place. `recorded` is None when this Kairos cannot read it; `row` then can be shown."""

    seq: int
    at: datetime
    kind: str
    step: str | None
    attempt: int | None
    recorded: Recorded | None
    row: Row | None = None


@dataclass
class History:
    """One run up to `seq`. Grows by `take`; what is there never changes.

    Attributes:
        entries: entry i holds the event with seq i + 1.
        by_step: step -> the seqs of its events, ascending.
        broken: seq of the first event that the fold could not take, and why; the state stands still from there.
        run_id: the id in the addresses of its pages. `own_id`: its own, if it was opened from a file and shown
            under another.
        is_fixed: it was read from a file: nothing more will come, even if it had not ended.
    """

    run_id: UUID
    fingerprint: str
    definition: Definition
    own_id: UUID | None = None
    is_fixed: bool = False
    entries: list[Entry] = field(default_factory=list)
    by_step: dict[str, list[int]] = field(default_factory=dict)
    broken: tuple[int, str] | None = None
    _keyframes: list[RunState] = field(default_factory=list)
    _every: int = KEYFRAME_EVERY

    def __post_init__(self) -> None:
        self._tip = RunState(self.id, self.definition.graph)
        self._keyframes.append(_copied(self._tip))

    @property
    def id(self) -> UUID:
        """The run's own id."""
        return self.own_id or self.run_id

    @property
    def grows(self) -> bool:
        """Whether there may be more events at the next look."""
        return not self.is_fixed and not self.is_over

    @property
    def seq(self) -> int:
        """Number of events so far."""
        return len(self.entries)

    @property
    def state(self) -> RunState:
        """The state after the last event. Not to be changed."""
        return self._tip

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self._tip.status.is_terminal

    def take(self, row: Row) -> None:
        """Add the next event."""
        try:
            recorded: Recorded | None = decode(row)
        except HistoryError as exc:
            recorded = None
            self._break(row.seq, exc.message)
        kept = row if recorded is None else None
        self.entries.append(Entry(row.seq, row.at, row.kind, row.step or None, row.attempt, recorded, kept))
        for step in self._steps_of(row, recorded):
            self.by_step.setdefault(step, []).append(row.seq)
        if recorded is not None and self.broken is None:
            try:
                apply(self._tip, recorded)
            except (HistoryError, InvalidTransition) as exc:
                self._break(row.seq, exc.message)
        if self.broken is None and row.seq - self._keyframes[-1].seq >= self._every:
            self._keyframes.append(_copied(self._tip))
            if len(self._keyframes) > MAX_KEYFRAMES:
                self._keyframes = self._keyframes[::2]
                self._every *= 2

    def state_at(self, seq: int) -> RunState:
        """The state after event `seq` (0: before the first); a copy. Stands still from where the log is broken."""
        if self.broken is not None:
            seq = min(seq, self.broken[0] - 1)
        where = bisect_right(self._keyframes, seq, key=lambda frame: frame.seq) - 1
        state = _copied(self._keyframes[where])
        for entry in self.entries[state.seq : max(seq, 0)]:
            if entry.recorded is not None:
                apply(state, entry.recorded)
        return state

    def of_step(self, step: str, upto: int | None = None) -> Iterator[Entry]:
        """The events of one step, oldest first, up to seq `upto`."""
        for seq in self.by_step.get(step, ()):
            if upto is not None and seq > upto:
                return
            yield self.entries[seq - 1]

    def first_of(self, *kinds: str) -> int | None:
        """Seq of the first event of one of these kinds."""
        return next((entry.seq for entry in self.entries if entry.kind in kinds), None)

    def seq_at(self, moment: datetime) -> int:
        """Seq of the last event that had happened at `moment`; 1 at least."""
        return max(bisect_right(self.entries, moment, key=lambda entry: entry.at), 1)

    def _break(self, seq: int, why: str) -> None:
        if self.broken is None:
            self.broken = (seq, why)

    @staticmethod
    def _steps_of(row: Row, recorded: Recorded | None) -> list[str]:
        if row.step:
            return [row.step]
        outputs = getattr(recorded.event, "outputs", None) if recorded and row.kind == "steps_inherited" else None
        return list(outputs or ())


def _copied(state: RunState) -> RunState:
    """A state of its own, sharing what never changes."""
    fresh = copy(state)
    fresh.steps = {name: copy(step) for name, step in state.steps.items()}
    for step in fresh.steps.values():
        if step.effects is not None:
            step.effects = dict(step.effects)
    fresh.waiting_on, fresh.ready = dict(state.waiting_on), dict(state.ready)
    return fresh


class Histories:
    """The runs that were looked at last."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._held: OrderedDict[UUID, History] = OrderedDict()
        # A lock is there for as long as somebody has it or waits for it: two who read a run on would read it twice.
        self._busy: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def get(self, run_id: UUID, *, upto: int | None = None) -> History:
        """The run as it is now, or at least up to seq `upto`.

        Raises:
            RunNotFound: there is no such run (any more).
            HistoryError: its definition is missing.
        """
        known = self._held.get(run_id)
        if known is not None and (not known.grows or (upto is not None and known.seq >= upto)):
            self._held.move_to_end(run_id)
            return known
        lock = self._busy.setdefault(run_id, asyncio.Lock())
        async with lock:
            try:
                async with self._reads.reader() as reader:
                    known = self._held.get(run_id) or await self._begin(reader, run_id)
                    await _catch_up(reader, known)
            except RunNotFound:
                self._held.pop(run_id, None)
                raise
            self._held[run_id] = known
        self._held.move_to_end(run_id)
        self._let_go()
        return known

    async def find(self, name: str) -> UUID:
        """The run that a part of an id means. Raises RunNotFound, AmbiguousRun."""
        try:
            return UUID(name)
        except ValueError:
            async with self._reads.reader() as reader:
                return await reader.find(name)

    @staticmethod
    async def _begin(reader: Reader, run_id: UUID) -> History:
        info = await reader.run(run_id)
        definition = await reader.definition(info.fingerprint)
        return History(run_id, info.fingerprint, definition, info.id, isinstance(reader, BundleReader))

    def _let_go(self) -> None:
        total = sum(history.seq for history in self._held.values())
        while total > MAX_HELD and len(self._held) > 1:
            total -= self._held.popitem(last=False)[1].seq


async def _catch_up(reader: Reader, history: History) -> None:
    while True:
        rows = await reader.rows(history.run_id, history.seq, history.seq + CHUNK)
        for row in rows:
            history.take(row)
        if len(rows) < CHUNK:
            return
        await asyncio.sleep(0)


def is_bad(status: RunStatus) -> bool:
    """Whether a run ended otherwise than it was meant to."""
    return status in (RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.EXPIRED)
