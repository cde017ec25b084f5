"""Starting runs: idempotency keys, transactions, batches, what is refused."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row
from pydantic import BaseModel

import kairos
from kairos.client.starting import Start, first_body, new_run_id
from kairos.domain.events import RunScheduled
from kairos.domain.payload import Payload
from kairos.store import codec
from tests.conftest import TestDatabase
from tests.engine.harness import working


class Order(BaseModel):
    order_id: str
    amount: int


app = kairos.App("shop")
orders = app.workflow("orders", input=Order, ttl="1h")


@orders.step
async def charge(order: Order) -> Order:
    return order


ORDER = Order(order_id="1", amount=5)


def test_fifty_concurrent_starts_with_one_key_are_one_run(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as one, kairos.Client(database.dsn) as two, ThreadPoolExecutor(50) as pool:
        gate = threading.Barrier(50)

        def start(i: int) -> str:
            gate.wait()
            return (one if i % 2 else two).start(orders, ORDER, key="same").id

        assert len(set(pool.map(start, range(50)))) == 1
    assert database.fetch("select count(*) from kairos.run") == [(1,)]
    assert database.fetch("select count(*) from kairos.task") == [(1,)]


def test_the_same_key_with_another_input_is_a_clear_conflict(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        first = client.start(orders, ORDER, key="k")
        with pytest.raises(kairos.KeyConflict, match="another input") as caught:
            client.start(orders, Order(order_id="2", amount=5), key="k")
        assert caught.value.facts["run_id"] == first.id
        assert "k" in str(caught.value)


def test_keys_belong_to_a_workflow(database: TestDatabase) -> None:
    other = kairos.App("o").job(name="other")(_nothing)
    with kairos.Client(database.dsn) as client:
        assert client.start(orders, ORDER, key="k").id != client.start(other, key="k").id


def _nothing() -> None:
    return None


def test_a_key_outlives_its_run_but_not_its_time(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        kept = client.start(orders, ORDER, key="kept")
        brief = client.start(orders, ORDER, key="brief", key_ttl="1ms")
        client.cancel(kept.id)
        assert client.start(orders, ORDER, key="kept").id == kept.id
        assert client.start(orders, ORDER, key="brief").id != brief.id


def test_a_batch_may_repeat_a_key(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        runs = client.start_many(orders, [ORDER] * 4, keys=["a", "b", "a", "b"])
        assert [r.id for r in runs] == [runs[0].id, runs[1].id, runs[0].id, runs[1].id]
        with pytest.raises(kairos.InvalidArgument, match="2 inputs but 1 keys"):
            client.start_many(orders, [ORDER] * 2, keys=["a"])


def test_one_bad_input_starts_nothing_of_its_batch(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        with pytest.raises(kairos.PayloadError, match=r"^inputs\[1\]: the input of workflow 'orders' .*amount") as bad:
            client.start_many(orders, [ORDER, {"order_id": "x", "amount": "much"}])
        assert bad.value.facts["index"] == 1
        with pytest.raises(kairos.PayloadError, match=r"^inputs\[1\]: the key"):
            client.start_many(orders, [ORDER, ORDER], keys=["a", ""])
    assert database.fetch("select count(*) from kairos.run") == [(0,)]


def test_thousands_of_runs_start_in_one_call(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        runs = client.start_many(orders, [ORDER] * 2500)
        assert len({r.id for r in runs}) == 2500
        assert [r.id for r in runs] == sorted(r.id for r in runs) or len(runs) == 2500
    assert database.fetch("select count(*) from kairos.event") == [(2500,)]


@pytest.mark.parametrize("commit", [True, False])
def test_a_start_inside_a_transaction_exists_if_and_only_if_it_commits(database: TestDatabase, commit: bool) -> None:
    with (
        kairos.Client(database.dsn) as client,
        psycopg.connect(database.admin_dsn, row_factory=dict_row) as conn,  # type: ignore[arg-type]
    ):
        conn.execute("create table shop_order (id text)")
        run = client.start(orders, ORDER, key="tx", connection=conn)  # type: ignore[arg-type]
        conn.execute("insert into shop_order values ('1')")
        with pytest.raises(kairos.RunNotFound):
            client.get_run(run.id)
        if commit:
            conn.commit()
            assert client.get_run(run.id).status == "SCHEDULED"
            assert client.start(orders, ORDER, key="tx").id == run.id
        else:
            conn.rollback()
            with pytest.raises(kairos.RunNotFound):
                client.get_run(run.id)


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_start_may_be_the_first_statement_of_its_transaction(database: TestDatabase, autocommit: bool) -> None:
    async def start_and_roll_back() -> None:
        async with (
            kairos.AsyncClient(database.dsn) as client,
            await psycopg.AsyncConnection.connect(database.dsn, autocommit=autocommit) as conn,
        ):
            await client.start(orders, ORDER, connection=conn)
            await conn.rollback()

    with (
        kairos.Client(database.dsn) as client,
        psycopg.connect(database.dsn, autocommit=autocommit) as conn,
    ):
        client.start(orders, ORDER, connection=conn)
        conn.rollback()
    asyncio.run(start_and_roll_back())
    assert database.fetch("select count(*) from kairos.run") == [(2 if autocommit else 0,)]


def test_an_async_transaction_carries_a_start_too(database: TestDatabase) -> None:
    async def main() -> None:
        async with (
            working(app, database.dsn),
            kairos.AsyncClient(database.dsn) as client,
            await psycopg.AsyncConnection.connect(database.dsn) as conn,
        ):
            run = await client.start(orders, ORDER, connection=conn)
            await conn.commit()
            assert await run.result(10) == ORDER

    asyncio.run(main())


def test_a_caller_s_transaction_survives_a_refused_start(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client, psycopg.connect(database.dsn) as conn:
        client.start(orders, ORDER, key="k")
        with pytest.raises(kairos.KeyConflict):
            client.start(orders, Order(order_id="2", amount=1), key="k", connection=conn)
        assert conn.execute("select 1").fetchone() == (1,)


def test_the_same_run_id_twice_is_one_run(database: TestDatabase) -> None:
    from kairos.client.starting import new_run_id

    mine = new_run_id()
    with kairos.Client(database.dsn) as client:
        assert client.start(orders, ORDER, run_id=mine).id == client.start(orders, ORDER, run_id=mine).id == str(mine)
    assert database.fetch("select count(*) from kairos.event") == [(1,)]


def test_a_workflow_can_be_started_by_name_once_it_is_known(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        with pytest.raises(kairos.WorkflowNotFound):
            client.start("orders", {"order_id": "1", "amount": 5})
        client.start(orders, ORDER)
        by_name = client.start("orders", {"order_id": "1", "amount": 5})
        assert by_name.info.fingerprint == orders.fingerprint
        with pytest.raises(kairos.WorkflowNotFound, match="orders"):
            client.start("order", {})


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"key": "a\0b"}, "key"),
        ({"key": ""}, "key"),
        ({"key": "x" * 300}, "key"),
        ({"key": "\ud800"}, "key"),
        ({"labels": {"a": "b\0"}}, "label"),
        ({"labels": {str(i): "x" for i in range(40)}}, "labels"),
        ({"priority": 11}, "priority"),
        ({"priority": True}, "priority"),
        ({"queue": "no spaces"}, "queue"),
        ({"ttl": "soon"}, "ttl"),
        ({"ttl": -1}, "ttl"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(
    database: TestDatabase, given: dict[str, Any], complaint: str
) -> None:
    with kairos.Client(database.dsn) as client, pytest.raises(kairos.KairosError, match=complaint):
        client.start(orders, ORDER, **given)
    assert database.fetch("select count(*) from kairos.run") == [(0,)]


def test_an_input_of_the_wrong_type_lists_every_problem(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client, pytest.raises(kairos.PayloadError) as caught:
        client.start(orders, {"amount": "much"})
    assert "order_id" in str(caught.value)
    assert "amount" in str(caught.value)


def test_a_large_input_is_a_blob_stored_once(database: TestDatabase) -> None:
    big = Order(order_id="x" * 5000, amount=1)
    with kairos.Client(database.dsn) as client:
        client.start_many(orders, [big] * 3)
        client.start(orders, big)
    assert database.fetch("select count(*) from kairos.blob") == [(1,)]


def test_the_workflow_s_ttl_is_written_into_the_run(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        state = client.state(client.start(orders, ORDER).id)
        assert state.expires_at is not None
        assert state.scheduled_at is not None
        assert state.expires_at - state.scheduled_at == timedelta(hours=1)


def test_a_start_by_name_takes_over_queue_priority_and_ttl(database: TestDatabase) -> None:
    mail = kairos.App("m").job(name="mail", queue="mail", priority=7, ttl="5s")(_nothing)
    with kairos.Client(database.dsn) as client:
        client.start(mail)
        info = client.start("mail").refresh().info
        assert (info.queue, info.priority) == ("mail", 7)
        assert client.state(info.id).expires_at is not None


def test_what_is_redacted_or_secret_cannot_be_started_past_its_app(database: TestDatabase) -> None:
    class Keys(BaseModel):
        api_key: kairos.Secret

    redacting = kairos.App("r", redact=kairos.Redaction(fields=["card"])).job(name="redacting")(_nothing)
    keyed = kairos.App("k").workflow("keyed", input=Keys)
    keyed.step(_nothing)
    with kairos.Client(database.dsn) as client:
        client.start(redacting)
        client.start(keyed, {"api_key": "env:SHOP"})
        for name in ("redacting", "keyed"):
            with pytest.raises(kairos.PayloadError, match="by its name alone"):
                client.start(name, {"card": "4111"})


class Parcel(BaseModel):
    to: str
    express: bool = False
    note: str | None = None


def _sends(to: str, page: int = 1) -> None:
    return None


@pytest.mark.parametrize("by_name_first", [True, False])
def test_a_key_means_the_same_run_by_name_and_from_the_app(database: TestDatabase, by_name_first: bool) -> None:
    here = kairos.App("here")
    parcels, sends = here.workflow("parcels", input=list[Parcel]), here.job(name="sends")(_sends)
    parcels.step(_nothing)
    with kairos.Client(database.dsn) as client:
        for workflow, name, value in ((parcels, "parcels", [{"to": "a"}]), (sends, "sends", {"to": "a"})):
            client.start(workflow, value)  # from now on its name is known
            targets: list[Any] = [name, workflow] if by_name_first else [workflow, name]
            assert len({client.start(target, value, key="k").id for target in targets}) == 1


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
starts = st.builds(
    Start,
    run_id=st.uuids(),
    workflow=texts,
    fingerprint=texts,
    definition=st.just(orders.definition),
    input=st.sampled_from([b"null", b'{"a":[1]}', b'"' + b"x" * 5000 + b'"']).map(Payload.of),
    queue=texts,
    priority=st.integers(1, 10),
    key=st.none() | texts,
    labels=st.dictionaries(texts, texts, max_size=3),
    ttl=st.none() | st.timedeltas(timedelta(0), timedelta(days=400)),
    trigger=texts,
)


@settings(derandomize=True, deadline=None, database=None)
@given(starts, st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
def test_the_first_event_put_together_by_hand_is_what_the_codec_writes(start: Start, at: datetime) -> None:
    event = RunScheduled(
        workflow=start.workflow,
        fingerprint=start.fingerprint,
        input=start.input,
        queue=start.queue,
        priority=start.priority,
        trigger=start.trigger,
        key=start.key,
        labels=start.labels,
        expires_at=None if start.ttl is None else at + start.ttl,
    )
    assert first_body(start, at) == codec.encode_body(event)


def test_a_mixed_batch_keeps_what_belongs_to_each_run(database: TestDatabase) -> None:
    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            other = kairos.App("o").workflow("mixed", input=int)
            other.step(_nothing)
            given: list[dict[str, Any]] = [
                {},
                {"key": "k", "key_ttl": "1h"},
                {"labels": {"a": 'quote " and \\'}},
                {"ttl": "1h", "queue": "mail", "priority": 9},
            ]
            runs = await asyncio.gather(*(client.start(other, i, **more) for i, more in enumerate(given)))
            for i, (run, more) in enumerate(zip(runs, given, strict=True)):
                info, state = (await run.refresh()).info, await client.state(run.id)
                assert (info.key, info.labels) == (more.get("key"), more.get("labels", {}))
                assert (info.queue, info.priority) == (more.get("queue", "default"), more.get("priority", 5))
                assert (state.expires_at is not None) == ("ttl" in more)
                assert state.input is not None
                assert state.input.inline == str(i).encode()

    asyncio.run(main())
    assert database.fetch("select count(*) from kairos.task where expires_at is not null") == [(1,)]
    assert database.fetch("select count(*) from kairos.run_key where expires_at is not null") == [(1,)]


def test_what_is_known_of_a_fresh_run_is_what_the_database_says(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        run = client.start(orders, ORDER, key="k", labels={"a": "b"}, priority=7)
        fresh = run.info
        assert fresh == client.get_run(run.id).info
        assert client.start(orders, ORDER, key="k").id == run.id


def test_ids_made_within_a_millisecond_are_in_the_order_of_their_making() -> None:
    ids = [new_run_id() for _ in range(5000)]
    assert ids == sorted(ids)
    assert len({str(run_id)[:13] for run_id in ids}) < len(ids) / 2, "there were several in one millisecond"
    assert len({str(run_id)[-8:] for run_id in ids[:100]}) == 100, "their ends tell them apart"
