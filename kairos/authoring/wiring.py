"""Decides what each parameter of a step receives, and which steps it waits for.

In this order: the context (annotated StepContext), the connection of a transactional step (annotated
psycopg.Connection or AsyncConnection), an explicit `needs=`, an earlier step of the same name,
the run's input (annotated with the workflow's input type, or named `input`), the parameter's own default.
Anything else is refused on the line of the decorator.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from kairos.authoring.context import StepContext
from kairos.authoring.signature import MISSING, Parameter, Signature
from kairos.authoring.step import Plan, Source, Step
from kairos.authoring.values import ValueType
from kairos.domain.names import nearest
from kairos.errors import DefinitionError

TypeOf = Callable[[Any, Mapping[str, Any], str], ValueType]
"""annotation, names for forward references, owner -> ValueType; the app's cache."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a step can refer to. `input`: type of the run's input, None if the workflow takes none."""

    steps: Mapping[str, Step[..., Any]]
    input: ValueType | None
    type_of: TypeOf


def wire(
    name: str, signature: Signature, needs: Mapping[str, str], around: Surroundings
) -> tuple[Plan, dict[str, str]]:
    """How to call the step, and parameter -> step for the graph."""
    sources: list[Source] = []
    context: list[str] = []
    wired: dict[str, str] = {}
    _check_needs(name, signature, needs)
    connection = find_connection(f"step {name!r}", signature)
    for parameter in signature.parameters:
        if is_context(parameter.annotation):
            context.append(parameter.name)
            continue
        if parameter.name in connection:
            continue
        source = _source(name, parameter, signature, needs, around)
        if source is not None:
            sources.append(source)
            if source.step is not None:
                wired[parameter.name] = source.step
    return Plan(tuple(sources), tuple(context), connection), wired


def resolve_steps(name: str, given: Iterable[Any], around: Surroundings, workflow: object) -> list[str]:
    """Names of the steps given as `Step` objects or names; all must be defined above step `name`."""
    return [_resolve_step(name, item, around, workflow) for item in given]


def is_context(annotation: Any) -> bool:
    """Whether a parameter with this annotation receives the context."""
    if isinstance(annotation, type):
        return issubclass(annotation, StepContext)
    return any(is_context(arg) for arg in typing.get_args(annotation)[:2] if isinstance(arg, type))


def is_connection(annotation: Any) -> bool:
    """Whether a parameter with this annotation receives a psycopg connection: its step is transactional."""
    kind = typing.get_origin(annotation) or annotation
    module, name = getattr(kind, "__module__", ""), getattr(kind, "__name__", "")
    return str(module).partition(".")[0] == "psycopg" and name in ("Connection", "AsyncConnection")


def find_connection(owner: str, signature: Signature) -> tuple[str, ...]:
    """The parameter that receives the connection, if there is one. `owner` begins the text of errors.

    Raises:
        DefinitionError: there are two, or it is a blocking one in an async function, or the reverse.
    """
    found = [parameter for parameter in signature.parameters if is_connection(parameter.annotation)]
    if len(found) > 1:
        names = " and ".join(repr(parameter.name) for parameter in found)
        raise DefinitionError(
            f"{owner}: parameters {names} are all psycopg connections, but an attempt has one transaction, so one",
            hint="Keep one of them; for another database, open a connection inside the step.",
        )
    for parameter in found:
        _check_connection(owner, parameter, signature)
    return tuple(parameter.name for parameter in found)


def _check_connection(owner: str, parameter: Parameter, signature: Signature) -> None:
    kind = typing.get_origin(parameter.annotation) or parameter.annotation
    wanted = "AsyncConnection" if signature.is_async else "Connection"
    if kind.__name__ != wanted:
        what = "async" if signature.is_async else "a plain function"
        raise DefinitionError(
            f"{owner}: parameter {parameter.name!r} is a psycopg.{kind.__name__}, but the function is {what}",
            hint=f"Annotate it psycopg.{wanted}.",
            parameter=parameter.name,
        )


def _source(
    name: str, parameter: Parameter, signature: Signature, needs: Mapping[str, str], around: Surroundings
) -> Source | None:
    upstream = needs.get(parameter.name)
    if upstream is None and parameter.name in around.steps:
        upstream = parameter.name
    if upstream is not None:
        what = f"parameter {parameter.name!r} of step {name!r} (the output of step {upstream!r})"
        return Source(parameter.name, upstream, _type(name, parameter, signature, around, upstream), what)
    if _is_input(parameter, around):
        what = f"parameter {parameter.name!r} of step {name!r} (the run's input)"
        return Source(parameter.name, None, _type(name, parameter, signature, around, None), what)
    if parameter.has_default:
        return None
    raise _refuse(name, parameter, around)


def _type(
    name: str, parameter: Parameter, signature: Signature, around: Surroundings, upstream: str | None
) -> ValueType:
    given = around.input if upstream is None else around.steps[upstream].output_adapter
    given = given or around.type_of(Any, {}, name)
    if parameter.annotation is MISSING:
        return given
    wanted = around.type_of(parameter.annotation, signature.names, f"parameter {parameter.name!r} of step {name!r}")
    if wanted.never_reads(given):
        source = "the run's input" if upstream is None else f"the output of step {upstream!r}"
        raise DefinitionError(
            f"step {name!r}: parameter {parameter.name!r} is annotated {wanted.label}, but it receives {source}, "
            f"which is {given.label} and can never be read as {wanted.label}",
            hint=f"Annotate it {given.label}, or what else that can be read as; or name it differently.",
            step=name,
            parameter=parameter.name,
        )
    return wanted


def _is_input(parameter: Parameter, around: Surroundings) -> bool:
    if around.input is None:
        return False
    return parameter.name == "input" or _bare(parameter.annotation) == _bare(around.input.annotation)


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def _refuse(name: str, parameter: Parameter, around: Surroundings) -> DefinitionError:
    if parameter.name == name:
        return DefinitionError(f"step {name!r} waits for itself, a cycle: {name} -> {name}", cycle=f"{name} -> {name}")
    takes = f"annotated {around.input.label}, or named 'input'" if around.input else "this workflow has none"
    valid = [*around.steps, "input"] if around.input else list(around.steps)
    return DefinitionError(
        f"step {name!r}: parameter {parameter.name!r} gets no value",
        hint=(
            f"{nearest(parameter.name, valid)} A parameter is the output of a step defined above it, by name; "
            f"the run's input ({takes}); the context (annotated kairos.StepContext); or it has a default. "
            f"{_below(name, parameter.name)}"
        ),
        step=name,
        parameter=parameter.name,
    )


def _below(name: str, other: str) -> str:
    return (
        f"Steps wait only for steps defined above them: if a step {other!r} further down waits for {name!r}, "
        f"that is a cycle: {name} -> {other} -> {name}."
    )


def _check_needs(name: str, signature: Signature, needs: Mapping[str, str]) -> None:
    parameters = {p.name: p for p in signature.parameters}
    for parameter in needs:
        if parameter not in parameters:
            raise DefinitionError(
                f"step {name!r}: needs={{{parameter!r}: ...}} names no parameter of the function",
                hint=nearest(parameter, parameters),
                step=name,
                parameter=parameter,
            )
        if is_context(parameters[parameter].annotation):
            raise DefinitionError(f"step {name!r}: needs={{{parameter!r}: ...}} names the context, not a value")


def _resolve_step(name: str, item: Any, around: Surroundings, workflow: object) -> str:
    if isinstance(item, Step):
        if item.workflow is not workflow:
            raise DefinitionError(
                f"step {name!r} cannot wait for step {item.name!r} of workflow {item.workflow.name!r}",
                hint="Steps wait for steps of their own workflow.",
            )
        return item.name
    if not isinstance(item, str):
        raise DefinitionError(
            f"step {name!r}: a {type(item).__name__} is not a step", hint="Give steps, or names of steps."
        )
    if item == name:
        raise DefinitionError(f"step {name!r} waits for itself, a cycle: {name} -> {name}", cycle=f"{name} -> {name}")
    if item not in around.steps:
        raise DefinitionError(
            f"step {name!r} waits for {item!r}, which is not a step defined above it",
            hint=f"{nearest(item, around.steps)} {_below(name, item)}",
            step=name,
        )
    return item
