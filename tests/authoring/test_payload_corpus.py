"""The corpus of awkward values, as input, as output and as error: each has a defined outcome, none hangs."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from authoring_support import attempt, new_workflow
from pydantic import BaseModel

from kairos.authoring import Retry
from kairos.authoring.executor import Failed, Succeeded
from kairos.authoring.inline import InlineRun
from kairos.domain import canonical
from kairos.domain.states import RunStatus
from kairos.errors import PayloadError, RunFailed


class Hostile:
    def __repr__(self) -> str:
        raise BaseException("no repr")

    __str__ = __repr__

    def __reduce__(self) -> Any:
        raise BaseException("no reduce")

    def __eq__(self, other: object) -> bool:
        raise BaseException("no eq")

    __hash__ = None  # type: ignore[assignment]


class Holder(BaseModel):
    value: Any = None


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def nested_dicts(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = {"k": value}
    return value


def cyclic_list() -> Any:
    value: list[Any] = []
    value.extend([value, value])
    return value


def cyclic_dict() -> Any:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


# name, maker, whether it can be stored as a plain value
CORPUS: list[tuple[str, Callable[[], Any], bool]] = [
    ("nul", lambda: "a\0b", True),
    ("nul key", lambda: {"\0": 1}, True),
    ("empty", lambda: {"": ""}, True),
    ("emoji", lambda: "\U0001f600", True),
    ("lone surrogate", lambda: "\ud800", False),
    ("surrogate key", lambda: {"\udfff": 1}, False),
    ("nan", lambda: [math.nan], False),
    ("inf", lambda: math.inf, False),
    ("minus inf", lambda: -math.inf, False),
    ("1e400", lambda: float("1e400"), False),
    ("largest float", lambda: 1.7976931348623157e308, True),
    ("minus zero", lambda: -0.0, True),
    ("2**63-1", lambda: 2**63 - 1, True),
    ("2**64-1", lambda: 2**64 - 1, True),
    ("2**64", lambda: 2**64, False),
    ("2**70", lambda: 2**70, False),
    ("5000 digits", lambda: 10**5000, False),
    ("depth 99", lambda: nested(99), True),
    ("depth 101", lambda: nested(101), False),
    ("dicts 99", lambda: nested_dicts(99), True),
    ("dicts 101", lambda: nested_dicts(101), False),
    ("depth 50k", lambda: nested(50_000), False),
    ("1 MiB", lambda: "x" * 1024 * 1024, True),
    ("100k items", lambda: list(range(100_000)), True),
    ("bytes", lambda: b"\xff", False),
    ("bytearray", lambda: bytearray(b"x"), False),
    ("datetime", lambda: datetime(2024, 5, 1, tzinfo=UTC), False),
    ("decimal", lambda: Decimal("NaN"), False),
    ("set", lambda: {1, 2}, False),
    ("lambda", lambda: lambda: 1, False),
    ("cyclic list", cyclic_list, False),
    ("cyclic dict", cyclic_dict, False),
    ("hostile", Hostile, False),
    ("hostile inside", lambda: {"a": [Hostile()]}, False),
    ("generator", lambda: (i for i in (1, 2)), False),
    ("endless", itertools.count, False),
    ("exception", lambda: ValueError("x"), False),
    ("type", lambda: int, False),
    ("ellipsis", lambda: ..., False),
    ("int key", lambda: {1: 1}, False),
    ("none key", lambda: {None: 1}, False),
]
IDS = [row[0] for row in CORPUS]


@pytest.mark.parametrize(("make", "storable"), [row[1:] for row in CORPUS], ids=IDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_as_output_it_is_stored_or_fails_the_step(make: Callable[[], Any], storable: bool, is_async: bool) -> None:
    wf = new_workflow()

    def give() -> Any:
        return make()

    async def give_async() -> Any:
        return make()

    outcome = attempt(wf.step(give_async if is_async else give))
    if storable:
        assert isinstance(outcome, Succeeded)
        assert canonical.decode(outcome.output.data or b"") == make()
    else:
        assert isinstance(outcome, Failed)
        assert outcome.error.type == "kairos.errors.PayloadError"
        assert outcome.error.message.startswith("step 'give")
        canonical.encode(outcome.error.to_json())


@pytest.mark.parametrize("make", [row[1] for row in CORPUS], ids=IDS)
def test_inside_a_model_it_comes_back_or_fails_the_step(make: Callable[[], Any]) -> None:
    wf = new_workflow()

    @wf.step(retry=Retry(attempts=1))
    def give() -> Holder:
        return Holder(value=make())

    outcome = attempt(give)
    if isinstance(outcome, Succeeded):
        assert isinstance(give.output_adapter.decode(outcome.output.data or b""), Holder)
    else:
        assert isinstance(outcome, Failed)
        assert outcome.error.type == "kairos.errors.PayloadError"
        canonical.encode(outcome.error.to_json())


@pytest.mark.parametrize(("make", "storable"), [row[1:] for row in CORPUS], ids=IDS)
def test_as_input_it_is_stored_or_refused(make: Callable[[], Any], storable: bool) -> None:
    wf = new_workflow(Any)
    if storable:
        assert canonical.decode(wf.encode_input(make()).data or b"") == make()
    else:
        with pytest.raises(PayloadError, match="the input of workflow 'fulfil'"):
            wf.encode_input(make())


@pytest.mark.parametrize("make", [row[1] for row in CORPUS], ids=IDS)
def test_inside_an_error_it_leaves_a_readable_record_and_the_run_ends(make: Callable[[], Any]) -> None:
    wf = new_workflow()

    @wf.step(retry=Retry(attempts=1))
    def fail() -> None:
        local = make()
        raise ValueError(local)

    run = InlineRun(wf)
    with pytest.raises(RunFailed):
        asyncio.run(run.finish())
    assert run.state.status is RunStatus.FAILED
    error = run.state.steps["fail"].error
    assert error is not None
    assert error.type == "builtins.ValueError"
    assert "local" in error.locals
    raw = canonical.encode(error.to_json())
    assert b"\\u0000" not in raw
    assert len(raw) < 20_000
