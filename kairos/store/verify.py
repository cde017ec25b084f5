"""Proves that histories are whole, or names the first event that is not. Reads only.

For every run: seq counts from 1 without a gap, the hash chain holds from the run's id to the head, every event
can be read and is allowed by the rules, the fold agrees with the stored head, payloads are there and have the
hash by which they are named, and a run that goes on has a task. Somebody who may rewrite a whole history with
its head can still forge it: the chain makes tampering evident to whoever kept an older head hash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from kairos.domain import canonical
from kairos.domain.events import output_in
from kairos.domain.fingerprint import Definition, forged_sources
from kairos.domain.fingerprint import fingerprint as fingerprint_of
from kairos.domain.payload import Payload
from kairos.errors import KairosError, RunNotFound
from kairos.store.codec import Row, decode
from kairos.store.connect import Session
from kairos.store.proof import Head, Problem, Report, check_run

__all__ = ["Problem", "Report", "Verifier"]

PAGE: Final = 500
MAX_EVENTS: Final = 50_000
"""Runs are read in groups of about this many events."""


class Verifier:
    """Checks runs through one session, keeping definitions and known-good payloads between them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._definitions: dict[str, Definition | str] = {}
        self._good_blobs: set[str] = set()
        self._good_origins: set[tuple[str, int, str]] = set()
        self.report = Report()

    async def one(self, run_id: UUID) -> Report:
        """Check one run. Raises RunNotFound."""
        params = {"run_ids": [run_id], "after": None, "take": 1}
        heads = [Head.of(row) for row in await self._session.execute("verify_heads", params)]
        if not heads:
            raise RunNotFound(f"there is no run {run_id}", run_id=str(run_id))
        await self._group(heads)
        return self.report

    async def every(self) -> AsyncIterator[Report]:
        """Check every run; yields the report as it grows, after each group."""
        after: UUID | None = None
        while True:
            params = {"run_ids": None, "after": after, "take": PAGE}
            heads = [Head.of(row) for row in await self._session.execute("verify_heads", params)]
            for group in _groups(heads):
                await self._group(group)
                yield self.report
            if len(heads) < PAGE:
                break
            after = heads[-1].run_id
        for (run_id,) in await self._session.execute("verify_orphans", {"take": 1000}):
            self._found(run_id, "orphan", "its events are there but its head is gone")
        yield self.report

    async def _group(self, heads: Sequence[Head]) -> None:
        rows: dict[UUID, list[Row]] = {head.run_id: [] for head in heads}
        newest = {head.run_id: head.newest for head in heads}
        for row in await self._session.execute("verify_events", {"run_ids": list(rows)}):
            if row[1] <= newest[row[0]]:
                rows[row[0]].append(Row(*row[1:]))
        payloads: list[tuple[UUID, int, Payload]] = []
        known = len(self.report.problems)
        for head in heads:
            definition = await self._definition(head)
            payloads += check_run(head, rows[head.run_id], definition, self.report)
        await self._check_blobs(payloads)
        await self._check_parents(heads)
        await self._check_origins(payloads)
        await self._forgive_the_removed(known)

    async def _forgive_the_removed(self, known: int) -> None:
        """Between the look at a head and the look at its events, retention may have removed both."""
        suspects = self.report.problems[known:]
        if suspects:
            params = {"run_ids": list({problem.run_id for problem in suspects})}
            there = {row[0] for row in await self._session.execute("read_heads", params)}
            self.report.problems[known:] = [problem for problem in suspects if problem.run_id in there]

    async def _definition(self, head: Head) -> Definition | None:
        """The pinned definition, proved to be what its name says; a problem is reported once per run."""
        known = self._definitions.get(head.fingerprint)
        if known is None:
            rows = await self._session.execute("get_definition", {"fingerprint": head.fingerprint})
            known = self._definitions[head.fingerprint] = _read_definition(head.fingerprint, rows)
        if isinstance(known, str):
            self._found(head.run_id, "definition", known)
            return None
        return known

    async def _check_blobs(self, payloads: Iterable[tuple[UUID, int, Payload]]) -> None:
        wanted: dict[str, list[tuple[UUID, int, Payload]]] = {}
        for item in payloads:
            if item[2].sha256 is not None and item[2].sha256 not in self._good_blobs:
                wanted.setdefault(item[2].sha256, []).append(item)
        digests = list(wanted)
        for begin in range(0, len(digests), 50):
            part = digests[begin : begin + 50]
            found = await self._session.execute("get_blobs", {"digests": [bytes.fromhex(d) for d in part]})
            datas = {bytes(row[0]).hex(): bytes(row[1]) for row in found}
            for digest in part:
                self._check_blob(digest, datas.get(digest), wanted[digest])

    async def _check_parents(self, heads: Sequence[Head]) -> None:
        """A parent is there as long as its forks are: they hold it."""
        parents = {head.parent for head in heads if head.parent is not None}
        there = await self._there(parents)
        for head in heads:
            if head.parent is not None and head.parent not in there:
                self._found(head.run_id, "origin", f"run {head.parent}, of which it is a fork, is gone", 2)

    async def _check_origins(self, payloads: Iterable[tuple[UUID, int, Payload]]) -> None:
        """What a fork inherited stands in the event that it refers to, with the hash by which it is named."""
        users: dict[tuple[str, int, str], list[tuple[UUID, int, Payload]]] = {}
        for item in payloads:
            if item[2].origin is not None:
                users.setdefault((*item[2].origin, item[2].digest), []).append(item)
        wanted = [key for key in users if key not in self._good_origins]
        for begin in range(0, len(wanted), PAGE):
            page = wanted[begin : begin + PAGE]
            params = {"run_ids": [UUID(key[0]) for key in page], "seqs": [key[1] for key in page]}
            rows = await self._session.execute("get_events_at", params)
            held = {(str(row[0]), row[1]): _output_of(Row(*row[1:])) for row in rows}
            there = {str(run_id) for run_id in await self._there({UUID(key[0]) for key in page})}
            for key in page:
                self._check_origin(key, held, there, users[key])

    def _check_origin(
        self,
        key: tuple[str, int, str],
        held: Mapping[tuple[str, int], Payload | None],
        there: set[str],
        users: list[tuple[UUID, int, Payload]],
    ) -> None:
        run, seq, digest = key
        output = held.get((run, seq))
        problem = None
        if run not in there:
            problem = f"run {run}, which made outputs that it inherited, is gone"
        elif (run, seq) not in held:
            problem = f"event {seq} of run {run}, which holds an output that it inherited, is missing"
        elif output is None or output.digest != digest or any(p.size != output.size for _, _, p in users):
            problem = f"event {seq} of run {run} does not hold the output that it inherited"
        if problem is None:
            self._good_origins.add(key)
            return
        known = {(p.run_id, p.message) for p in self.report.problems if p.code == "origin"}
        for run_id, at, _ in users:
            if (run_id, problem) not in known:  # one that is gone is named once, however many steps it made
                known.add((run_id, problem))
                self._found(run_id, "origin", problem, at)

    async def _there(self, run_ids: Iterable[UUID]) -> set[UUID]:
        wanted = list(run_ids)
        return {row[0] for row in await self._session.execute("read_heads", {"run_ids": wanted})} if wanted else set()

    def _check_blob(self, digest: str, data: bytes | None, users: list[tuple[UUID, int, Payload]]) -> None:
        self.report.blobs += 1
        problem = None
        if data is None:
            problem = f"payload {digest[:12]} is missing"
        elif sha256(data).hexdigest() != digest:
            problem = f"payload {digest[:12]} was changed: its bytes have another hash"
        elif any(payload.size != len(data) for _, _, payload in users):
            problem = f"payload {digest[:12]} has {len(data)} bytes, which is not what its event says"
        if problem is None:
            self._good_blobs.add(digest)
            return
        for run_id, seq, _ in users:
            self._found(run_id, "blob", problem, seq)

    def _found(self, run_id: UUID, code: str, message: str, seq: int | None = None) -> None:
        self.report.problems.append(Problem(run_id, code, message, seq))


def _output_of(row: Row) -> Payload | None:
    try:
        return output_in(decode(row).event, row.step or "")
    except KairosError:
        return None


def _groups(heads: Sequence[Head]) -> Iterable[list[Head]]:
    group: list[Head] = []
    size = 0
    for head in heads:
        if group and size + head.newest > MAX_EVENTS:
            yield group
            group, size = [], 0
        group.append(head)
        size += head.newest
    if group:
        yield group


def _read_definition(fingerprint: str, rows: Sequence[Sequence[Any]]) -> Definition | str:
    if not rows:
        return f"definition {fingerprint} is missing"
    try:
        definition = Definition.from_json(canonical.decode(bytes(rows[0][0])))
    except (ValueError, KeyError, TypeError, KairosError) as exc:
        return f"definition {fingerprint} cannot be read: {exc}"
    if fingerprint_of(definition) != fingerprint:
        return f"definition {fingerprint} was changed: its content has fingerprint {fingerprint_of(definition)}"
    forged = forged_sources(definition)
    if forged:
        return f"definition {fingerprint} was changed: the source of step {forged[0]!r} is not the one that ran"
    return definition
