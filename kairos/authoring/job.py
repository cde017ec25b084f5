"""A background function: a workflow of exactly one step, whose input is an object of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from kairos.authoring import options
from kairos.authoring.options import MaybeDuration
from kairos.authoring.signature import MISSING, Parameter, Signature, read_signature
from kairos.authoring.step import Plan, Source, Step
from kairos.authoring.values import ValueType
from kairos.authoring.wiring import find_connection, is_context
from kairos.authoring.workflow import Workflow
from kairos.domain.duration import Duration
from kairos.domain.graph import DEFAULT_CRASH_LIMIT, StepSpec
from kairos.domain.retry import Retry
from kairos.errors import DefinitionError, PayloadError

if TYPE_CHECKING:
    from kairos.authoring.app import App

P = ParamSpec("P")
R = TypeVar("R")

_CONFIG = ConfigDict(extra="forbid", protected_namespaces=(), ser_json_bytes="base64", val_json_bytes="base64")


class Job(Workflow, Generic[P, R]):
    """A job. Calling it calls the plain function. Made by `App.job`.

    `to: str, page: int = 1` makes the input `{"to": ..., "page": 1}`. A default is pinned to the run when it
    starts, like any input; one that JSON cannot carry is no part of the input and stays the function's own.
    """

    is_job = True

    def __init__(
        self,
        app: App,
        name: str,
        fn: Callable[P, R],
        *,
        queue: str,
        priority: int,
        ttl: Duration | None,
        retry: Retry | None,
        timeout: MaybeDuration,
        crash_limit: int = DEFAULT_CRASH_LIMIT,
        replay_ignore: Iterable[str] = (),
        record_http: bool = False,
    ) -> None:
        super().__init__(
            app,
            name,
            queue=queue,
            priority=priority,
            ttl=ttl,
            retry=retry,
            timeout=timeout,
            replay_ignore=replay_ignore,
        )
        owner = f"job {name!r}"
        signature = read_signature(fn, owner)
        plan = _plan(app, owner, name, fn, signature)
        spec = StepSpec(
            name=name,
            retry=self.retry,
            timeout=self.timeout,
            crash_limit=options.check_count(crash_limit, "crash_limit", owner),
            transactional=bool(plan.connection),
        )
        self.input_type = plan.model.type if plan.model else None
        output = app.type_of(signature.returns, signature.names, f"what {owner} returns")
        self.fn = fn
        records = options.check_flag(record_http, "record_http", owner)
        self._add(Step(self, fn, spec, plan, signature, output, record_http=records))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    def step(self, *_: Any, **__: Any) -> Any:
        """A job has one step, its function.

        Raises:
            DefinitionError: always.
        """
        raise DefinitionError(f"job {self.name!r} cannot have more steps", hint="Use app.workflow(...) for several.")


def _plan(app: App, owner: str, name: str, fn: Any, signature: Signature) -> Plan:
    context = tuple(p.name for p in signature.parameters if is_context(p.annotation))
    connection = find_connection(owner, signature)
    given = (*context, *connection)
    inputs = [p for p in signature.parameters if p.name not in given and _is_input(app, p, signature, owner)]
    if not inputs:
        return Plan(context=context, connection=connection)
    attributes = {p.name: _attribute(p.name) for p in inputs}
    model = _build_model(name, getattr(fn, "__module__", None), inputs, attributes, owner)
    source = Source("", None, ValueType(model), f"the input of {owner}")
    return Plan(context=context, connection=connection, fields=tuple(attributes.items()), model=source)


def _is_input(app: App, parameter: Parameter, signature: Signature, owner: str) -> bool:
    annotation = Any if parameter.annotation is MISSING else parameter.annotation
    if not parameter.has_default:
        app.type_of(annotation, signature.names, f"parameter {parameter.name!r} of {owner}")
        return True
    try:
        app.type_of(annotation, signature.names, owner).encode(parameter.default)
    except (PayloadError, DefinitionError):
        return False
    return True


def _attribute(parameter: str) -> str:
    """A field name that pydantic takes: no underscore in front, nothing that hides a method of models."""
    return f"field_{parameter}" if parameter.startswith("_") or hasattr(BaseModel, parameter) else parameter


def _build_model(
    name: str, module: str | None, inputs: list[Parameter], attributes: dict[str, str], owner: str
) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for parameter in inputs:
        annotation = Any if parameter.annotation is MISSING else parameter.annotation
        default = parameter.default if parameter.has_default else ...
        fields[attributes[parameter.name]] = (annotation, Field(default, alias=parameter.name))
    title = "".join(part.capitalize() for part in name.replace("-", "_").replace(".", "_").split("_")) + "Input"
    try:
        return create_model(title, __config__=_CONFIG, __module__=module or __name__, **fields)
    except Exception as exc:
        raise DefinitionError(f"{owner}: its parameters do not make an input: {exc}") from exc
