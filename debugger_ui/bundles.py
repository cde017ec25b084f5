"""A bundle in the place of the database: the same questions, answered out of one file.

A page asks `ui.reads.reader()`; of a run that was opened from a file, that is a `BundleReader`. So whatever works on
the database works on a bundle, but for what no file can know: workers, queues, other runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn
from uuid import UUID

from debugger_ui.reads import Reads
from kairos.domain.fingerprint import Definition
from kairos.domain.payload import Payload
from kairos.domain.states import RunStatus
from kairos.errors import Refused, RunNotFound
from kairos.replay.heads import info_of
from kairos.replay.record import RunRecord
from kairos.store.codec import Row
from kairos.store.reader import Reader, RunInfo

_NO_LIMIT: Final = 2**31 - 1


class _NoSession:
    """Stands where a connection would be: a question that only a database could answer is refused in words."""

    dsn = ""

    async def execute(self, name: str, *_: Any, **__: Any) -> NoReturn:
        self._refuse(name)

    async def run(self, work: Any, *_: Any, **__: Any) -> NoReturn:
        self._refuse("that")

    @staticmethod
    def _refuse(name: str) -> NoReturn:
        raise Refused(
            f"a bundle cannot answer {name.replace('_', ' ')}: it holds one run and nothing else",
            hint="`kairos import FILE` takes the run into a database.",
        )


class BundleReader(Reader):
    """Answers questions about the one run of a bundle.

    Args:
        address: the id under which the debugger shows the run; the run's own one, or another if that is taken.
    """

    def __init__(self, record: RunRecord, address: UUID) -> None:
        super().__init__(_NoSession())  # type: ignore[arg-type]
        self.record, self.address = record, address
        self.info = info_of(record)

    async def runs(self, ids: Iterable[UUID]) -> dict[UUID, RunInfo]:
        """The run, if it is one of those that are asked for."""
        return {run_id: self.info for run_id in ids if run_id in (self.address, self.record.run_id)}

    async def run(self, run_id: UUID) -> RunInfo:
        """The run. Raises RunNotFound for any other."""
        found = await self.runs([run_id])
        if not found:
            raise RunNotFound(f"run {run_id} is not in this bundle, which holds run {self.record.run_id} alone")
        return self.info

    async def find(self, name: str) -> UUID:
        """The run, by any name that the address has."""
        return self.address

    async def definition(self, fingerprint: str) -> Definition:
        """What the run is pinned to."""
        return self.record.definition

    async def heads(self, ids: Iterable[UUID]) -> dict[UUID, tuple[int, RunStatus]]:
        """How far the run had come when it was exported."""
        return {run_id: (info.seq, info.status) for run_id, info in (await self.runs(ids)).items()}

    async def rows(self, run_id: UUID, after: int = 0, upto: int = _NO_LIMIT) -> list[Row]:
        """Events as stored."""
        return list(self.record.rows[after:upto])

    async def payloads(self, payloads: Iterable[Payload]) -> dict[str, bytes]:
        """The bytes of values by digest. Raises HistoryError if one was left out of the file."""
        return {payload.digest: self.record.bytes_of(payload) for payload in payloads}


class BundleReads(Reads):
    """The only source of one opened run."""

    has_database = False

    def __init__(self, record: RunRecord, address: UUID) -> None:
        super().__init__("")
        self._reader = BundleReader(record, address)

    def open(self) -> None:
        """Nothing: the file was read when it was opened."""

    async def close(self) -> None:
        """Nothing: no handle stays open."""

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[Reader]:
        """The reader of the bundle; any number at a time."""
        yield self._reader

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[Reader]:
        """The same one."""
        yield self._reader
