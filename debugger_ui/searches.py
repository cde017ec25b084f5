"""Search in everything that a run holds: keys and values of inputs, outputs, effects, errors and logs.

First the text of each value is looked through as a whole, which costs microseconds; only those that hold what is
sought are read as JSON, to tell where. Texts are kept, so that the next search need not read them again.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from debugger_ui.histories import Entry, History
from debugger_ui.shelf import GONE, TOO_LONG, Shelf, batches
from debugger_ui.values import MAX_TREE
from kairos.domain import canonical
from kairos.domain.documents import error_json
from kairos.domain.events import EffectRecorded, LogEmitted, MetricEmitted, RunForked, StepFailed, StepsInherited
from kairos.domain.holders import Holder, held_by
from kairos.domain.payload import Payload
from kairos.domain.searching import Hit, find_in, folded, needle_of

MAX_HITS: Final = 2_000
MAX_RUNS: Final = 8
MAX_SPOTS: Final = 300_000
"""Searched things in memory, of all runs together."""
CHUNK: Final = 2_000
PATIENCE: Final = 2.5
"""Seconds after which a search stops for now, and says how far it came."""


@dataclass(frozen=True, slots=True)
class Spot:
    """One thing that can be searched: a value of an event, or what it says in words.

    Attributes:
        pane: which pane of the inspector shows it; `part` and `of`: as in a `Focus`, empty if it is no value.
        text: what to look in, of words; of a value it is kept elsewhere, by its hash.
    """

    seq: int
    pane: str
    step: str | None
    attempt: int | None
    label: str
    part: str = ""
    of: str = ""
    payload: Payload | None = None
    words: Any = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """One hit, and where."""

    spot: Spot
    hit: Hit


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        matches: in order of the log; `is_capped`: there are more, which were not looked for.
        unread: what could not be searched, with why; `stopped`: seq up to which the time sufficed, None if to the end.
    """

    matches: Sequence[Match]
    is_capped: bool = False
    unread: Sequence[tuple[Spot, str]] = ()
    stopped: int | None = None

    def seqs(self, most: int = MAX_HITS) -> list[int]:
        """The events that hold something, ascending."""
        return list(dict.fromkeys(match.spot.seq for match in self.matches))[:most]


@dataclass
class _Run:
    history: History
    spots: list[Spot] = field(default_factory=list)
    upto: int = 0


class Searches:
    """Searches runs; what it needs of them grows with them."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._runs: OrderedDict[UUID, _Run] = OrderedDict()
        self._recent: OrderedDict[tuple[UUID, int, str, int], Found] = OrderedDict()

    async def find(self, history: History, text: str, after: int = 0) -> Found:
        """Everything behind event `after` that holds `text`; upper and lower case are equal."""
        wanted = text.strip()
        if not wanted:
            return Found(())
        key = (history.run_id, history.seq, wanted, after)
        known = self._recent.get(key)
        if known is None:
            known = await self._find(history, wanted, after)
            self._recent[key] = known
            while len(self._recent) > MAX_RUNS:
                self._recent.popitem(last=False)
        return known

    async def _find(self, history: History, text: str, after: int) -> Found:
        spots = await self._spots(history)
        needle, end = needle_of(text), time.monotonic() + PATIENCE
        matches: list[Match] = []
        unread: list[tuple[Spot, str]] = []
        for start in range(0, len(spots), CHUNK):
            portion = [spot for spot in spots[start : start + CHUNK] if spot.seq > after]
            hits = await self._among(portion, needle, unread)
            for batch in _by_size(hits):
                raws = await self._shelf.read([s.payload for s in batch if s.payload is not None])
                matches += await asyncio.to_thread(_located, batch, raws, text, MAX_HITS + 1 - len(matches))
                if len(matches) > MAX_HITS:
                    return Found(matches[:MAX_HITS], True, unread)
            if time.monotonic() > end and start + CHUNK < len(spots):
                return Found(matches, False, unread, portion[-1].seq if portion else after)
        return Found(matches, False, unread)

    async def _among(self, spots: Sequence[Spot], needle: str, unread: list[tuple[Spot, str]]) -> list[Spot]:
        """Those that hold the needle somewhere."""
        texts: dict[str, str] = {}
        missing: dict[str, Payload] = {}
        for spot in spots:
            payload = spot.payload
            if payload is None or payload.size > MAX_TREE:
                continue
            known = self._shelf.known_text(payload)
            if known is None:
                missing[payload.digest] = payload
            else:
                texts[payload.digest] = known
        for batch in batches(missing.values()):
            texts |= await self._shelf.texts(batch)
        found = []
        for spot in spots:
            if spot.payload is None:
                text: str | None = spot.text
            else:
                text = texts.get(spot.payload.digest)
            if text is None:
                unread.append((spot, TOO_LONG if spot.payload and spot.payload.size > MAX_TREE else GONE))
            elif needle in text:
                found.append(spot)
        return found

    async def _spots(self, history: History) -> list[Spot]:
        held = self._runs.get(history.run_id)
        if held is None or held.history is not history:
            held = self._runs[history.run_id] = _Run(history)
        self._runs.move_to_end(history.run_id)
        while held.upto < history.seq:
            for entry in history.entries[held.upto : held.upto + CHUNK]:
                held.spots += _spots_of(entry)
                held.upto = entry.seq
            await asyncio.sleep(0)
        while len(self._runs) > 1 and (
            len(self._runs) > MAX_RUNS or sum(len(run.spots) for run in self._runs.values()) > MAX_SPOTS
        ):
            self._runs.popitem(last=False)
        return held.spots


def _spots_of(entry: Entry) -> Iterator[Spot]:
    """What can be searched in one event."""
    if entry.recorded is None:
        return
    event: Any = entry.recorded.event
    for holder in held_by(entry.seq, event):
        yield _value(holder)
    step, attempt = entry.step, entry.attempt
    match event:
        case StepFailed():
            yield _words(entry, "error", step, attempt, "error", error_json(event.error))
        case EffectRecorded(error=error) if error is not None:
            yield _words(entry, "effects", step, attempt, f"{event.name} error", error_json(error))
        case EffectRecorded():
            yield _words(entry, "effects", step, attempt, "effect", event.name)
        case LogEmitted():
            yield _words(entry, "logs", step, attempt, "log", {"message": event.message, "fields": dict(event.fields)})
        case MetricEmitted():
            words = {"name": event.name, "value": event.value, "labels": dict(event.labels)}
            yield _words(entry, "logs", step, attempt, "metric", words)
        case RunForked():
            said = {"author": event.author, "reason": event.reason, "edits": dict(event.edits)}
            yield _words(entry, "event", None, None, "fork", said)
        case StepsInherited():
            return
        case _:
            reason = getattr(event, "reason", None)
            if reason:
                yield _words(entry, "event", step, attempt, "reason", reason)


def _value(holder: Holder) -> Spot:
    is_many = holder.kind == "steps_inherited"
    pane = {"input": "input", "output": "output"}.get(holder.part, "effects")
    label = holder.part if holder.effect is None else f"{holder.effect[0]} {holder.part}"
    of = (holder.step or "") if is_many else ""
    return Spot(holder.seq, pane, holder.step, holder.attempt, label, holder.part, of, holder.payload)


def _words(entry: Entry, pane: str, step: str | None, attempt: int | None, label: str, said: Any) -> Spot:
    text = folded(canonical.encode_trusted(said))
    return Spot(entry.seq, pane, step, attempt, label, words=said, text=text)


def _by_size(spots: Sequence[Spot]) -> Iterator[list[Spot]]:
    """Portions whose values are read in one go: small ones first, as most searches are over after a few."""
    batch: list[Spot] = []
    size = 0
    for spot in spots:
        length = spot.payload.size if spot.payload is not None else 0
        if batch and (size + length > 2_000_000 or len(batch) >= 500):
            yield batch
            batch, size = [], 0
        batch.append(spot)
        size += length
    if batch:
        yield batch


def _located(spots: Sequence[Spot], raws: dict[str, bytes], text: str, most: int) -> list[Match]:
    found: list[Match] = []
    for spot in spots:
        value = spot.words
        if spot.payload is not None:
            raw = raws.get(spot.payload.digest)
            if raw is None:
                continue
            try:
                value = canonical.decode(raw)
            except ValueError:
                continue
        for hit in find_in(value, text):
            found.append(Match(spot, hit))
            if len(found) >= most:
                return found
    return found
