"""A fork goes on where another run stood: nothing that was done is done again, nothing of the parent changes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import BaseModel, Field

import kairos
from kairos.domain.events import RunForked, StepDone, StepsInherited
from kairos.domain.ids import uuid7
from kairos.store.connect import Session
from kairos.store.retention import remove_old_runs
from kairos.store.verify import Report, Verifier
from tests.conftest import TestDatabase
from tests.engine.harness import kinds, of_kind, until, working
from tests.store.test_partitions import verified

ROOT = Path(__file__).resolve().parents[2]
ONCE = kairos.Retry(attempts=1)
calls: Counter[str] = Counter()


class Order(BaseModel):
    order_id: str
    amount: int = 1


class Reserved(BaseModel):
    warehouse: str
    items: list[dict[str, float]] = []
    note: str = ""


class Receipt(BaseModel):
    text: str


def shop(*, is_fixed: bool) -> kairos.App:
    """Six steps; the fourth has a bug unless it is fixed. Every body counts its calls."""
    app = kairos.App("shop")
    fulfil = app.workflow("fulfil", input=Order)

    @fulfil.step
    async def reserve(order: Order) -> Reserved:
        calls["reserve"] += 1
        return Reserved(warehouse="A", items=[{"price": 1.5}, {"price": 2.5}], note="n" * 3000)

    @fulfil.step
    async def weigh(order: Order) -> float:
        calls["weigh"] += 1
        return 2.5

    @fulfil.step(after=[reserve])
    async def pack(weigh: float) -> list[int]:
        calls["pack"] += 1
        return [1, 2]

    if is_fixed:

        @fulfil.step(name="charge", retry=ONCE)
        async def charge_rightly(order: Order, reserve: Reserved, pack: list[int]) -> int:
            calls["charge"] += 1
            return order.amount + len(pack) + (100 if reserve.warehouse == "B" else 0)

    else:

        @fulfil.step(name="charge", retry=ONCE)
        async def charge_wrongly(order: Order, reserve: Reserved, pack: list[int]) -> int:
            calls["charge"] += 1
            raise ZeroDivisionError("division by zero")

    @fulfil.step
    async def email(charge: int, reserve: Reserved) -> Receipt:
        calls["email"] += 1
        return Receipt(text=f"{charge} from {reserve.warehouse}")

    @fulfil.step
    async def audit(order: Order) -> str:
        calls["audit"] += 1
        return order.order_id

    return app


broken, fixed = shop(is_fixed=False), shop(is_fixed=True)
BROKEN, FIXED = broken.get("fulfil"), fixed.get("fulfil")
ORDER = Order(order_id="7", amount=5)


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def on(database: TestDatabase, test: Callable[[kairos.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            await test(client)

    asyncio.run(main())


async def failed(client: kairos.AsyncClient, database: TestDatabase, **more: Any) -> kairos.AsyncRun:
    """A run whose `charge` is dead; all before it, and `audit`, are done."""
    async with working(broken, database.dsn):
        run = await (await client.start(BROKEN, ORDER, **more)).wait(20)
    assert run.status == "FAILED"
    calls.clear()
    return run


async def report(database: TestDatabase, run: kairos.AsyncRun) -> Report:
    session = Session(database.dsn, "verify")
    try:
        return await Verifier(session).one(UUID(run.id))
    finally:
        await session.close()


async def problems(database: TestDatabase) -> list[Any]:
    """What is wrong with any run."""
    return (await asyncio.to_thread(verified, database.dsn)).problems


def rows(database: TestDatabase, run: kairos.AsyncRun) -> list[tuple[Any, ...]]:
    """All that is stored of a run."""
    events = database.fetch("select * from kairos.event where run_id = %s order by seq", run.id)
    return events + database.fetch("select * from kairos.run where id = %s", run.id)


def test_the_latest_version_is_the_one_that_workers_announced(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)
        planned = await client.plan_fork(run.id, from_step="charge", workflow=FIXED)
        assert (planned.is_announced, planned.latest) == (False, BROKEN.fingerprint)
        assert (await client.start_fork(planned)).info.fingerprint == FIXED.fingerprint
        assert (await client.start("fulfil", ORDER.model_dump())).info.fingerprint == BROKEN.fingerprint
        assert (await client.plan_fork(run.id, from_step="charge")).fingerprint == BROKEN.fingerprint
        async with working(fixed, database.dsn):
            pass
        async with working(broken, database.dsn):  # an old worker that starts again
            pass
        planned = await client.plan_fork(run.id, from_step="charge")
        assert (planned.fingerprint, planned.is_announced) == (FIXED.fingerprint, True)

    on(database, test)


def test_a_failed_run_is_repaired_without_doing_anything_again(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database, labels={"customer": "42"}, priority=7, key="order-7")
        before, blobs = rows(database, run), database.fetch("select sha256, used_at from kairos.blob")
        fork = await client.fork(run.id, from_step="charge", workflow=FIXED, reason="divided by zero", author="ann")
        async with working(fixed, database.dsn):
            assert await fork.result(20) == {"email": Receipt(text="7 from A"), "audit": "7"}
        assert calls == {"charge": 1, "email": 1}
        assert rows(database, run) == before
        assert database.fetch("select sha256, used_at from kairos.blob") == blobs
        assert (await report(database, fork)).problems == []
        assert await problems(database) == []
        (told,) = await of_kind(client, fork, "run_forked")
        assert told == RunForked(parent=run.id, root=run.id, parent_seq=run.info.seq, from_step="charge",
                                 author="ann", reason="divided by zero", edits={})  # fmt: skip
        (inherited,) = await of_kind(client, fork, "steps_inherited")
        assert isinstance(inherited, StepsInherited)
        assert (inherited.run, set(inherited.outputs)) == (run.id, {"reserve", "weigh", "pack", "audit"})
        info = (await fork.refresh()).info
        assert (info.labels, info.priority, info.key) == ({"customer": "42"}, 7, None)
        assert (await kinds(client, fork))[:3] == ["run_scheduled", "run_forked", "steps_inherited"]

    on(database, test)


def test_edits_reach_the_steps_that_run_and_are_told_in_the_log(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)
        edits = {"input.amount": 40, "reserve.warehouse": "B", "reserve.items[1].price": 9.5}
        fork = await client.fork(run.id, from_step="charge", workflow=FIXED, set=edits, output={"pack": [1, 2, 3]})
        async with working(fixed, database.dsn):
            assert (await fork.result(20))["email"] == Receipt(text="143 from B")
        assert calls == {"charge": 1, "email": 1}
        (told,) = await of_kind(client, fork, "run_forked")
        assert isinstance(told, RunForked)
        assert told.edits == {**edits, "pack": [1, 2, 3]}
        state = await client.state(fork.id)
        assert state.input.data == b'{"amount":40,"order_id":"7"}'
        assert (await report(database, fork)).problems == []

    on(database, test)


@pytest.mark.parametrize("typed", [True, False], ids=["by types", "by schemas"])
@pytest.mark.parametrize(
    ("edits", "problem"),
    [
        ({"input.amount": "many"}, "amount"),
        ({"reserve.warehouse": 7}, "warehouse"),
        ({"reserve": {"place": "B"}}, "warehouse"),
        ({"pack": ["x"]}, "0"),
        ({"reserve.items[0].price": None}, "items"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused_before_anything_starts(
    database: TestDatabase, edits: dict[str, Any], problem: str, typed: bool
) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)
        async with working(fixed, database.dsn):
            pass  # registers the version
        with pytest.raises(kairos.PayloadError) as caught:
            await client.fork(run.id, from_step="charge", set=edits, workflow=FIXED if typed else None)
        assert problem in caught.value.message
        assert "edited" in caught.value.message or "input" in caught.value.message
        assert database.fetch("select count(*) from kairos.run") == [(1,)]

    on(database, test)


def test_what_makes_no_sense_is_refused_in_words(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)

        async def refused(message: str, hint: str, **more: Any) -> None:
            with pytest.raises(kairos.KairosError) as caught:
                await client.fork(run.id, **{"from_step": "charge", "workflow": FIXED, **more})
            assert message in caught.value.message
            assert hint in (caught.value.hint or "")

        await refused("no step 'chrage'", "Did you mean 'charge'?", from_step="chrage")
        await refused("has no 'warehuse'", "Did you mean 'warehouse'?", set={"reserve.warehuse": "B"})
        await refused("reserve.items is a list of 2", "reserve.items[0]", set={"reserve.items[2].price": 1})
        await refused("'email' runs again", "a step before", output={"email": {}})
        await refused("no version", "kairos workflows", version="ffff")
        await refused("version='' means several versions", "kairos workflows", version="")
        await refused("of workflow 'fulfil', not of 'other'", "", workflow=kairos.App("x").workflow("other"))
        with pytest.raises(kairos.RunNotFound):
            await client.fork(str(UUID(int=5)), from_step="charge")
        with pytest.raises(kairos.PayloadError, match="key"):
            await client.fork(run.id, from_step="charge", key="")
        assert database.fetch("select count(*) from kairos.run") == [(1,)]

    on(database, test)


def test_a_plan_says_what_would_happen_and_writes_nothing(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)
        before = database.fetch("select (select count(*) from kairos.event), (select count(*) from kairos.blob)")
        planned = await client.plan_fork(run.id, from_step="pack", workflow=FIXED, set={"weigh": 3})
        assert (
            database.fetch("select (select count(*) from kairos.event), (select count(*) from kairos.blob)") == before
        )
        told = planned.to_json()
        assert (set(told["reused"]), told["overridden"]) == ({"reserve", "audit"}, ["weigh"])
        assert list(told["runs"]) == ["pack", "charge", "email"]
        assert not planned.is_pinned
        fork = await client.start_fork(planned)
        assert (await client.start_fork(planned)).id == fork.id
        assert database.fetch("select count(*) from kairos.fork") == [(1,)]

    on(database, test)


def test_forks_of_forks_refer_to_the_run_that_did_the_work(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)
        async with working(fixed, database.dsn):
            child = await client.fork(run.id, from_step="charge", workflow=FIXED, output={"weigh": 7.5})
            await child.result(20)
            grandchild = await client.fork(child.id, from_step="email", workflow=FIXED)
            assert await grandchild.result(20) == {"email": Receipt(text="7 from A"), "audit": "7"}
            last = await client.fork(grandchild.id, from_step="audit", workflow=FIXED)
            # Of the outputs of the run itself one is inherited, one made anew.
            assert await last.result(20) == {"email": Receipt(text="7 from A"), "audit": "7"}
        assert calls == {"charge": 1, "email": 2, "audit": 1}
        (told,) = await of_kind(client, last, "run_forked")
        assert isinstance(told, RunForked)
        assert (told.parent, told.root) == (grandchild.id, run.id)
        origins = {r.event.run: set(r.event.outputs) for r in await client.events(last.id)
                   if isinstance(r.event, StepsInherited)}  # fmt: skip
        assert origins == {run.id: {"reserve", "pack"}, child.id: {"weigh", "charge"}, grandchild.id: {"email"}}
        assert (await client.get_run(last.id, FIXED)).info.outputs
        assert await (await client.get_run(last.id)).result() == {"email": {"text": "7 from A"}, "audit": "7"}
        for one in (child, grandchild, last):
            assert (await report(database, one)).problems == []
        assert await problems(database) == []

    on(database, test)


WIDTH = 24
wide = kairos.App("wide")
fan = wide.workflow("fan", input=int)


@fan.step
async def seed(input: int) -> dict[str, int]:
    return {"n": input}


@fan.step
async def ballast(input: int) -> str:
    return "b" * 500_000


def _leaf(number: int) -> None:
    @fan.step(name=f"leaf_{number}", after=["go"])
    async def leaf(seed: dict[str, int], ballast: str) -> int:
        await asyncio.sleep(0.15)
        return seed["n"] + len(ballast) + number


@fan.step(after=[seed])
async def go() -> None: ...


for _number in range(WIDTH):
    _leaf(_number)


def test_helpers_of_a_fork_read_what_was_inherited_and_not_a_byte_of_it_is_copied(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        async with working(wide, database.dsn):
            run = await (await client.start(fan, 3)).wait(20)
        sizes = "select (select sum(octet_length(body)) from kairos.event), (select count(*) from kairos.blob)"
        ((events, blobs),) = database.fetch(sizes)
        fork = await client.fork(run.id, from_step="go", workflow=fan)
        ((after, blobs_after),) = database.fetch(sizes)
        assert blobs_after == blobs
        assert after - events < 1000  # type: ignore[operator]
        async with working(wide, database.dsn, count=2, concurrency=2):
            output = await fork.result(30)
        assert output == {f"leaf_{n}": 500_003 + n for n in range(WIDTH)}
        started = await of_kind(client, fork, "step_started")
        assert any(event.worker for event in started)  # type: ignore[union-attr]
        assert await problems(database) == []

    on(database, test)


gates: dict[str, asyncio.Event] = {}


def slow_app() -> kairos.App:
    app = kairos.App("slow")
    flow = app.workflow("slow", input=str)

    @flow.step
    async def first(input: str) -> str:
        calls["first"] += 1
        return f"{input} first"

    @flow.step(after=[first])
    async def hang(input: str) -> str:
        calls["hang"] += 1
        await gates[input].wait()
        return "went on"

    @flow.step
    async def last(first: str, hang: str) -> str:
        calls["last"] += 1
        return f"{first}, {hang}"

    return app


slow = slow_app()
SLOW = slow.get("slow")


def test_a_running_run_is_forked_by_many_at_once_and_goes_on_undisturbed(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        gates["x"] = asyncio.Event()
        async with working(slow, database.dsn, count=2):
            run = await client.start(SLOW, "x")
            await until(lambda: calls["hang"] == 1)
            forks = await asyncio.gather(
                *(client.fork(run.id, from_step="last", output={"hang": f"no {i}"}) for i in range(20))
            )
            assert [await fork.result(20) for fork in forks] == [f"x first, no {i}" for i in range(20)]
            assert (await run.refresh()).status == "RUNNING"
            gates["x"].set()
            assert await run.result(20) == "x first, went on"
        assert calls == {"first": 1, "hang": 1, "last": 21}
        assert await problems(database) == []

    on(database, test)


def test_runs_that_were_cancelled_expired_or_done_are_forked(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        gates["y"] = asyncio.Event()
        expired = await client.start(SLOW, "y", ttl="1ms")
        async with working(slow, database.dsn):
            await expired.wait(20)
            cancelled = await client.start(SLOW, "y")
            await until(lambda: calls["hang"] == 1)
            await client.cancel(cancelled.id)
            await cancelled.wait(20)
            gates["y"].set()
            done = await (await client.start(SLOW, "y")).wait(20)
            statuses = [(await run.refresh()).status for run in (expired, cancelled, done)]
            assert statuses == ["EXPIRED", "CANCELLED", "DONE"]
            calls.clear()
            for run in (expired, cancelled, done):
                fork = await client.fork(run.id, from_step="hang")
                assert await fork.result(20) == "y first, went on"
        assert calls == {"first": 1, "hang": 3, "last": 3}
        assert await problems(database) == []

    on(database, test)


def test_the_version_is_the_latest_the_parents_or_one_that_is_named(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)
        async with working(fixed, database.dsn):
            pass
        for version, wanted in (
            ("latest", FIXED), ("pinned", BROKEN), (FIXED.fingerprint, FIXED), (BROKEN.fingerprint[:12], BROKEN),
        ):  # fmt: skip
            fork = await client.fork(run.id, from_step="charge", version=version)
            assert fork.info.fingerprint == wanted.fingerprint
        async with working(broken, database.dsn), working(fixed, database.dsn):
            await until(lambda: database.fetch("select from kairos.run where status in ('SCHEDULED', 'RUNNING')") == [])
        assert calls == {"charge": 4, "email": 2}

    on(database, test)


def test_a_step_that_the_new_version_lacks_is_named_with_the_way_out(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)
        smaller = kairos.App("shop").workflow("fulfil", input=Order)
        smaller.step(name="other")(_nothing)
        with pytest.raises(kairos.InvalidArgument, match="no step 'charge'") as caught:
            await client.fork(run.id, from_step="charge", workflow=smaller)
        assert "pinned" in (caught.value.hint or "")
        fork = await client.fork(run.id, from_step="other", workflow=smaller)
        state = await client.state(fork.id)
        assert list(state.ready) == ["other"]

    on(database, test)


async def _nothing() -> None: ...


def test_the_same_key_is_the_same_fork_and_another_one_is_a_conflict(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database, key="order-7")
        forks = await asyncio.gather(
            *(client.fork(run.id, from_step="charge", workflow=FIXED, key="again") for _ in range(10))
        )
        assert len({fork.id for fork in forks}) == 1
        assert database.fetch("select count(*) from kairos.fork") == [(1,)]
        for more in ({"set": {"input.amount": 6}}, {"from_step": "email"}, {"version": "pinned"}):
            with pytest.raises(kairos.KeyConflict, match="not this fork"):
                await client.fork(run.id, **{"from_step": "charge", "workflow": FIXED, "key": "again", **more})
        with pytest.raises(kairos.KeyConflict):
            await client.fork(run.id, from_step="charge", workflow=FIXED, key="order-7")
        with pytest.raises(kairos.KeyConflict):
            await client.start(BROKEN, ORDER, key="again")

    on(database, test)


FORKER = """
import os, sys
import kairos
with kairos.Client(os.environ["KAIROS_DATABASE_URL"]) as client:
    client.fork(sys.argv[1], from_step="charge", set={"reserve.note": "m" * 5000})
print("a failpoint was not passed")
"""


@pytest.mark.parametrize(
    ("point", "is_there"),
    [("before_append", 0), ("before_append@2", 0), ("after_append", 0), ("before_commit", 0), ("after_commit", 1)],
)
def test_a_client_that_is_killed_leaves_a_whole_fork_or_nothing(
    database: TestDatabase, point: str, is_there: int
) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)
        async with working(fixed, database.dsn):
            pass
        name, _, nth = point.partition("@")
        env = {**os.environ, "PYTHONPATH": str(ROOT), "KAIROS_DATABASE_URL": database.dsn}
        env["KAIROS_FAILPOINTS"] = f"{name}=kill@{nth or 1}"
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", FORKER, run.id], env=env, capture_output=True, timeout=60
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        counts = "select (select count(*) from kairos.run) - 1, (select count(*) from kairos.fork), "
        counts += "(select count(distinct run_id) from kairos.event) - 1, (select count(*) from kairos.task)"
        # The server may still be busy with the transaction of a client that is gone.
        await until(lambda: database.fetch(counts) == [(is_there,) * 4], 5)
        assert await problems(database) == []
        async with working(fixed, database.dsn):
            fork = await client.fork(run.id, from_step="charge")
            assert (await fork.result(20))["email"] == {"text": "7 from A"}

    on(database, test)


def test_a_lost_reply_starts_one_fork(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    from kairos.client import forking

    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)
        write, tries = forking.Forker._write, Counter[str]()

        async def lost(self: Any, conn: Any, planned: Any) -> UUID:
            found = await write(self, conn, planned)
            tries["write"] += 1
            if tries["write"] == 1:
                raise psycopg.OperationalError("the connection was lost")
            return found

        monkeypatch.setattr(forking.Forker, "_write", lost)
        fork = await client.fork(run.id, from_step="charge", workflow=FIXED)
        assert tries == {"write": 2}
        assert database.fetch("select run_id from kairos.fork") == [(UUID(fork.id),)]
        assert await problems(database) == []

    on(database, test)


bank = kairos.App("bank")
transfer = bank.workflow("transfer", input=int)


@transfer.step
async def quote(input: int) -> dict[str, int]:
    return {"rate": input * 2}


@transfer.step
async def long_quote(input: int) -> str:
    return "q" * 4000


@transfer.step(retry=ONCE)
async def debit(quote: dict[str, int], long_quote: str, input: int, conn: psycopg.AsyncConnection[Any]) -> int:
    await conn.execute("insert into entry values (%s)", [quote["rate"] + len(long_quote) + input])
    return quote["rate"]


@transfer.step(retry=ONCE)
async def credit(debit: int, quote: dict[str, int], ctx: kairos.StepContext) -> int:
    return debit + quote["rate"]


def test_a_transactional_step_reads_what_was_inherited(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
            conn.execute("create table entry (amount int)")
            conn.execute("grant all on entry to public")
        async with working(bank, database.dsn):
            run = await (await client.start(transfer, 3)).wait(20)
            fork = await client.fork(run.id, from_step="debit", workflow=transfer)
            assert await fork.result(20) == 12
            again = await client.fork(fork.id, from_step="credit", workflow=transfer)
            assert await again.result(20) == 12
        assert database.fetch("select amount from entry") == [(4009,)] * 2
        assert await problems(database) == []

    on(database, test)


ALONE = """
import os, kairos
app = kairos.App("alone")
flow = app.workflow("alone", input=str)

@flow.step
def short(input: str) -> str:
    return input + " short"

@flow.step
def long(input: str) -> str:
    return "l" * 4000

@flow.step(retry=kairos.Retry(attempts=5, base="10ms"))
def dies_once(short: str, long: str, input: str, ctx: kairos.StepContext) -> str:
    if not os.path.exists(input):
        open(input, "w").close()
        os._exit(9)
    return f"{short} {len(long)} {os.getpid()}"
"""


def test_an_isolated_step_reads_what_was_inherited(database: TestDatabase, tmp_path: Path) -> None:
    """The fork's step kills its worker; the next one runs it alone in a child process."""
    (tmp_path / "alone.py").write_text(ALONE)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "KAIROS_DATABASE_URL": database.dsn, "KAIROS_LEASE": "2s"}
    mark = tmp_path / "mark"
    mark.touch()
    command = [sys.executable, "-m", "kairos.cli", "worker", "--app", str(tmp_path / "alone.py")]
    worker = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def test(client: kairos.AsyncClient) -> None:
        await until(lambda: database.fetch("select from kairos.definition"))
        run = await (await client.start("alone", str(mark))).wait(20)
        mark.unlink()
        fork = await client.fork(run.id, from_step="dies_once")
        text = await fork.result(30)
        assert text.startswith(f"{mark} short 4000 ")
        (done,) = await of_kind(client, fork, "step_done")
        assert isinstance(done, StepDone)
        started = await of_kind(client, fork, "step_started")
        assert started[-1].isolated  # type: ignore[union-attr]
        assert (await report(database, fork)).problems == []

    try:
        on(database, test)
    finally:
        worker.terminate()
        worker.wait(20)


def test_retention_leaves_what_forks_need_and_takes_it_with_the_last_of_them(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a time for which there is no partition: they lie in the default one, from which rows are deleted.
    ids = (uuid7(1_600_000_000_000 + n, n) for n in count())
    monkeypatch.setattr("kairos.client.forking.new_run_id", lambda: next(ids))

    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database, run_id=next(ids))
        async with working(fixed, database.dsn):
            child = await client.fork(run.id, from_step="charge", workflow=FIXED)
            await child.result(20)
            grandchild = await client.fork(child.id, from_step="audit", workflow=FIXED)
            await grandchild.result(20)
        held = database.fetch("select run_id::text, holder::text from kairos.hold order by 1, 2")
        assert held == sorted([(run.id, child.id), (run.id, grandchild.id), (child.id, grandchild.id)])

    on(database, test)

    def age() -> None:
        """Nothing was used for years."""
        with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
            conn.execute("update kairos.migration set applied_at = applied_at - interval '900 days'")
            conn.execute("update kairos.blob set used_at = used_at - interval '800 days'")
            conn.execute("update kairos.run set created_at = created_at - interval '801 days'")

    def damage() -> list[Any]:
        return [p for p in verified(database.dsn).problems if "created_at" not in p.message]

    def remove() -> set[str]:
        with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
            remove_old_runs(conn, timedelta(0))
            return {str(row[0]) for row in conn.execute("select id from kairos.run")}

    age()
    assert len(remove()) == 2  # whoever holds is not held: one generation goes at a time
    assert damage() == []
    assert len(remove()) == 1
    assert damage() == []
    assert database.fetch("select count(*) from kairos.blob") == [(1,)]
    assert remove() == set()
    for table in ("fork", "hold", "event", "blob"):
        assert database.fetch(f"select count(*) from kairos.{table}") == [(0,)]


@pytest.mark.parametrize(
    ("tampering", "code", "text"),
    [
        ("delete from kairos.run where trigger_is_root", "origin", "is gone"),
        ("delete from kairos.event where seq = 4 and run_is_root", "origin", "is missing"),
        ("update kairos.event set body = replace(encode(body, 'escape'), '[1,2]', '[3]')::bytea where run_is_root",
         "origin", "does not hold"),
        ("delete from kairos.fork", "fork", "the table of forks says nothing"),
        ("update kairos.fork set parent_id = run_id", "fork", "the table of forks says"),
    ],
)  # fmt: skip
def test_what_a_fork_refers_to_is_verified(database: TestDatabase, tampering: str, code: str, text: str) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)
        fork = await client.fork(run.id, from_step="charge", workflow=FIXED)
        seq = database.fetch("select seq from kairos.event where run_id = %s and step = 'pack' and kind = 'step_done'",
                             run.id)[0][0]  # fmt: skip
        statement = tampering.replace("trigger_is_root", f"id = '{run.id}'").replace("seq = 4", f"seq = {seq}")
        statement = statement.replace("run_is_root", f"run_id = '{run.id}'")
        with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
            conn.execute("set session_replication_role = replica")
            conn.execute(statement)
        found = (await report(database, fork)).problems
        assert {problem.code for problem in found} == {code}
        assert all(text in problem.message for problem in found)
        if "event" in tampering:
            async with working(fixed, database.dsn):
                assert (await fork.wait(20)).status == "FAILED"
            (error,) = await of_kind(client, fork, "step_failed")
            assert "inherited output" in error.error.message  # type: ignore[union-attr]

    on(database, test)


def test_a_secret_that_the_app_redacts_is_not_told_by_the_edit_either(database: TestDatabase) -> None:
    app = kairos.App("private", redact=kairos.Redaction(fields=["card"]))
    flow = app.workflow("private", input=dict)

    @flow.step
    async def keep(input: dict[str, Any]) -> dict[str, Any]:
        return input

    @flow.step
    async def use(keep: dict[str, Any]) -> str:
        return str(keep)

    async def test(client: kairos.AsyncClient) -> None:
        async with working(app, database.dsn):
            run = await (await client.start(flow, {"card": "4111", "n": 1})).wait(20)
        edits = {"keep.card": "4222-secret", "input": {"card": "4333-secret", "n": 2}}
        with pytest.raises(kairos.PayloadError, match="without its app"):
            await client.fork(run.id, from_step="use", set=edits)
        fork = await client.fork(run.id, from_step="use", set=edits, workflow=flow)
        (told,) = await of_kind(client, fork, "run_forked")
        assert isinstance(told, RunForked)
        assert told.edits == {"keep.card": "[redacted]", "input": {"card": "[redacted]", "n": 2}}
        assert database.fetch("select count(*) from kairos.event where position('secret'::bytea in body) > 0") == [(0,)]

    on(database, test)


def test_a_long_edit_is_told_by_its_hash(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        run = await failed(client, database)
        fork = await client.fork(run.id, from_step="charge", workflow=FIXED, set={"reserve.note": "é" * 50_000})
        (told,) = await of_kind(client, fork, "run_forked")
        assert isinstance(told, RunForked)
        assert told.edits["reserve.note"]["size"] == 100_002
        assert (await report(database, fork)).problems == []

    on(database, test)


odd = kairos.App("odd")


class Odd(BaseModel):
    code: str = Field(json_schema_extra={"pattern": "(?<bad"})


@odd.job
async def measure(depth: float, unit: str = "m") -> Odd:
    return Odd(code=f"{depth}{unit}")


def test_a_job_is_forked_with_another_input(database: TestDatabase) -> None:
    async def test(client: kairos.AsyncClient) -> None:
        async with working(odd, database.dsn):
            run = await (await client.start(odd.get("measure"), {"depth": 2})).wait(20)
            for typed in (odd.get("measure"), None):
                fork = await client.fork(run.id, from_step="measure", set={"input.unit": "ft"}, workflow=typed)
                assert await (await client.get_run(fork.id)).result(20) == {"code": "2.0ft"}
        with pytest.raises(kairos.PayloadError, match="unit"):
            await client.fork(run.id, from_step="measure", set={"input.unit": 3})

    on(database, test)


def test_a_schema_that_cannot_be_used_is_said_so(database: TestDatabase) -> None:
    flow = kairos.App("odd").workflow("odd-flow")

    @flow.step
    async def first() -> Odd:
        return Odd(code="x")

    @flow.step
    async def second(first: Odd) -> str:
        return first.code

    async def test(client: kairos.AsyncClient) -> None:
        async with working(flow.app, database.dsn):
            run = await (await client.start(flow)).wait(20)
            with pytest.raises(kairos.PayloadError, match="cannot be checked by the schema"):
                await client.fork(run.id, from_step="second", set={"first.code": "y"})
            fork = await client.fork(run.id, from_step="second", set={"first.code": "y"}, workflow=flow)
            assert await fork.result(20) == "y"

    on(database, test)


def test_the_blocking_client_forks_too(database: TestDatabase) -> None:
    def sync() -> None:
        with kairos.Client(database.dsn) as client:
            run = client.start(SLOW, "z")
            planned = client.plan_fork(run.id, from_step="hang", workflow=SLOW)
            assert set(planned.plan.runs) == {"first", "hang", "last"}
            assert client.start_fork(planned).status == "SCHEDULED"
            assert client.fork("last", from_step="last", output={"hang": "x"}).info.workflow == "slow"
            with pytest.raises(kairos.UnknownOption, match="from_stp"):
                client.fork(run.id, from_stp="hang")  # type: ignore[call-arg]

    sync()
