"""Starts runs: many concurrent `start()` calls become one statement, one commit, one wake-up."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row

from kairos.domain import canonical
from kairos.domain.defaults import fill_defaults
from kairos.domain.fingerprint import Definition
from kairos.domain.graph import DEFAULT_PRIORITY, DEFAULT_QUEUE
from kairos.domain.ids import uuid7
from kairos.domain.names import check_name
from kairos.domain.payload import Payload
from kairos.errors import DefinitionError, KeyConflict, PayloadError
from kairos.store import arrays
from kairos.store.clock import DatabaseClock
from kairos.store.codec import first_hash, link
from kairos.store.connect import Session, prepare_adapters
from kairos.store.failpoints import failpoint
from kairos.store.history import put_definition
from kairos.store.queries import query

if TYPE_CHECKING:
    from kairos.authoring import Workflow

MAX_LABELS = 32
MAX_TEXT = 256
NOTIFY_EVERY = 0.005
"""Seconds between wake-ups of one client: a NOTIFY in each commit would cap the whole server."""
MAX_BATCH = 1000
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class Start:
    """One run to be started."""

    run_id: UUID
    workflow: str
    fingerprint: str
    definition: Definition
    input: Payload
    queue: str
    priority: int
    key: str | None
    labels: Mapping[str, str]
    ttl: timedelta | None
    key_ttl: timedelta | None = None
    trigger: str = "client"
    identity: str | None = None
    """What tells a repeated start with the same key from another one, 64 hex digits; None: the digest of the input."""
    at: datetime | None = None
    """When it was sent, by the database's clock: the time of its first event, if it is new."""
    answer: asyncio.Future[UUID] | None = field(default=None, compare=False)


def new_run_id() -> UUID:
    """A fresh UUIDv7. What comes after the milliseconds begins with their fraction: starts in one keep their order."""
    unix_ms, rest = divmod(time.time_ns(), 1_000_000)
    return uuid7(unix_ms, (rest << 12) // 1_000_000 << 62 | int.from_bytes(os.urandom(8), "big") >> 2)


def check_text(value: object, what: str) -> str:
    """A key or label: a string without NUL or lone surrogates, at most `MAX_TEXT` characters."""
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
        raise PayloadError(f"{what} must be a string of 1 to {MAX_TEXT} characters, not {ascii(value)[:60]}")
    if "\0" in value or (not value.isprintable() and any(0xD800 <= ord(c) < 0xE000 for c in value)):
        raise PayloadError(f"{what} {ascii(value)[:60]} holds a character that Postgres cannot store")
    return value


def clean_text(value: str) -> str:
    """Free text as it can be stored: what is not valid Unicode is escaped; at most 1,000 characters."""
    return str(value).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")[:1000]


def check_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Labels are short strings by short strings."""
    if not labels:
        return {}
    if len(labels) > MAX_LABELS:
        raise PayloadError(f"a run has at most {MAX_LABELS} labels, not {len(labels)}")
    return {check_text(k, "a label's name"): check_text(v, f"label {k!r}") for k, v in labels.items()}


def prepare(
    workflow: Workflow | tuple[str, str, Definition],
    value: Any,
    *,
    key: str | None,
    labels: Mapping[str, str] | None,
    queue: str | None,
    priority: int | None,
    ttl: timedelta | None,
    key_ttl: timedelta | None,
    run_id: UUID | None,
) -> Start:
    """Check everything about a start before anything is sent."""
    is_whole = isinstance(priority, int) and not isinstance(priority, bool)
    if priority is not None and not (is_whole and 1 <= priority <= 10):
        raise DefinitionError(f"priority={priority!r}: must be a whole number from 1 to 10; higher goes first")
    if queue is not None:
        check_name(queue, "queue")
    if not isinstance(workflow, tuple):
        name, fingerprint, definition = workflow.name, workflow.fingerprint, workflow.definition
        payload = workflow.encode_input(value)
        queue, priority = queue or workflow.queue, priority or workflow.priority
        ttl = ttl if ttl is not None else workflow.ttl
    else:
        name, fingerprint, definition = workflow
        defaults = definition.defaults
        if defaults.get("guarded"):
            raise PayloadError(
                f"{name!r} cannot be started by its name alone: its app redacts inputs, or its input holds a secret",
                hint="Start it from the app: client.start(workflow, ...), or `kairos run --app module:app`.",
            )
        canonical.encode(value)  # refused as it was given; then filled up, so that a key means the same input
        payload = Payload.of(canonical.encode_plain(fill_defaults(value, definition.schemas.get("", {}))))
        queue, priority = queue or defaults.get("queue"), priority or defaults.get("priority")
        if ttl is None and defaults.get("ttl_us") is not None:
            ttl = timedelta(microseconds=defaults["ttl_us"])
    return Start(
        run_id=run_id or new_run_id(),
        workflow=name,
        fingerprint=fingerprint,
        definition=definition,
        input=payload,
        queue=queue or DEFAULT_QUEUE,
        priority=priority or DEFAULT_PRIORITY,
        key=None if key is None else check_text(key, "the key"),
        labels=check_labels(labels),
        ttl=ttl,
        key_ttl=key_ttl,
    )


def first_body(start: Start, at: datetime) -> bytes:
    """The body of a run's first event, as the codec writes a `RunScheduled`; a test compares the two.

    Put together by hand, keys in order: it is most of what a client does for a start.
    """
    given = start.input
    if given.inline is not None:
        value = b'"input":' + given.inline
    else:
        value = b'"input_blob":{"sha256":"%b","size":%d}' % ((given.sha256 or "").encode(), given.size)
    if start.key is not None:
        value += b',"key":' + canonical.encode_trusted(start.key)
    if start.labels:
        value += b',"labels":' + canonical.encode_trusted(dict(start.labels))
    head, tail = _around_input(start.fingerprint, start.priority, start.queue, start.trigger, start.workflow)
    if start.ttl is None:
        return b"{" + head + value + tail
    return b'{"expires_at":%d,' % ((at + start.ttl - _UNIX) // _MICROSECOND) + head + value + tail


@lru_cache(maxsize=256)
def _around_input(fingerprint: str, priority: int, queue: str, trigger: str, workflow: str) -> tuple[bytes, bytes]:
    names = {"priority": priority, "queue": queue, "trigger": trigger, "workflow": workflow}
    head = b'"fingerprint":' + canonical.encode_trusted(fingerprint) + b","
    return head, b"," + canonical.encode_trusted(names)[1:]


def start_params(starts: Sequence[Start], at: datetime, *, notify: bool) -> dict[str, Any]:
    """Parameters of `start_runs`; `notify`: wake the workers in the same commit.

    A column that is null for all of them is left empty: `unnest` fills it up.
    """
    bodies = []
    for start in starts:
        start.at = at
        bodies.append(first_body(start, at))
    hashes = [
        link(first_hash(start.run_id), 1, "run_scheduled", at, None, None, None, body)
        for start, body in zip(starts, bodies, strict=True)
    ]
    keyed = starts if any(s.key is not None for s in starts) else ()
    labelled = starts if any(s.labels for s in starts) else ()
    expiring = starts if any(s.ttl is not None for s in starts) else ()
    return {
        "notify": notify,
        "ids": arrays.uuids([s.run_id for s in starts]),
        "ats": arrays.timestamps([at] * len(starts)),
        "workflows": arrays.texts([s.workflow for s in starts]),
        "fingerprints": arrays.texts([s.fingerprint for s in starts]),
        "queues": arrays.texts([s.queue for s in starts]),
        "priorities": arrays.int4s([s.priority for s in starts]),
        "keys": arrays.texts_or_null([s.key for s in keyed]),
        "labels": arrays.texts_or_null([json.dumps(dict(s.labels)) if s.labels else None for s in labelled]),
        "hashes": arrays.byteas(hashes),
        "bodies": arrays.byteas(bodies),
        "expires": arrays.timestamps_or_null([None if s.ttl is None else at + s.ttl for s in expiring]),
        "ready": arrays.timestamps_or_null([]),
        "input_hashes": arrays.byteas([bytes.fromhex(s.identity or s.input.digest) if s.key else b"" for s in keyed]),
        "key_expires": arrays.timestamps_or_null([None if s.key_ttl is None else at + s.key_ttl for s in keyed]),
    }


def blob_params(starts: Sequence[Start]) -> dict[str, Any] | None:
    """Parameters of `put_blobs`, if any input is too long to be inline."""
    blobs = {s.input.sha256: s.input.data for s in starts if s.input.sha256 and s.input.data is not None}
    if not blobs:
        return None
    digests = [bytes.fromhex(d) for d in blobs]
    return {"digests": arrays.byteas(digests), "datas": arrays.byteas([v or b"" for v in blobs.values()])}


def resolve(start: Start, created: set[UUID], holders: Mapping[tuple[str, str], tuple[UUID, bytes]]) -> UUID:
    """Which run a start means: its own, or the one that holds its key.

    Raises:
        KeyConflict: the key's run was started with another input.
    """
    if start.run_id in created or start.key is None:
        return start.run_id
    holder = holders.get((start.workflow, start.key))
    if holder is None or holder[0] == start.run_id:
        return start.run_id
    if bytes(holder[1]) != bytes.fromhex(start.identity or start.input.digest):
        raise KeyConflict(
            f"key {start.key!r} of workflow {start.workflow!r} is held by run {holder[0]}, "
            + ("which is not this fork" if start.identity else "which was started with another input"),
            hint="Use another key, or none." if start.identity else None,
            key=start.key,
            run_id=str(holder[0]),
        )
    return holder[0]


def holders_of(rows: Sequence[tuple[Any, ...]]) -> dict[tuple[str, str], tuple[UUID, bytes]]:
    return {(row[0], row[1]): (row[2], row[3]) for row in rows}


def key_params(starts: Sequence[Start]) -> dict[str, Any] | None:
    keyed = [s for s in starts if s.key is not None]
    return {"workflows": [s.workflow for s in keyed], "keys": [s.key for s in keyed]} if keyed else None


class Starter:
    """Collects starts and sends them together. The next batch leaves when the last one is durable."""

    def __init__(self, session: Session, clock: DatabaseClock, *, notify: bool = True) -> None:
        self._session, self._clock, self._notify = session, clock, notify
        self._waiting: list[Start] = []
        self._task: asyncio.Task[None] | None = None
        self._pinned: set[str] = set()
        self._notified = 0.0
        self._later: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()

    def start(self, start: Start) -> asyncio.Future[UUID]:
        """Start one run; the answer is the id of it, or of the run that holds its key."""
        answer = start.answer = asyncio.get_running_loop().create_future()
        self._waiting.append(start)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return answer

    async def start_many(self, starts: Sequence[Start]) -> list[UUID]:
        """Start runs in batches of `MAX_BATCH`, each one statement. Duplicated keys mean one run."""
        loop = asyncio.get_running_loop()
        for start in starts:
            start.answer = loop.create_future()
        self._waiting += starts
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        answers = [start.answer for start in starts if start.answer is not None]
        if answers:
            await asyncio.wait(answers)
        return [answer.result() for answer in answers]

    async def _run(self) -> None:
        while self._waiting:
            batch = self._take()
            try:
                await self._send(batch)
            except Exception as exc:
                for start in batch:
                    if start.answer is not None and not start.answer.done():
                        start.answer.set_exception(exc)

    def _take(self) -> list[Start]:
        """The next batch: no key twice, because one statement cannot settle a race with itself."""
        batch: list[Start] = []
        rest: list[Start] = []
        keys: set[tuple[str, str]] = set()
        for start in self._waiting:
            key = None if start.key is None else (start.workflow, start.key)
            if len(batch) < MAX_BATCH and (key is None or key not in keys):
                batch.append(start)
                if key is not None:
                    keys.add(key)
            else:
                rest.append(start)
        self._waiting = rest
        return batch

    async def _send(self, batch: list[Start]) -> None:
        await self._pin(batch)
        blobs = blob_params(batch)
        if blobs:
            await self._session.execute("put_blobs", blobs)
        # Built once: after a lost reply the very same rows are sent again, and change nothing.
        is_due = self._notify and time.monotonic() - self._notified >= NOTIFY_EVERY
        params = start_params(batch, self._clock.now(), notify=is_due)
        failpoint("before_append")
        rows = await self._session.execute("start_runs", params)
        failpoint("after_append")
        if len(rows) == len(batch):
            _answer_all(batch)
        else:
            await self._settle(batch, {row[0] for row in rows})
        if is_due:
            self._notified = time.monotonic()
        elif self._notify and self._later is None:
            self._later = asyncio.get_running_loop().call_later(NOTIFY_EVERY, self._send_notice)

    async def _settle(self, batch: list[Start], created: set[UUID]) -> None:
        """Answer where some were there already: sent before, or their key is held."""
        missing = [s for s in batch if s.run_id not in created]
        keys = key_params(missing)
        holders = holders_of(await self._session.execute("find_keys", keys)) if keys else {}
        for start in batch:
            assert start.answer is not None
            if start.answer.done():
                continue
            try:
                start.answer.set_result(resolve(start, created, holders))
            except KeyConflict as exc:
                start.answer.set_exception(exc)

    async def _pin(self, batch: Sequence[Start]) -> None:
        for start in batch:
            if start.fingerprint not in self._pinned:
                definition, fingerprint = start.definition, start.fingerprint
                await self._session.run(lambda conn, f=fingerprint, d=definition: put_definition(conn, f, d))  # type: ignore[misc]
                self._pinned.add(fingerprint)

    def _send_notice(self) -> None:
        self._later = None
        self._notified = time.monotonic()
        task = asyncio.create_task(self._do_notify())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _do_notify(self) -> None:
        failpoint("before_notify")
        await self._session.execute("notify", {"channel": "kairos_task", "payload": ""})
        failpoint("after_notify")

    async def settle(self) -> None:
        """Wait until nothing is under way, wake-ups included."""
        if self._later is not None:
            self._later.cancel()
            self._send_notice()
        pending = [t for t in (self._task, *self._background) if t is not None and not t.done()]
        if pending:
            await asyncio.wait(pending)


def _answer_all(batch: Sequence[Start]) -> None:
    for start in batch:
        if start.answer is not None and not start.answer.done():
            start.answer.set_result(start.run_id)


async def start_within(conn: AsyncConnection[Any], start: Start) -> UUID:
    """Start a run inside the caller's own transaction: it exists if, and only if, that commits."""
    prepare_adapters(conn)
    async with conn.cursor(row_factory=tuple_row) as cur:
        # Asked first: this opens the caller's transaction. On one not yet begun, `transaction()` would commit.
        at = (await (await cur.execute(query("read_clock"))).fetchone() or (None,))[0]
        assert at is not None
        async with conn.transaction():
            for name, params in _before(start):
                await cur.execute(query(name), params)
            rows = await (await cur.execute(query("start_runs"), start_params([start], at, notify=True))).fetchall()
            keys = key_params([start])
            held = await (await cur.execute(query("find_keys"), keys)).fetchall() if keys else []
            return resolve(start, {row[0] for row in rows}, holders_of(held))


def start_within_blocking(conn: Connection[Any], start: Start) -> UUID:
    """As `start_within`, for a blocking connection."""
    prepare_adapters(conn)
    with conn.cursor(row_factory=tuple_row) as cur:
        at = (cur.execute(query("read_clock")).fetchone() or (None,))[0]
        assert at is not None
        with conn.transaction():
            for name, params in _before(start):
                cur.execute(query(name), params)
            rows = cur.execute(query("start_runs"), start_params([start], at, notify=True)).fetchall()
            keys = key_params([start])
            held = cur.execute(query("find_keys"), keys).fetchall() if keys else []
            return resolve(start, {row[0] for row in rows}, holders_of(held))


def _before(start: Start) -> list[tuple[str, dict[str, Any]]]:
    """What must be there before the run: its definition, and its input if that is long."""
    body = canonical.encode_trusted(start.definition.to_json())
    params: dict[str, Any] = {"fingerprint": start.fingerprint, "workflow": start.workflow, "body": body}
    todo = [("put_definition", params)]
    blobs = blob_params([start])
    if blobs:
        todo.append(("put_blobs", blobs))
    return todo
