"""Looks for runs by what they were given. Inputs have no index, so a search reads them: so many, and for so long."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from kairos.domain.matching import InputQuery
from kairos.domain.payload import Payload
from kairos.errors import HistoryError
from kairos.store.lists import RunFilter
from kairos.store.reader import Reader, RunInfo

AMONG: Final = 5_000
SECONDS: Final = 1.5
CHUNK: Final = 500
LONGEST: Final = 256_000
"""Bytes of an input up to which it is looked into."""


@dataclass(slots=True)
class Found:
    """What a search came to.

    Attributes:
        runs: newest first.
        looked: how many runs were looked at; `back_to`: when the oldest of them was created.
        following: where to look further (`before`); None if there is nothing older.
        skipped: how many inputs were too long, or cannot be read.
    """

    runs: list[RunInfo] = field(default_factory=list)
    looked: int = 0
    back_to: datetime | None = None
    following: UUID | None = None
    skipped: int = 0


async def search_inputs(
    reader: Reader,
    query: InputQuery,
    wanted: RunFilter,
    *,
    before: UUID | None = None,
    limit: int = 50,
    among: int = AMONG,
    seconds: float = SECONDS,
) -> Found:
    """The newest `limit` runs with such an input, among the newest `among` that fit the filter.

    It stops earlier when `seconds` are over. `Found.following` is where the next search goes on.
    """
    found, began = Found(following=before), time.monotonic()
    while found.looked < among and time.monotonic() - began < seconds:
        infos = await reader.select_runs(wanted, before=found.following, limit=min(CHUNK, among - found.looked))
        inputs = await reader.inputs([info.id for info in infos])
        short = {run_id: payload for run_id, payload in inputs.items() if payload.size <= LONGEST}
        raw = await _read(reader, list(short.values()))
        for info in infos:
            found.looked, found.back_to, found.following = found.looked + 1, info.created_at, info.id
            payload = short.get(info.id)
            if payload is None or payload.digest not in raw:
                found.skipped += 1
            elif query.takes(raw[payload.digest]):
                found.runs.append(info)
                if len(found.runs) == limit:
                    return found
        if len(infos) < CHUNK and found.looked < among:
            found.following = None
            return found
    return found


async def _read(reader: Reader, payloads: list[Payload]) -> dict[str, bytes]:
    try:
        return await reader.payloads(payloads)
    except HistoryError:
        # One blob that is missing must not hide the other inputs.
        return {p.digest: raw for p in payloads if (raw := p.data or p.inline) is not None}
