"""Values as they are looked through: their places and their text, kept by the hash of their bytes.

The same value is read and walked once, in whichever run, fork or step it stands. Bounded: what was used least
recently goes first. The walking is done in a thread, so that other pages need not wait for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from debugger_ui.reads import Reads
from debugger_ui.values import MAX_TREE
from kairos.domain import canonical
from kairos.domain.payload import Payload
from kairos.domain.searching import folded
from kairos.domain.subtrees import Subtrees, most_places
from kairos.errors import HistoryError

MAX_PLACES: Final = 600_000
"""Places of values in memory, of all runs together: some 70 MB."""
MAX_ONE: Final = 250_000
"""Places of one value; one that has more is not looked through."""
MAX_ASKED: Final = 400_000
"""Places that are looked through for one question; the farthest are left out."""
MAX_TEXT: Final = 64_000_000
"""Characters of text in memory."""
BATCH: Final = 8_000_000
"""Bytes that are read from the database in one go."""
TOO_LONG: Final = "too long to be looked through"
TOO_MUCH: Final = "left out: there is too much to look through"
TOO_DEEP: Final = "nested too deep to be looked through"
GONE: Final = "its bytes are gone"

T = TypeVar("T")


class Bounded(Generic[T]):
    """Things by hash, up to a sum of their weights."""

    def __init__(self, most: int) -> None:
        self.most, self.weight = most, 0
        self._held: OrderedDict[str, tuple[T, int]] = OrderedDict()

    def get(self, digest: str) -> T | None:
        """The thing, or None."""
        found = self._held.get(digest)
        if found is None:
            return None
        self._held.move_to_end(digest)
        return found[0]

    def put(self, digest: str, thing: T, weight: int) -> None:
        """Keep a thing; others go for it."""
        if digest in self._held:
            return
        self._held[digest] = (thing, weight)
        self.weight += weight
        while self.weight > self.most and len(self._held) > 1:
            self.weight -= self._held.popitem(last=False)[1][1]

    def __len__(self) -> int:
        return len(self._held)


class Shelf:
    """What is kept of the values that were looked through last."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._trees: Bounded[Subtrees | str] = Bounded(MAX_PLACES)
        self._texts: Bounded[str] = Bounded(MAX_TEXT)

    async def trees(self, payloads: Iterable[Payload]) -> dict[str, Subtrees | str]:
        """By digest: the places of these values, or why there are none. The first ones count, if it gets too much."""
        found: dict[str, Subtrees | str] = {}
        wanted: dict[str, Payload] = {}
        room = MAX_ASKED
        for payload in payloads:
            known = self._trees.get(payload.digest)
            if known is not None:
                found[payload.digest] = known
                room -= len(known) if isinstance(known, Subtrees) else 0
            elif payload.size > MAX_TREE:
                found[payload.digest] = TOO_LONG
            else:
                wanted[payload.digest] = payload
        for batch in batches(wanted.values()):
            if room <= 0:
                found |= dict.fromkeys((p.digest for p in batch), TOO_MUCH)
                continue
            raws = await self.read(batch)
            made = await asyncio.to_thread(_walked, raws, room)
            for payload in batch:
                tree = made.get(payload.digest, GONE)
                found[payload.digest] = tree
                if isinstance(tree, Subtrees):
                    room -= len(tree)
                    self._trees.put(payload.digest, tree, len(tree))
        return found

    def known_text(self, payload: Payload) -> str | None:
        """The text of a value, if it is at hand."""
        return self._texts.get(payload.digest)

    async def texts(self, batch: list[Payload]) -> dict[str, str]:
        """By digest: the text of these values to look in. Those whose bytes are gone are left out."""
        raws = await self.read(batch)
        made = await asyncio.to_thread(lambda: {digest: folded(raw) for digest, raw in raws.items()})
        for digest, text in made.items():
            self._texts.put(digest, text, len(text) + 100)
        return made

    async def read(self, batch: Iterable[Payload]) -> dict[str, bytes]:
        """By digest: the bytes of these values. Those that are gone are left out."""
        wanted = list(batch)
        found = {p.digest: p.data for p in wanted if p.data is not None}
        missing = [p for p in wanted if p.data is None]
        if not missing:
            return found
        async with self._reads.reader() as reader:
            try:
                return found | await reader.payloads(missing)
            except HistoryError:
                # One that is gone must not hide the others.
                for payload in missing:
                    try:
                        found |= await reader.payloads([payload])
                    except HistoryError:
                        continue
        return found


def batches(payloads: Iterable[Payload], most: int = BATCH, count: int = 2_000) -> Iterable[list[Payload]]:
    """The payloads in portions that are read in one go."""
    batch: list[Payload] = []
    size = 0
    for payload in payloads:
        if batch and (size + payload.size > most or len(batch) >= count):
            yield batch
            batch, size = [], 0
        batch.append(payload)
        size += payload.size
    if batch:
        yield batch


def _walked(raws: dict[str, bytes], room: int) -> dict[str, Subtrees | str]:
    found: dict[str, Subtrees | str] = {}
    for digest, raw in raws.items():
        most = most_places(raw)
        if most > MAX_ONE:
            found[digest] = TOO_LONG
        elif room <= 0:
            found[digest] = TOO_MUCH
        else:
            found[digest] = _walk(raw)
            room -= most
    return found


def _walk(raw: bytes) -> Subtrees | str:
    try:
        return Subtrees(canonical.decode(raw))
    except (RecursionError, ValueError):
        return TOO_DEEP
