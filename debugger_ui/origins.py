"""Where values came from and who went on with them: the rules of `kairos.domain.origin` over runs in memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from debugger_ui.histories import History
from debugger_ui.shelf import GONE, Shelf
from kairos.domain.holders import Holder, Ledger
from kairos.domain.origin import Index, Onward, Origin, Place, trace_back, trace_forward
from kairos.domain.subtrees import Key, Subtrees

MAX_LEDGERS: Final = 24
CHUNK: Final = 5_000


class Origins:
    """Answers questions about values. What is known of a run grows with it."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._ledgers: OrderedDict[UUID, tuple[History, Ledger]] = OrderedDict()

    async def ledger(self, history: History) -> Ledger:
        """The values of a run, up to its last event."""
        held = self._ledgers.get(history.run_id)
        if held is None or held[0] is not history:
            held = (history, Ledger(history.definition.graph))
            self._ledgers[history.run_id] = held
        self._ledgers.move_to_end(history.run_id)
        while len(self._ledgers) > MAX_LEDGERS:
            self._ledgers.popitem(last=False)
        ledger = held[1]
        while ledger.upto < history.seq:
            for entry in history.entries[ledger.upto : ledger.upto + CHUNK]:
                ledger.take(entry.seq, entry.recorded)
            await asyncio.sleep(0)
        return ledger

    async def back(self, history: History, holder: Holder, path: Sequence[Key]) -> tuple[Origin, dict[Holder, str]]:
        """Where the value at a place came from; and what could not be looked through, with why.

        Raises:
            InvalidArgument: there is nothing at that place.
        """
        ledger = await self.ledger(history)
        index, unread = await self._index([holder, *ledger.before(holder)])
        return await asyncio.to_thread(trace_back, ledger, index, _place(index, holder, path)), unread

    async def forward(self, history: History, holder: Holder, path: Sequence[Key]) -> tuple[Onward, dict[Holder, str]]:
        """Who went on with it. As `back`."""
        ledger = await self.ledger(history)
        index, unread = await self._index([holder, *ledger.after(holder)])
        return await asyncio.to_thread(trace_forward, ledger, index, _place(index, holder, path)), unread

    async def _index(self, holders: Iterable[Holder]) -> tuple[Index, dict[Holder, str]]:
        wanted = list(holders)
        found = await self._shelf.trees(holder.payload for holder in wanted)
        unread = {h: why for h in wanted if isinstance(why := found.get(h.payload.digest, GONE), str)}

        def index(holder: Holder) -> Subtrees | None:
            tree = found.get(holder.payload.digest)
            return tree if isinstance(tree, Subtrees) else None

        return index, unread


def _place(index: Index, holder: Holder, path: Sequence[Key]) -> Place:
    """The place, its indices as numbers: in an address all keys are text."""
    trees = index(holder)
    node = None if trees is None else trees.at(path)
    return Place(holder, tuple(path) if trees is None or node is None else trees.path(node))
