"""Apps, workflows and steps: what is accepted, and what is refused on the line that has it."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from authoring_support import new_workflow, short_id
from pydantic import BaseModel, SecretStr

from kairos.authoring import App, Redaction, Retry, Step
from kairos.domain.fingerprint import step_fingerprints
from kairos.domain.graph import DEFAULT_TIMEOUT
from kairos.errors import DefinitionError, WorkflowNotFound

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeChecking


class Order(BaseModel):
    order_id: str


def test_a_decorated_step_is_still_the_function() -> None:
    wf = new_workflow(Order)

    @wf.step(timeout="1s")
    def reserve(order: Order, warehouse: str = "A") -> str:
        """Reserve it."""
        return f"{order.order_id} {warehouse}"

    assert isinstance(reserve, Step)
    assert reserve(Order(order_id="1"), warehouse="B") == "1 B"
    assert reserve.__name__ == "reserve"
    assert reserve.__doc__ == "Reserve it."
    assert repr(reserve) == "<Step fulfil.reserve>"


def test_options_of_a_step_reach_the_graph() -> None:
    wf = new_workflow()

    @wf.step(
        name="charge-card",
        retry=Retry(attempts=5),
        timeout="30s",
        queue="pay",
        priority=7,
        ttl="1h",
        crash_limit=2,
    )
    def charge() -> None: ...

    spec = wf.graph.steps["charge-card"]
    assert spec.retry.attempts == 5
    assert (spec.timeout, spec.ttl) == (timedelta(seconds=30), timedelta(hours=1))
    assert (spec.queue, spec.priority, spec.crash_limit) == ("pay", 7, 2)


def test_a_step_takes_over_the_defaults_of_its_workflow() -> None:
    wf = App("shop").workflow("w", retry=Retry(attempts=9), timeout="5s", queue="slow", priority=2, ttl="1d")

    @wf.step
    def plain() -> None: ...

    @wf.step(timeout=None)
    def unlimited() -> None: ...

    assert plain.spec.retry.attempts == 9
    assert plain.spec.timeout == timedelta(seconds=5)
    assert unlimited.spec.timeout is None
    assert (wf.queue, wf.priority, wf.ttl) == ("slow", 2, timedelta(days=1))
    assert plain.spec.queue is None


def test_without_any_timeout_the_usual_one_holds() -> None:
    wf = new_workflow()

    @wf.step
    def plain() -> None: ...

    assert plain.spec.timeout == DEFAULT_TIMEOUT


BAD_STEP_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"retry": 3}, "retry=3 is not a kairos.Retry"),
    ({"timeout": "soon"}, "timeout 'soon' is not a duration"),
    ({"timeout": 0}, "leaves no time at all"),
    ({"timeout": -1}, "is not a duration"),
    ({"timeout": math.nan}, "is not a duration"),
    ({"ttl": True}, "is not a duration"),
    ({"ttl": 0}, "leaves no time at all"),
    ({"queue": "no spaces"}, "is not valid"),
    ({"queue": 5}, "is not valid"),
    ({"priority": "high"}, "priority='high' is not a whole number"),
    ({"priority": True}, "is not a whole number"),
    ({"priority": 0}, "out of range"),
    ({"priority": 11}, "out of range"),
    ({"crash_limit": 0}, "at least 1"),
    ({"crash_limit": 1.5}, "at least 1"),
    ({"name": "a b"}, "is not valid"),
    ({"name": ""}, "is not valid"),
    ({"name": "\ud800"}, "is not valid"),
    ({"name": "nul\0"}, "is not valid"),
    ({"after": 5}, "after= takes a list of steps"),
    ({"after": {"a": 1}}, "after= takes a list of steps"),
    ({"after": [5]}, "a int is not a step"),
    ({"needs": ["a"]}, "needs= takes a dict"),
    ({"timeut": "1s"}, "there is no option 'timeut'"),
]


@pytest.mark.parametrize(("given", "message"), BAD_STEP_OPTIONS, ids=[str(row[0]) for row in BAD_STEP_OPTIONS])
def test_a_wrong_option_of_a_step_is_refused(given: dict[str, Any], message: str) -> None:
    wf = new_workflow()

    def charge() -> None: ...

    with pytest.raises(DefinitionError) as caught:
        wf.step(**given)(charge)
    assert message in str(caught.value)
    assert wf.steps == {}


def test_an_unknown_option_proposes_the_nearest() -> None:
    with pytest.raises(DefinitionError, match="Did you mean 'timeout'"):
        new_workflow().step(timeut="1s")(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="Did you mean 'priority'"):
        App("shop").workflow("w", priorty=3)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="Did you mean 'queue'"):
        App("shop").job(quue="x")(test_an_unknown_option_proposes_the_nearest)  # type: ignore[call-overload]


@pytest.mark.parametrize("bound", [1, 10])
def test_priorities_include_both_ends(bound: int) -> None:
    assert App("shop").workflow("w", priority=bound).priority == bound


class CallableWithoutName:
    def __call__(self) -> int:
        return 5


def a_generator() -> Iterator[int]:
    yield 1


async def an_async_generator() -> AsyncIterator[int]:
    yield 1


def with_args(*args: int) -> None: ...


def with_kwargs(**kwargs: int) -> None: ...


def positional_only(a: int, /) -> None: ...


def returns_iterator() -> Iterator[int]:
    return iter([])


def returns_class_instance() -> CallableWithoutName:
    return CallableWithoutName()


class WithPassword(BaseModel):
    password: SecretStr


def returns_masked() -> WithPassword:
    return WithPassword(password=SecretStr("x"))


BAD_FUNCTIONS: list[tuple[Any, str]] = [
    (lambda: None, "a lambda cannot be a step"),
    (a_generator, "it is a generator"),
    (an_async_generator, "it is a generator"),
    (Order, "is not a function"),
    (5, "is not a function"),
    (None.__class__, "is not a function"),
    (CallableWithoutName(), "has no name"),
    (functools.partial(returns_iterator), "has no name"),
    (with_args, "*args: 'int'"),
    (with_kwargs, "**kwargs: 'int'"),
    (positional_only, "'a' is positional-only"),
    (dict.fromkeys, "has no signature|positional-only|is not valid"),
    (returns_iterator, "what step 'returns_iterator' returns: values of type Iterator[int] cannot be stored"),
    (returns_class_instance, "values of type CallableWithoutName cannot be stored"),
    (returns_masked, "SecretStr"),
]


@pytest.mark.parametrize(("function", "message"), BAD_FUNCTIONS, ids=short_id)
def test_what_cannot_be_a_step_is_refused(function: Any, message: str) -> None:
    wf = new_workflow()
    with pytest.raises(DefinitionError) as caught:
        wf.step()(function)
    assert any(part in str(caught.value) for part in message.split("|"))
    assert wf.steps == {}


def test_callable_objects_partials_and_methods_can_be_steps_under_a_name() -> None:
    class Shop:
        def reserve(self) -> int:
            return 1

    def scaled(factor: int = 2) -> int:
        return factor

    wf = new_workflow()
    wf.step(name="object")(CallableWithoutName())
    wf.step(name="partial")(functools.partial(scaled, factor=3))
    wf.step(Shop().reserve)
    assert wf.run_inline() == {"object": 5, "partial": 3, "reserve": 1}


def test_a_decorator_that_keeps_the_signature_may_stand_below() -> None:
    def shout(fn: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> str:
            return fn(*args, **kwargs).upper()

        return wrapper

    wf = new_workflow(str)

    @wf.step
    @shout
    def greet(input: str) -> str:
        return f"hello {input}"

    assert wf.run_inline("you") == "HELLO YOU"


def test_types_of_the_enclosing_function_are_found() -> None:
    class Local(BaseModel):
        x: int

    def define() -> Any:
        wf = new_workflow(Local)

        @wf.step
        def double(value: Local) -> Local:
            return Local(x=value.x * 2)

        return wf

    assert define().run_inline(Local(x=4)) == Local(x=8)


def test_the_nearest_local_type_wins_over_a_global_of_the_same_name() -> None:
    class Order(BaseModel):
        local: int

    wf = new_workflow(Order)

    @wf.step
    def read(order: Order) -> int:
        return order.local

    assert wf.run_inline({"local": 3}) == 3


def test_an_annotation_that_cannot_be_resolved_is_named() -> None:
    wf = new_workflow()

    with pytest.raises(DefinitionError) as caught:

        @wf.step
        def price(amount: OnlyForTypeChecking = 1) -> None: ...  # type: ignore[assignment]

    assert str(caught.value).startswith(
        "step 'price': the annotation 'OnlyForTypeChecking' of parameter 'amount' cannot be resolved"
    )
    with pytest.raises(DefinitionError, match=r"'NotThere' of the return value cannot be resolved.*NotThere"):

        @wf.step
        def other() -> NotThere: ...  # type: ignore[name-defined]  # noqa: F821


def test_a_workflow_takes_only_storable_input_types() -> None:
    with pytest.raises(DefinitionError, match="workflow 'w': input: values of type CallableWithoutName"):
        App("shop").workflow("w", input=CallableWithoutName)
    with pytest.raises(DefinitionError, match="an iterator may never end"):
        App("shop").workflow("w", input=list[Iterable[int]])


class Unfinished(BaseModel):
    other: NotYet  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Order", "workflow 'w': input: 'Order' is a text, not a type"),
        ("int", "workflow 'w': input: 'int' is a text, not a type"),
        ("a b", "workflow 'w': input: 'a b' is a text, not a type"),
        (list["Nowhere"], "workflow 'w': input: list['Nowhere'] refers to 'Nowhere', which is not defined here"),  # type: ignore[name-defined]  # noqa: F821
        (Unfinished, "workflow 'w': input: Unfinished refers to 'NotYet', which is not defined here"),
        ({"order": int}, "workflow 'w': input: {'order': <class 'int'>} is not a type of values"),
    ],
)
def test_an_input_that_is_no_type_yet_or_none_at_all_is_refused_in_words(given: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        App("shop").workflow("w", input=given)
    assert str(caught.value).startswith(message)


def test_names_are_unique_in_a_workflow_and_in_an_app() -> None:
    app = App("shop")
    wf = app.workflow("w")

    def charge() -> None: ...

    wf.step(charge)
    with pytest.raises(DefinitionError, match="two steps named 'charge'"):
        wf.step(charge)
    app.job(charge)
    with pytest.raises(DefinitionError, match="two workflows or jobs named 'charge'"):
        app.job(charge)
    with pytest.raises(DefinitionError, match="two workflows or jobs named 'w'"):
        app.workflow("w")
    with pytest.raises(DefinitionError, match="two workflows or jobs named 'w'"):
        app.job(name="w")(charge)
    assert list(app.workflows) == ["w", "charge"]


@pytest.mark.parametrize("name", ["", "a b", "9lives", "x" * 121, "nul\0", "\ud800", 5, None])
def test_bad_names_of_apps_and_workflows_are_refused(name: Any) -> None:
    with pytest.raises(DefinitionError, match="is not valid"):
        App(name)
    with pytest.raises(DefinitionError, match="is not valid"):
        App("shop").workflow(name)


def test_redact_takes_a_redaction() -> None:
    with pytest.raises(DefinitionError, match=r"redact= takes a kairos.Redaction, not a list"):
        App("shop", redact=["password"])  # type: ignore[arg-type]
    assert App("shop", redact=Redaction(fields=["iban"])).redaction is not None


def test_an_unknown_workflow_proposes_the_nearest() -> None:
    app = App("shop")
    wf = app.workflow("fulfil-order")
    assert app.get("fulfil-order") is wf
    with pytest.raises(WorkflowNotFound, match="Did you mean 'fulfil-order'"):
        app.get("fulfill-order")


def test_workflows_and_steps_can_be_read_but_not_replaced() -> None:
    app = App("shop")
    wf = app.workflow("w")
    with pytest.raises(TypeError):
        app.workflows["x"] = wf  # type: ignore[index]
    with pytest.raises(TypeError):
        wf.steps["x"] = None  # type: ignore[index]


def test_two_apps_share_nothing() -> None:
    first, second = App("a"), App("b")
    first.workflow("w")
    second.workflow("w")
    assert first.get("w") is not second.get("w")


def test_a_workflow_without_steps_has_no_graph() -> None:
    with pytest.raises(DefinitionError, match="has no steps"):
        new_workflow().graph


def test_the_graph_follows_when_a_step_is_added() -> None:
    wf = new_workflow()

    @wf.step
    def first() -> int:
        return 1

    before, graph = wf.fingerprint, wf.graph
    assert wf.graph is graph

    @wf.step
    def second(first: int) -> None: ...

    assert list(wf.graph.steps) == ["first", "second"]
    assert wf.graph.sinks == ("second",)
    assert wf.fingerprint != before


def build(body: str, retry: Retry | None = None, output: str = "int", field: str = "x: int") -> Any:
    source = f"""
from __future__ import annotations
from pydantic import BaseModel
class In(BaseModel):
    {field}
wf = App("shop").workflow("w", input=In, retry=retry)
@wf.step
def one(value: In) -> {output}:
    {body}
"""
    names: dict[str, Any] = {"App": App, "retry": retry}
    exec(source, names)
    return names["wf"]


def test_the_fingerprint_is_the_same_for_the_same_definition() -> None:
    assert build("return 1").fingerprint == build("return 1").fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        {"body": "return 2"},
        {"body": "return 1", "retry": Retry(attempts=7)},
        {"body": "return 1", "output": "str"},
        {"body": "return 1", "field": "x: str"},
    ],
    ids=["code", "policy", "output type", "input type"],
)
def test_the_fingerprint_changes_with_code_policies_and_types(changed: dict[str, Any]) -> None:
    assert build(**changed).fingerprint != build("return 1").fingerprint


def test_the_definition_holds_sources_and_schemas() -> None:
    wf = new_workflow(Order)

    @wf.step
    def reserve(order: Order) -> dict[str, int]:
        return {"a": 1}

    definition = wf.definition
    assert definition.sources["reserve"].startswith("@wf.step\ndef reserve")
    assert definition.schemas[""]["properties"]["order_id"]["type"] == "string"
    assert definition.schemas["reserve"] == {"additionalProperties": {"type": "integer"}, "type": "object"}
    assert set(step_fingerprints(definition)) == {"reserve"}


def test_a_thousand_steps_are_defined_quickly_enough() -> None:
    wf = new_workflow()
    previous: Any = None
    for number in range(1_000):

        def step(previous: int = 0) -> int:
            return previous

        needs = {"previous": previous} if previous is not None else {}
        previous = wf.step(name=f"s{number}", needs=needs)(step)
    assert wf.graph.sinks == ("s999",)
