"""Hits of a search as rows of a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from debugger_ui.focus import Focus
from debugger_ui.histories import History
from debugger_ui.moments import Moment
from debugger_ui.searches import Found, Match, Searches
from debugger_ui.values import pointer
from kairos.domain import paths
from kairos.domain.editing import INPUT, written

PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One hit as it is shown: where, an excerpt in three parts, and the address."""

    match: Match
    query: str
    value: str
    pointer: str
    where: str
    is_later: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of hits. `next`: the offset of the page after it."""

    text: str
    found: Found
    rows: list[Row]
    offset: int
    next: int | None


async def list_hits(
    searches: Searches, history: History, moment: Moment, *, offset: int = 0, after: int = 0, limit: int = PAGE
) -> Listing:
    """A page of what `moment.q` finds."""
    found = await searches.find(history, moment.q, after)
    rows = [_row(moment, match) for match in found.matches[offset : offset + limit]]
    following = offset + limit if offset + limit < len(found.matches) else None
    return Listing(moment.q, found, rows, offset, following)


def _row(moment: Moment, match: Match) -> Row:
    spot, hit = match.spot, match.hit
    is_value = bool(spot.part)
    value = Focus(spot.seq, spot.part, spot.of).value if is_value else ""
    where = pointer(hit.path) if is_value else ""
    is_own = spot.pane in ("error", "effects", "logs")
    query = moment.query(
        at=spot.seq,
        step=None if spot.pane == "event" else spot.step,
        attempt=spot.attempt if is_own else None,
        pane=spot.pane,
        value=value,
        path=where,
        origin="",
    )
    is_handed_on = spot.part in ("input", "output")
    path = written(spot.step or INPUT, hit.path) if is_handed_on else paths.text_of(hit.path)
    return Row(match, query, value, where, path, spot.seq > moment.at)
