"""Jobs: a function as a workflow of one step, whose input is an object of its parameters."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from authoring_support import attempt, output_of
from pydantic import BaseModel

from kairos.authoring import App, Job, Retry, Secret, StepContext
from kairos.domain.payload import NULL, Payload
from kairos.errors import DefinitionError, PayloadError


class Person(BaseModel):
    name: str
    born: date


def test_a_bare_job_is_callable_and_a_workflow() -> None:
    app = App("shop")

    @app.job
    def add(a: int, b: int = 2) -> int:
        return a + b

    assert isinstance(add, Job)
    assert add(1) == 3
    assert app.workflows["add"] is add
    assert add.is_job
    assert list(add.steps) == ["add"]
    assert add.graph.sinks == ("add",)
    assert add.run_inline({"a": 5}) == 7


def test_options_of_a_job_are_those_of_its_run() -> None:
    @App("shop").job(
        name="digest", queue="mail", priority=7, retry=Retry(attempts=9), ttl="1h", timeout="5s", crash_limit=2
    )
    def send_digest(to: str) -> None: ...

    assert (send_digest.name, send_digest.queue, send_digest.priority) == ("digest", "mail", 7)
    assert send_digest.ttl == timedelta(hours=1)
    spec = send_digest.steps["digest"].spec
    assert (spec.retry.attempts, spec.timeout, spec.crash_limit) == (9, timedelta(seconds=5), 2)
    assert (spec.queue, spec.ttl) == (None, None)


def test_the_input_is_checked_and_holds_the_defaults() -> None:
    @App("shop").job
    def greet(person: Person, times: int = 1) -> str:
        return f"{person.name} {person.born.year} {times}"

    given = greet.encode_input({"person": {"name": "Ada", "born": "1815-12-10"}})
    assert given == Payload.of(b'{"person":{"born":"1815-12-10","name":"Ada"},"times":1}')
    assert (
        output_of(attempt(greet.steps["greet"], input={"person": {"name": "Ada", "born": "1815-12-10"}}))
        == "Ada 1815 1"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "the input of job 'add' is not AddInput: a: Field required"),
        ({"a": "x"}, "a: Input should be a valid integer, unable to parse string as an integer (got 'x')"),
        ({"a": 1, "c": 1}, "c: Extra inputs are not permitted (got 1)"),
        (None, "Input should be a valid dictionary or instance of AddInput (got None)"),
        ([1], "Input should be a valid dictionary"),
    ],
)
def test_a_wrong_input_is_refused(given: Any, message: str) -> None:
    @App("shop").job
    def add(a: int, b: int = 2) -> int:
        return a + b

    with pytest.raises(PayloadError) as caught:
        add.encode_input(given)
    assert message in str(caught.value)


def test_a_job_without_parameters_takes_no_input() -> None:
    @App("shop").job
    async def tick(ctx: StepContext) -> int:
        return ctx.attempt

    assert tick.encode_input() is NULL
    assert tick.run_inline() == 1
    with pytest.raises(PayloadError, match="job 'tick' takes no input, and got a dict"):
        tick.encode_input({"a": 1})


def test_parameters_without_annotation_take_anything() -> None:
    @App("shop").job
    def echo(value, other=None):  # type: ignore[no-untyped-def]
        return [value, other]

    assert echo.run_inline({"value": {"a": [1]}}) == [{"a": [1]}, None]


def test_names_that_models_reserve_can_be_parameters() -> None:
    @App("shop").job
    def odd(copy: int, json: int, model_config: int, _hidden: int, schema: int = 5, self_: int = 6) -> list[int]:
        return [copy, json, model_config, _hidden, schema, self_]

    given = {"copy": 1, "json": 2, "model_config": 3, "_hidden": 4}
    assert odd.run_inline(given) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(PayloadError, match="_hidden: Field required"):
        odd.encode_input({"copy": 1, "json": 2, "model_config": 3})


def test_a_default_that_json_cannot_carry_stays_the_functions_own() -> None:
    client = object()

    @App("shop").job
    def call(to: str, client: object = client) -> bool:
        return client is not None and to == "x"

    assert call.encode_input({"to": "x"}) == Payload.of(b'{"to":"x"}')
    assert call.run_inline({"to": "x"}) is True
    with pytest.raises(PayloadError, match="client: Extra inputs are not permitted"):
        call.encode_input({"to": "x", "client": 1})


def test_a_parameter_that_cannot_be_stored_is_refused_at_the_definition() -> None:
    app = App("shop")
    with pytest.raises(DefinitionError, match="parameter 'app' of job 'call': values of type App cannot be stored"):

        @app.job
        def call(app: App) -> None: ...

    assert app.workflows == {}


def test_a_job_has_no_more_steps() -> None:
    @App("shop").job
    def tick() -> None: ...

    with pytest.raises(DefinitionError, match="job 'tick' cannot have more steps"):
        tick.step(test_a_job_has_no_more_steps)


def test_a_secret_parameter_travels_as_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_KEY", "the-real-mail-key")

    @App("shop").job
    def send(key: Secret) -> int:
        return len(key.reveal())

    assert send.encode_input({"key": Secret("env:MAIL_KEY")}).data == b'{"key":{"$secret":"env:MAIL_KEY"}}'
    assert send.run_inline({"key": "env:MAIL_KEY"}) == 17
