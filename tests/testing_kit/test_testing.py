"""kairos.testing: what users get to test their own workflows with."""

from __future__ import annotations

import asyncio

import pytest

import kairos
from kairos import testing

app = kairos.App("shop")
fulfil = app.workflow("fulfil", input=int)


@fulfil.step
def reserve(input: int) -> dict[str, int]:
    return {"items": input}


@fulfil.step(retry=kairos.Retry(attempts=3))
async def charge(reserve: dict[str, int], ctx: kairos.StepContext) -> int:
    ctx.log.info("charging", items=reserve["items"])
    ctx.emit("items", reserve["items"])
    return reserve["items"] * 10


def test_a_run_tells_its_output_its_steps_its_logs_and_metrics() -> None:
    run = testing.run(fulfil, 4)
    assert (run.status, run.output) == ("DONE", 40)
    assert run.steps() == {"reserve": "DONE", "charge": "DONE"}
    assert run.logs() == [("charge", "info", "charging")]
    assert run.metrics() == [("charge", "items", 4)]
    assert [r.seq for r in run.history] == list(range(1, len(run.history) + 1))


def test_a_step_is_replaced_by_a_value_a_function_or_an_error() -> None:
    assert testing.run(fulfil, 4, replace={"reserve": {"items": 7}}).output == 70
    assert testing.run(fulfil, 4, replace={"charge": lambda reserve, ctx: reserve["items"] + ctx.attempt}).output == 5
    failed = testing.run(fulfil, 4, replace={"charge": ConnectionError("declined")})
    assert failed.status == "FAILED"
    assert failed.attempts("charge") == 3
    error = failed.error_of("charge")
    assert error is not None
    assert error.message == "declined"
    with pytest.raises(kairos.RunFailed, match="declined"):
        failed.output


def test_a_stand_in_is_held_to_the_type_of_the_step() -> None:
    wrong = testing.run(fulfil, 4, replace={"charge": "much"})
    error = wrong.error_of("charge")
    assert error is not None
    assert "step 'charge' returned a value that" in error.message


def test_a_stand_in_for_no_step_names_the_nearest() -> None:
    with pytest.raises(kairos.DefinitionError, match="Did you mean 'charge'"):
        testing.run(fulfil, 4, replace={"chrage": 1})


def test_it_works_inside_a_running_event_loop() -> None:
    async def main() -> None:
        assert testing.run(fulfil, 1).output == 10

    asyncio.run(main())


def test_a_step_is_called_directly_with_a_context_of_one_s_own() -> None:
    records = testing.Records()
    ctx = testing.context("charge", attempt=2, records=records)
    assert asyncio.run(charge({"items": 3}, ctx)) == 30
    assert records.logs[0].message == "charging"
    assert ctx.idempotency_key.endswith(":charge")


def test_running_gives_a_real_worker_on_a_real_database() -> None:
    with testing.running(app) as client:
        run = client.start(fulfil, 5)
        assert run.result(timeout=20) == 50
        assert client.state(run.id).status == "DONE"
    with testing.running(app) as client:
        assert client.list() == []


def test_a_transactional_step_is_replaced_like_any_other() -> None:
    import psycopg

    bank = kairos.App("bank").workflow("bank")

    @bank.step
    def write(conn: psycopg.Connection[object]) -> int:
        raise AssertionError("not reached")

    assert testing.run(bank, replace={"write": 7}).output == 7
    assert testing.run(bank, replace={"write": lambda: 8}).output == 8


def test_a_transactional_step_may_keep_tables_of_the_user() -> None:
    import psycopg

    bank = kairos.App("bank")

    @bank.job
    def write(conn: psycopg.Connection[object]) -> int:
        conn.execute("create table if not exists entry (n int)")
        return conn.execute("insert into entry values (1)").rowcount

    with testing.running(bank) as client:
        assert client.start(write).result(timeout=20) == 1
