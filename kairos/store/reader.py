"""Answers questions about runs, workers and queues. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from kairos.domain import canonical
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import Recorded, RunScheduled, StepFailed, output_in
from kairos.domain.fingerprint import Definition
from kairos.domain.ids import first_id
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState
from kairos.domain.states import RunStatus
from kairos.errors import AmbiguousRun, HistoryError, RunNotFound
from kairos.store import arrays
from kairos.store.codec import Row, decode
from kairos.store.connect import Session
from kairos.store.history import NO_LIMIT, Definitions, fetch_payloads, load_rows, load_run
from kairos.store.lists import RunFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """A run as its head row tells it.

    Attributes:
        seq: number of events so far.
        claims: how often a worker has become its owner.
        ended_at: time of the terminal event; None while the run goes on.
        reason: why it FAILED (`step: error` of the first that did), was CANCELLED or EXPIRED.
    """

    id: UUID
    workflow: str
    status: RunStatus
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    queue: str
    priority: int
    key: str | None
    labels: Mapping[str, str]
    fingerprint: str
    seq: int
    claims: int
    reason: str | None
    failed_steps: tuple[str, ...] = ()
    outputs: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; times in ISO 8601, UTC."""
        return {
            "id": str(self.id),
            "workflow": self.workflow,
            "status": self.status.value,
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
            "queue": self.queue,
            "priority": self.priority,
            "key": self.key,
            "labels": dict(self.labels),
            "fingerprint": self.fingerprint,
            "seq": self.seq,
            "claims": self.claims,
            "reason": self.reason,
            "failed_steps": list(self.failed_steps),
        }


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Runs that ended badly in the same way: workflow, step and type of error.

    Attributes:
        error: that of the latest of them; `latest` is its run, `at` when it ended.
        group: the error's fingerprint, by which a list can be filtered; `first_at`: when the first of them ended.
        last_good: the newest run of the workflow before the latest that is DONE; None if none of the last ones is.
    """

    workflow: str
    status: str
    step: str | None
    count: int
    at: datetime
    latest: UUID
    error: str
    group: str
    first_at: datetime
    last_good: UUID | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; times in ISO 8601, UTC."""
        return {
            "workflow": self.workflow,
            "status": self.status,
            "step": self.step,
            "count": self.count,
            "group": self.group,
            "error": self.error,
            "first_at": self.first_at.isoformat(),
            "last_at": self.at.isoformat(),
            "latest": str(self.latest),
            "last_good": None if self.last_good is None else str(self.last_good),
        }


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended: its output bytes by sink step, or the error of the first dead step."""

    info: RunInfo
    outputs: Mapping[str, bytes]
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, as it was read.

    Attributes:
        row: of `ended_runs`; `info` reads it. Of thousands that are waited for, few are looked at.
        outputs: what its sink steps returned, if that was asked for and it is DONE.
    """

    row: Sequence[Any]
    outputs: Mapping[str, Payload] | None = None

    @property
    def info(self) -> RunInfo:
        """The facts; worked out at each call."""
        return _info(self.row)


def _info(row: Sequence[Any]) -> RunInfo:
    status = RunStatus(row[10])
    body = _body(row[13]) if status.is_terminal else {}
    return RunInfo(
        id=row[0],
        created_at=row[1],
        workflow=row[2],
        fingerprint=row[3],
        queue=row[4],
        priority=row[5],
        key=row[6],
        labels=row[7] or {},
        claims=row[8],
        seq=row[9],
        status=status,
        updated_at=row[11],
        ended_at=row[11] if status.is_terminal else None,
        reason=body.get("reason"),
        failed_steps=tuple(body.get("steps", ())),
        outputs=body.get("outputs"),
    )


def _body(raw: bytes) -> dict[str, Any]:
    try:
        data = canonical.decode(bytes(raw))
        return data if isinstance(data, dict) else {}
    except ValueError:
        return {}  # one unreadable row must not break a whole list; `kairos verify` names it


class Reader:
    """Reads through one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.definitions = Definitions()

    async def runs(self, ids: Iterable[UUID]) -> dict[UUID, RunInfo]:
        """Those of the runs that exist, by id."""
        rows = await self.session.execute("get_runs", {"run_ids": list(ids)})
        return {row[0]: _info(row) for row in rows}

    async def ended(self, ids: Sequence[UUID], *, outputs: bool = False) -> dict[UUID, Ended | None]:
        """Those of the runs that have ended, and None for those that do not exist. One round trip."""
        params = {"run_ids": arrays.uuids(ids), "outputs": outputs}
        found: dict[UUID, Ended | None] = {}
        read: dict[UUID, dict[str, Payload]] = {}
        for row in await self.session.execute("ended_runs", params):
            run_id, step = row[0], row[14]
            if run_id not in found:
                values = read[run_id] = {}
                found[run_id] = None if row[1] is None else Ended(row, values if step else None)
            if step is not None:
                output = output_in(decode(Row(*row[15:])).event, step)
                if output is not None:
                    read[run_id][step] = output
        return found

    async def run(self, run_id: UUID) -> RunInfo:
        """One run. Raises RunNotFound."""
        found = await self.runs([run_id])
        if run_id not in found:
            raise await self._not_found(f"there is no run {run_id}", run_id, run_id, run_id=str(run_id))
        return found[run_id]

    async def list_runs(
        self,
        *,
        workflow: str | None = None,
        statuses: Sequence[str] | None = None,
        key: str | None = None,
        labels: Mapping[str, str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: UUID | None = None,
        limit: int = 50,
    ) -> list[RunInfo]:
        """Newest first. The next page: `before` = the last id of this one."""
        wanted = RunFilter(
            tuple(RunStatus(status) for status in statuses or ()),
            workflow=workflow,
            key=key,
            labels=labels,
            since=since,
            until=until,
        )
        return await self.select_runs(wanted, before=before, limit=limit)

    async def select_runs(
        self, wanted: RunFilter, *, before: UUID | None = None, after: UUID | None = None, limit: int = 50
    ) -> list[RunInfo]:
        """The newest runs that fit, older than `before`; or, with `after`, those next to it that are newer. Newest
        first in any case.

        Raises:
            InvalidArgument: the filter contradicts itself.
        """
        name, params = wanted.statement(before, after, limit)
        infos = [_info(row) for row in await self.session.execute(name, params)]
        return infos[::-1] if after is not None else infos

    async def inputs(self, ids: Sequence[UUID]) -> dict[UUID, Payload]:
        """What each of these runs was given, by primary key; values that are blobs are not read."""
        rows = await self.session.execute("get_events_at", {"run_ids": list(ids), "seqs": [1] * len(ids)})
        events = ((row[0], decode(Row(*row[1:])).event) for row in rows)
        return {run_id: event.input for run_id, event in events if isinstance(event, RunScheduled)}

    async def find(self, name: str) -> UUID:
        """The run that `name` means: a whole id, a unique prefix or suffix of one, or `last`.

        Raises:
            RunNotFound: none matches.
            AmbiguousRun: several match.
        """
        text = name.strip().lower().replace("-", "")
        if text == "last":
            latest = await self.session.execute("latest_run_ids", {"take": 1})
            if not latest:
                raise RunNotFound("there are no runs yet", hint="`kairos run WORKFLOW` starts one.")
            found: UUID = latest[0][0]
            return found
        if not text or len(text) > 32 or any(c not in "0123456789abcdef" for c in text):
            raise RunNotFound(f"{name!r} is not the id of a run, nor a part of one")
        low, high = UUID(text.ljust(32, "0")), UUID(text.ljust(32, "f"))
        # A single letter at the end of an id means nothing: ask for three at least.
        suffix = "%" + text if len(text) >= 3 else "-"
        ids = [
            row[0] for row in await self.session.execute("find_run_ids", {"low": low, "high": high, "suffix": suffix})
        ]
        if not ids:
            raise await self._not_found(f"no run matches {name!r}", low, high, name=name)
        if len(ids) > 1:
            shown = ", ".join(str(i) for i in sorted(ids)[:5])
            raise AmbiguousRun(f"{name!r} matches several runs: {shown}", hint="Give more of the id.", ids=ids)
        one: UUID = ids[0]
        return one

    async def _not_found(self, message: str, low: UUID, high: UUID, **facts: str) -> RunNotFound:
        """The error for ids from `low` to `high`, which says so if runs like these were removed."""
        removals = await self.session.execute("find_removal", {"low": low, "high": high})
        if not removals:
            return RunNotFound(message, **facts)
        at, older_than = removals[0]
        return RunNotFound(
            f"{message} any more: it was removed by retention on {at:%Y-%m-%d %H:%M} UTC, if it ever was there",
            hint=f"Retention removed what had ended before {older_than:%Y-%m-%d %H:%M} UTC. `kairos keep RUN` exempts "
            "a run from it.",
            removed_at=at.isoformat(),
            **facts,
        )

    async def definition(self, fingerprint: str) -> Definition:
        """What runs with this fingerprint are pinned to. Raises HistoryError if it is not in the database."""
        return await self.session.run(lambda conn: self.definitions.get(conn, fingerprint))

    async def latest_definition(self, workflow: str) -> tuple[str, Definition] | None:
        """The version of a workflow that was registered last, and its fingerprint; None if there is none."""
        rows = await self.session.execute("latest_fingerprint", {"workflow": workflow})
        return (rows[0][0], await self.definition(rows[0][0])) if rows else None

    async def heads(self, ids: Iterable[UUID]) -> dict[UUID, tuple[int, RunStatus]]:
        """How far each of the runs has come: last seq and status. By primary key; made to be asked often."""
        rows = await self.session.execute("list_heads", {"run_ids": list(ids)})
        return {row[0]: (row[1], RunStatus(row[2])) for row in rows}

    async def status_counts(self, since: datetime, most: int = 100_000) -> dict[RunStatus, int]:
        """How many of the newest `most` runs created since then are in each status."""
        rows = await self.session.execute("count_recent_statuses", {"since": first_id(since), "take": most})
        return {RunStatus(row[0]): row[1] for row in rows}

    async def failure_groups(
        self, since: datetime, most: int = 20, among: int = 5_000, back: int = 2_000
    ) -> list[FailureGroup]:
        """What went wrong most often among the newest `among` runs that ended badly since then.

        The last good run is looked for among the `back` runs of the workflow before the newest one that failed.
        """
        params = {"since": first_id(since), "among": among, "take": most, "back": back}
        return [FailureGroup(*row) for row in await self.session.execute("group_failures", params)]

    async def rows(self, run_id: UUID, after: int = 0, upto: int = NO_LIMIT) -> list[Row]:
        """Events as stored."""
        return await self.session.run(lambda conn: load_rows(conn, run_id, after, upto))

    async def events(self, run_id: UUID, after: int = 0, upto: int = NO_LIMIT) -> list[Recorded]:
        """Events, decoded."""
        return [decode(row) for row in await self.rows(run_id, after, upto)]

    async def state(self, run_id: UUID, at: int | None = None) -> RunState:
        """The state of a run at seq `at` (default: now). Raises RunNotFound."""
        upto = NO_LIMIT if at is None else at
        run = await self.session.run(lambda conn: load_run(conn, self.definitions, run_id, upto))
        return run.state

    async def payloads(self, payloads: Iterable[Payload]) -> dict[str, bytes]:
        """The bytes of payloads by digest."""
        wanted = list(payloads)
        found = {p.digest: raw for p in wanted if (raw := p.data or p.inline) is not None}
        missing = [p for p in wanted if p.digest not in found]
        return found | await self.session.run(lambda conn: fetch_payloads(conn, missing)) if missing else found

    async def output(self, ended: Ended) -> Finished:
        """What an ended run returned, or its error; no round trip if `ended` holds short outputs."""
        info, outputs = ended.info, ended.outputs
        if outputs is None:
            return (await self.finished([info]))[info.id]
        raw = await self.payloads(outputs.values())
        return Finished(info, {step: raw[outputs[step].digest] for step in info.outputs or {}})

    async def finished(self, infos: Sequence[RunInfo]) -> dict[UUID, Finished]:
        """Outputs and errors of runs that have ended."""
        wanted = [(info.id, step, seq) for info in infos for step, seq in (info.outputs or {}).items()]
        params = {"run_ids": [w[0] for w in wanted], "seqs": [w[2] for w in wanted]}
        rows = await self.session.execute("get_events_at", params) if wanted else []
        events = {(row[0], row[1]): decode(Row(*row[1:])).event for row in rows}
        outputs: dict[tuple[UUID, str], Payload] = {}
        for run_id, step, seq in wanted:
            output = output_in(events[run_id, seq], step) if (run_id, seq) in events else None
            if output is None:
                raise HistoryError(
                    f"run {run_id}: event {seq} does not hold the output of {step!r}",
                    hint=f"`kairos verify {run_id}` says what is wrong.",
                )
            outputs[run_id, step] = output
        raw = await self.payloads(outputs.values())
        result = {}
        for info in infos:
            values = {step: raw[outputs[info.id, step].digest] for step in info.outputs or {}}
            result[info.id] = Finished(info, values, await self._error(info))
        return result

    async def _error(self, info: RunInfo) -> ErrorInfo | None:
        if not info.failed_steps:
            return None
        params = {"run_id": info.id, "step": info.failed_steps[0]}
        rows = await self.session.execute("last_error_of_step", params)
        event = decode(Row(*rows[0])).event if rows else None
        return event.error if isinstance(event, StepFailed) else None
