"""Two runs side by side, read within limits: what the compare page and its JSON show."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from debugger_ui import values, words
from debugger_ui.reads import Reads
from kairos.domain.forking import downstream_of
from kairos.domain.projection import RunState
from kairos.errors import InvalidArgument
from kairos.replay.compare import MISSING, Difference, Differences
from kairos.replay.diffing import RunDiff, StepDiff, diff_runs
from kairos.replay.parting import headline, source_changes
from kairos.replay.reading import find_last_good, read_log, read_values
from kairos.replay.record import RunRecord
from kairos.store.reader import Reader

if TYPE_CHECKING:
    from debugger_ui.ui import Ui

LAST_GOOD: Final = "last-good"
MAX_VALUE: Final = 2_000_000
"""Bytes of a value up to which it is compared path by path."""
MAX_VALUES: Final = 40_000_000
"""Bytes of all values that are compared at once."""
MAX_EVENTS: Final = 200_000
MAX_LISTED: Final = 40
MAX_SHOWN: Final = 160
KEPT: Final = 8
MARKS: Final = {"changed": "~", "added": "+", "removed": "-", "type": "≠"}


@dataclass(frozen=True, slots=True)
class Moment:
    """A run, as it stood after event `seq`; None: now."""

    run_id: UUID
    seq: int | None = None

    def __str__(self) -> str:
        return str(self.run_id) if self.seq is None else f"{self.run_id}@{self.seq}"


@dataclass(frozen=True, slots=True)
class Row:
    """One difference: path, and what stands there in A and in B, cut around the place where they differ."""

    mark: str
    kind: str
    path: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the page shows.

    Attributes:
        found: the comparison itself; `sources`: step -> lines of the difference of its source.
        headline: where they part, in one sentence.
        caused: steps that differ below the first one: what happened there may be its consequence.
        others: steps that differ elsewhere; `same`: steps that do not.
    """

    a: Moment
    b: Moment
    found: RunDiff
    sources: Mapping[str, list[str]]
    headline: str
    caused: list[StepDiff]
    others: list[StepDiff]
    same: list[StepDiff]

    @property
    def is_fork(self) -> bool:
        """Whether B was forked from A."""
        forked = self.found.new.state.forked
        return forked is not None and forked.parent == str(self.a.run_id)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        facts = {
            "headline": self.headline,
            "caused": [step.name for step in self.caused],
            "sources": {name: "\n".join(lines) for name, lines in self.sources.items()},
        }
        return {**self.found.to_json(), **facts, "a": str(self.a), "b": str(self.b)}


class Comparisons:
    """The comparisons that were asked for last, of runs that have ended; and at most two at once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Comparison] = OrderedDict()
        self._turn = asyncio.Semaphore(2)

    async def get(self, reads: Reads, a: Moment, b: Moment) -> Comparison:
        """Compare two runs.

        Raises:
            RunNotFound: one of them is not there (any more).
            HistoryError: a log cannot be read.
        """
        key = str(a), str(b)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        async with self._turn, reads.reader() as reader:
            old, new = await _read(reader, a), await _read(reader, b)
            old, new = await _with_values(reader, old, new)
        found = await asyncio.to_thread(_compare, a, b, old, new)
        if found.found.old.state.status.is_terminal and found.found.new.state.status.is_terminal:
            self._kept[key] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found


async def read_moments(ui: Ui, first: str, second: str) -> tuple[Moment, Moment]:
    """The runs that an address means: `RUN`, `RUN@SEQ`, and `last-good` for the last good run before the other one.

    Raises:
        RunNotFound, AmbiguousRun
        InvalidArgument: a run is missing, or SEQ is no number.
    """
    if not first or not second:
        raise InvalidArgument("two runs are needed", hint="/compare?a=RUN&b=RUN; a may be last-good.")
    if first == second == LAST_GOOD:
        raise InvalidArgument("last-good of what? One of the two must be a run", hint="/compare?a=last-good&b=RUN")
    if first == LAST_GOOD:
        b = await _moment(ui, second)
        return await _last_good(ui, b), b
    if second == LAST_GOOD:
        a = await _moment(ui, first)
        return a, await _last_good(ui, a)
    return await _moment(ui, first), await _moment(ui, second)


async def _moment(ui: Ui, text: str) -> Moment:
    name, has_seq, seq = text.strip().partition("@")
    if has_seq and not (seq.isascii() and seq.isdecimal() and len(seq) < 10):
        raise InvalidArgument(f"{text[:80]!r}: behind the @ must be the number of an event")
    return Moment(await ui.histories.find(name), int(seq) if has_seq else None)


async def _last_good(ui: Ui, of: Moment) -> Moment:
    async with ui.reads.reader() as reader:
        info = await reader.run(of.run_id)
        return Moment(await find_last_good(reader, info.workflow, of.run_id))


async def _read(reader: Reader, moment: Moment) -> RunRecord:
    info = await reader.run(moment.run_id)
    if info.seq > MAX_EVENTS:
        raise InvalidArgument(
            f"run {moment.run_id} has {info.seq:,} events: too many to be compared on a page",
            hint=f"`kairos diff {moment.run_id} ...` takes its time and does it.",
        )
    record = await read_log(reader, moment.run_id)
    if moment.seq is None:
        return record
    if not 1 <= moment.seq <= len(record.rows):
        raise InvalidArgument(f"run {moment.run_id} has the events 1 to {len(record.rows):,}, not {moment.seq:,}")
    return replace(record, rows=record.rows[: moment.seq])


async def _with_values(reader: Reader, old: RunRecord, new: RunRecord) -> tuple[RunRecord, RunRecord]:
    """Both with the values that may differ: equal ones have one digest, and need not be read."""
    await asyncio.to_thread(lambda: (old.state, new.state))
    pair = []
    room = MAX_VALUES
    for record, other in ((old, new), (new, old)):
        wanted = []
        known = _digests(other.state)
        for digest, payload in sorted(record.referred.items(), key=lambda item: item[1].size):
            if digest not in known and payload.size <= min(MAX_VALUE, room):
                wanted.append(digest)
                room -= payload.size
        blobs = {digest: raw async for digest, raw in read_values(reader, record, wanted)}
        pair.append(_given(record, blobs))
    return pair[0], pair[1]


def _given(record: RunRecord, blobs: Mapping[str, bytes]) -> RunRecord:
    fresh = replace(record, blobs=blobs)
    # What was decoded once need not be decoded again.
    fresh.__dict__.update({name: record.__dict__[name] for name in ("history", "state") if name in record.__dict__})
    return fresh


def _digests(state: RunState) -> set[str]:
    return {step.output.digest for step in state.steps.values() if step.output is not None}


def _compare(a: Moment, b: Moment, old: RunRecord, new: RunRecord) -> Comparison:
    found = diff_runs(old, new)
    below: set[str] = set()
    if found.first is not None:
        for record in (old, new):
            if found.first.name in record.definition.graph.steps:
                below |= downstream_of(record.definition.graph, found.first.name)
    differing = [step for step in found.steps if step.what and step is not found.first]
    is_input = found.cause == "input"
    return Comparison(
        a,
        b,
        found,
        {name: text.splitlines() for name, text in source_changes(found).items()},
        headline(found),
        [step for step in differing if is_input or step.name in below],
        [step for step in differing if not is_input and step.name not in below],
        [step for step in found.steps if not step.what],
    )


def listed(differences: Differences) -> list[Row]:
    """The first of them, for a page."""
    return [_row(item) for item in differences[:MAX_LISTED]]


def _row(item: Difference) -> Row:
    old, new = _excerpts(item.old, item.new)
    return Row(MARKS[item.kind], item.kind, item.path or "(all)", old, new)


def _excerpts(old: Any, new: Any) -> tuple[str | None, str | None]:
    first, second = _text(old), _text(new)
    place = 0
    if first is not None and second is not None and len(first) > MAX_SHOWN < len(second):
        place = next((i for i, (x, y) in enumerate(zip(first, second, strict=False)) if x != y), 0)
    return _cut(first, place), _cut(second, place)


def _text(value: Any) -> str | None:
    return None if value is MISSING else values.summary(value, 10 * MAX_VALUE)


def _cut(text: str | None, place: int) -> str | None:
    if text is None or len(text) <= MAX_SHOWN:
        return text
    begin = max(min(place - MAX_SHOWN // 3, len(text) - MAX_SHOWN), 0)
    shown = text[begin : begin + MAX_SHOWN]
    return f"{'…' if begin else ''}{shown}{'…' if begin + MAX_SHOWN < len(text) else ''} ({words.size(len(text))})"


def value_groups(step: StepDiff) -> Iterable[tuple[str, Differences]]:
    """What differs in a step, with a title each: inputs, output, effects."""
    for parameter, differences in step.inputs.items():
        yield f"input {parameter}", differences
    if step.output:
        yield "output", step.output
    for effect in step.effects:
        only = {"added": ": only in B", "removed": ": only in A"}.get(effect.kind, f": {effect.kind}")
        yield f"effect {effect.name} #{effect.ordinal}{only}", effect.differences
