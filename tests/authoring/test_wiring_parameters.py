"""What each parameter of a step receives, and the text that says why one receives nothing."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from authoring_support import attempt, new_workflow, output_of
from pydantic import BaseModel, Field

from kairos.authoring import App, StepContext, Workflow
from kairos.errors import DefinitionError


class Order(BaseModel):
    order_id: str


class Reservation(BaseModel):
    warehouse: str = "A"


def with_reserve() -> Workflow:
    wf = new_workflow(Order)

    @wf.step
    def reserve(order: Order) -> Reservation:
        return Reservation()

    return wf


def test_every_kind_of_parameter_finds_its_value() -> None:
    wf = with_reserve()

    @wf.step(needs={"place": "reserve"})
    def charge(
        order: Order,
        again: Annotated[Order, "the same"],
        input: dict[str, Any],
        reserve: Reservation,
        place: dict[str, str],
        ctx: StepContext,
        maybe: StepContext | None,
        fee: int = 3,
        *,
        note: str = "none",
    ) -> list[Any]:
        same = ctx is maybe
        return [
            order.order_id,
            again.order_id,
            input["order_id"],
            reserve.warehouse,
            place["warehouse"],
            same,
            fee,
            note,
        ]

    outcome = attempt(charge, input={"order_id": "42"}, upstream={"reserve": {"warehouse": "B"}})
    assert output_of(outcome) == ["42", "42", "42", "B", "B", True, 3, "none"]
    assert charge.spec.needs == {"reserve": "reserve", "place": "reserve"}


def test_a_parameter_without_annotation_has_the_type_of_what_it_receives() -> None:
    wf = with_reserve()

    @wf.step
    def charge(reserve, input) -> list[str]:  # type: ignore[no-untyped-def]
        return [type(reserve).__name__, type(input).__name__]

    assert wf.run_inline({"order_id": "1"}) == ["Reservation", "Order"]


def test_a_step_name_wins_over_the_input_type_and_over_the_word_input() -> None:
    wf = new_workflow(dict)

    @wf.step
    def input() -> dict[str, str]:
        return {"from": "step"}

    @wf.step
    def read(input: dict) -> dict:  # type: ignore[type-arg]
        return input

    assert read.spec.needs == {"input": "input"}
    assert wf.run_inline({"from": "run"}) == {"from": "step"}


def test_a_parameter_with_a_default_still_receives_the_step_of_its_name() -> None:
    wf = with_reserve()

    @wf.step
    def charge(reserve: Reservation | None = None) -> None: ...

    assert charge.spec.needs == {"reserve": "reserve"}


def test_after_orders_without_data_and_takes_steps_and_names() -> None:
    wf = with_reserve()

    @wf.step(after=[wf.steps["reserve"], "reserve"])
    def email(order: Order) -> None: ...

    @wf.step(after="email")
    def archive() -> None: ...

    assert email.spec.after == ("reserve",)
    assert archive.spec.upstream == ("email",)
    assert wf.graph.sinks == ("archive",)


def test_needs_takes_a_step_object_under_another_name() -> None:
    wf = with_reserve()

    @wf.step(needs={"place": wf.steps["reserve"]})
    def charge(place: Reservation) -> str:
        return place.warehouse

    assert wf.run_inline({"order_id": "1"}) == "A"


def test_a_misspelt_parameter_is_told_the_nearest_name() -> None:
    wf = with_reserve()
    with pytest.raises(DefinitionError) as caught:

        @wf.step
        def charge(resreve: Reservation) -> None: ...

    text = str(caught.value)
    assert text.startswith("step 'charge': parameter 'resreve' gets no value")
    assert "Did you mean 'reserve'?" in text
    assert "annotated Order, or named 'input'" in text
    assert caught.value.facts == {"step": "charge", "parameter": "resreve"}
    assert "charge" not in wf.steps


def test_a_step_further_down_is_explained_with_the_cycle_it_could_close() -> None:
    wf = with_reserve()
    with pytest.raises(DefinitionError, match="a cycle: email -> ship -> email"):

        @wf.step(after=["ship"])
        def email() -> None: ...

    with pytest.raises(DefinitionError, match="that is a cycle: email -> ship -> email"):

        @wf.step
        def email(ship: str) -> None: ...


def test_a_step_cannot_wait_for_itself() -> None:
    wf = with_reserve()
    for options in ({"after": ["loop"]}, {"needs": {"x": "loop"}}):
        with pytest.raises(DefinitionError, match="waits for itself, a cycle: loop -> loop"):

            @wf.step(**options)
            def loop(x: int = 1) -> int:
                return x

    with pytest.raises(DefinitionError, match="waits for itself, a cycle: loop -> loop"):

        @wf.step(name="loop")
        def other(loop: int) -> int:
            return loop


def test_a_step_may_have_a_parameter_of_its_own_name_for_the_input() -> None:
    wf = new_workflow(Order)

    @wf.step
    def order(order: Order) -> str:
        return order.order_id

    assert wf.run_inline(Order(order_id="7")) == "7"


@pytest.mark.parametrize("options", [{"after": ["reserv"]}, {"needs": {"x": "reserv"}}])
def test_an_unknown_step_is_told_the_nearest(options: dict[str, Any]) -> None:
    wf = with_reserve()
    with pytest.raises(
        DefinitionError, match=r"'reserv', which is not a step defined above it\n.*Did you mean 'reserve'"
    ):

        @wf.step(**options)
        def charge(x: int = 1) -> None: ...


def test_needs_must_name_a_parameter_that_takes_a_value() -> None:
    wf = with_reserve()
    with pytest.raises(DefinitionError, match=r"names no parameter of the function\n.*Did you mean 'place'"):

        @wf.step(needs={"plce": "reserve"})
        def charge(place: Reservation) -> None: ...

    with pytest.raises(DefinitionError, match="names the context, not a value"):

        @wf.step(needs={"ctx": "reserve"})
        def charge2(ctx: StepContext) -> None: ...


def test_a_step_of_another_workflow_is_refused() -> None:
    app = App("shop")
    one, two = app.workflow("one"), app.workflow("two")

    @one.step
    def a() -> int:
        return 1

    with pytest.raises(DefinitionError, match="cannot wait for step 'a' of workflow 'one'"):

        @two.step(after=[a])
        def b() -> None: ...

    with pytest.raises(DefinitionError, match="cannot wait for step 'a' of workflow 'one'"):

        @two.step(needs={"x": a})
        def c(x: int) -> None: ...


def test_a_workflow_without_input_gives_none() -> None:
    wf = new_workflow()
    with pytest.raises(DefinitionError, match="this workflow has none"):

        @wf.step
        def read(input: dict[str, Any]) -> None: ...

    @wf.step
    def read_default(input: str = "own") -> str:
        return input

    assert wf.run_inline() == "own"


def test_a_parameter_type_that_cannot_be_stored_names_the_parameter() -> None:
    wf = with_reserve()
    with pytest.raises(DefinitionError, match="parameter 'reserve' of step 'charge': values of type Workflow cannot"):

        @wf.step
        def charge(reserve: Workflow) -> None: ...


def test_a_default_that_only_the_function_knows_needs_no_storable_type() -> None:
    wf = with_reserve()

    @wf.step
    def charge(client: Workflow | None = None, limit: object = wf) -> bool:
        return limit is wf

    assert wf.run_inline({"order_id": "1"})["charge"] is True


def test_a_consumer_may_ask_for_another_type_than_the_producer_declares() -> None:
    wf = new_workflow()

    class Strict(BaseModel):
        warehouse: str = Field(min_length=3)

    @wf.step
    def reserve() -> Reservation:
        return Reservation(warehouse="Rome")

    @wf.step
    def charge(reserve: Strict) -> str:
        return reserve.warehouse

    assert wf.run_inline() == "Rome"
