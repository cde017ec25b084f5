"""Every odd value there is, as input, output, error, label and key: a defined outcome each, and nothing hangs."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import math
from collections.abc import Callable
from typing import Any

import pytest

import kairos
from kairos.domain import canonical
from kairos.errors import KairosError
from tests.conftest import TestDatabase
from tests.engine.harness import working
from tests.faults.support import verdict


class Rude:
    """An object whose every description raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__

    def __reduce__(self) -> Any:
        raise RuntimeError("no reduce")


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def generator() -> Any:
    yield 1


MIB = 1 << 20

STORED: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "an empty string": lambda: "",
    "NUL in a string": lambda: "a\0b",
    "NUL in a key": lambda: {"a\0b": 1},
    "the largest number": lambda: 2**63 - 1,
    "minus zero": lambda: -0.0,
    "a tiny float": lambda: 5e-324,
    "a huge float": lambda: 1.7976931348623157e308,
    "astral characters": lambda: "🜚 ‮ \x85 ﷽",
    "an empty key": lambda: {"": {"": []}},
    "depth 99": lambda: nested(99),
    "one mebibyte": lambda: "x" * MIB,
    "the limit": lambda: "x" * (canonical.MAX_BYTES - 2),
}
REFUSED: dict[str, Callable[[], Any]] = {
    "a lone surrogate": lambda: "\ud800",
    "a lone surrogate in a key": lambda: {"\udfff": 1},
    "2^70": lambda: 2**70,
    "a number of 5,000 digits": lambda: 10**5000,
    "NaN": lambda: math.nan,
    "infinity": lambda: math.inf,
    "minus infinity": lambda: -math.inf,
    "depth 101": lambda: nested(101),
    "depth 50,000": lambda: nested(50_000),
    "a cycle": cyclic,
    "one byte over the limit": lambda: "x" * (canonical.MAX_BYTES - 1),
    "200 megabytes": lambda: "x" * 200_000_000,
    "a set": lambda: {1, 2},
    "a function": lambda: len,
    "a generator": generator,
    "a rude object": Rude,
    "keys that are no strings": lambda: {(1, 2): 3},
}
CONVERTED: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"\xff\0",
    "a time": lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "a decimal": lambda: decimal.Decimal("0.10"),
    "a tuple": lambda: (1, 2),
    "1e400": lambda: float("1e400"),
}


AS_INPUT = {"a set": [1, 2], "keys that are no strings": {"1,2": 3}}
"""Refused as outputs; the input of a job goes through its model, and pydantic makes JSON of these."""


class Unprintable(Exception):
    """An exception that cannot say anything about itself."""

    def __str__(self) -> str:
        raise RuntimeError("no str")


class Quitting(BaseException):
    """Not an Exception."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "NUL": lambda: ValueError("a\0b"),
    "a lone surrogate": lambda: ValueError("\ud800"),
    "a megabyte": lambda: ValueError("x" * MIB),
    "no str": Unprintable,
    "a rude argument": lambda: ValueError(Rude()),
    "a cycle": lambda: ValueError(cyclic()),
    "no Exception": lambda: Quitting("bye"),
    "SystemExit": lambda: SystemExit("\ud800\0"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "a group": lambda: ExceptionGroup("\0", [ValueError("\ud800"), Unprintable()]),
    "StopIteration": lambda: StopIteration(Rude()),
    "a huge number": lambda: ValueError(10**6000),
}
TEXTS = {"NUL": "a\0b", "a surrogate": "\ud800", "empty": "", "long": "x" * 300, "no string": 7, "fine": "ü 🜚 %s"}

app = kairos.App("payloads")
ONCE = kairos.Retry(attempts=1)


@app.job(retry=ONCE)
async def echo(value: Any) -> Any:
    return value


@app.job(retry=ONCE)
def give(name: str) -> Any:
    """Has an odd value as its output, and in its locals."""
    value = {**STORED, **REFUSED, **CONVERTED}[name]()
    return value


@app.job(retry=ONCE, queue="side")
async def fail(name: str) -> Any:
    odd = ERRORS[name]()
    raise odd


shared = app.workflow("shared", input=str, retry=ONCE)


@shared.step
async def near(input: str) -> str:
    return input


@shared.step(queue="side")
def far(near: str) -> Any:
    """The same values by way of a helper's slow append."""
    return {**STORED, **REFUSED, **CONVERTED}[near]()


shared_errors = app.workflow("shared-errors", input=str, retry=ONCE)


@shared_errors.step(name="near")
async def near_error(input: str) -> str:
    return input


@shared_errors.step(queue="side", name="far")
def far_error(near: str) -> Any:
    odd = ERRORS[near]()
    raise odd


async def look_at_everything(client: kairos.AsyncClient) -> None:
    """Whatever was stored, lists, histories and states can still be read."""
    runs = await client.list(limit=1000)
    for run in runs:
        assert repr(run)
        assert await client.events(run.id)
        state = await client.state(run.id)
        assert state.status == run.status
        run.info.to_json()
    failed = await client.list(status=["FAILED", "CANCELLED", "EXPIRED"], limit=1000)
    assert {r.id for r in failed} == {r.id for r in runs if r.status in ("FAILED", "CANCELLED", "EXPIRED")}


def same(one: Any, other: Any) -> bool:
    """Equal, and of one sign where zero."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


def test_an_odd_input_is_stored_as_it_is_or_refused_at_the_start(database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            for name, make in STORED.items():
                if name == "the limit":
                    continue  # the job's input is an object around it: over the limit
                run = await client.start(echo, {"value": make()})
                assert same(await run.result(30), make()), name
            for name, make in REFUSED.items():
                if name in AS_INPUT:
                    assert await (await client.start(echo, {"value": make()})).result(30) == AS_INPUT[name]
                    continue
                with pytest.raises(KairosError, match=r"(?s).+"):
                    print(name, await client.start(echo, {"value": make()}))
            for name, make in CONVERTED.items():
                try:
                    run = await client.start(echo, {"value": make()})
                except KairosError:
                    continue
                assert str((await run.wait(30)).status) in ("DONE", "FAILED"), name
            await look_at_everything(client)

    asyncio.run(main())
    verdict(database.admin_dsn)


@pytest.mark.parametrize("way", ["by its owner", pytest.param("by a helper", marks=pytest.mark.slow)])
def test_an_odd_output_is_stored_as_it_is_or_fails_its_step(database: TestDatabase, way: str) -> None:
    async def main() -> None:
        async with (
            working(app, database.dsn),
            working(app, database.dsn, queues=("side",)),
            kairos.AsyncClient(database.dsn) as client,
        ):

            async def outcome(name: str) -> kairos.AsyncRun:
                run = await (
                    client.start(give, {"name": name}) if way == "by its owner" else client.start(shared, name)
                )
                return await run.wait(60)

            for name, make in STORED.items():
                if name == "the limit" and way == "by a helper":
                    continue  # 64 MiB are slow to move; once is enough
                run = await outcome(name)
                assert str(run.status) == "DONE", name
                assert same(await run.result(), make()), name
            for name in REFUSED:
                run = await outcome(name)
                assert str(run.status) == "FAILED", name
                with pytest.raises(kairos.RunFailed) as caught:
                    await run.result()
                assert caught.value.facts["error"].message, name
            for name in CONVERTED:
                assert str((await outcome(name)).status) in ("DONE", "FAILED"), name
            await look_at_everything(client)

    asyncio.run(main())
    verdict(database.admin_dsn)


@pytest.mark.parametrize("way", ["by its owner", pytest.param("by a helper", marks=pytest.mark.slow)])
def test_an_odd_error_fails_its_step_and_can_be_read(database: TestDatabase, way: str) -> None:
    async def main() -> None:
        async with (
            working(app, database.dsn, queues=("default", "side") if way == "by its owner" else ("default",)),
            working(app, database.dsn, queues=("side",)),
            kairos.AsyncClient(database.dsn) as client,
        ):
            for name in ERRORS:
                run = await (
                    client.start(fail, {"name": name}) if way == "by its owner" else client.start(shared_errors, name)
                )
                await run.wait(30)
                assert str(run.status) == "FAILED", name
                with pytest.raises(kairos.RunFailed) as caught:
                    await run.result()
                assert str(caught.value).encode(), name
                assert len(str(caught.value)) < 20_000, name
            await look_at_everything(client)

    asyncio.run(main())
    verdict(database.admin_dsn)


def test_odd_keys_labels_and_reasons_are_refused_or_kept(database: TestDatabase) -> None:
    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            for what, text in TEXTS.items():
                for given in ({"key": text}, {"labels": {"name": text}}, {"labels": {text: "value"}}):
                    if what == "fine":
                        await client.start(echo, {"value": 1}, **given)  # type: ignore[arg-type]
                        continue
                    with pytest.raises(KairosError):
                        await client.start(echo, {"value": 1}, **given)  # type: ignore[arg-type]
            for text in ("a\0b", "\ud800", "x" * 100_000, ""):
                run = await client.start(echo, {"value": 1})
                try:
                    assert await client.cancel(run.id, text) == "CANCELLED"
                except KairosError:
                    assert await client.cancel(run.id, "so be it") == "CANCELLED"
            await look_at_everything(client)

    asyncio.run(main())
    verdict(database.admin_dsn, all_ended=False)
