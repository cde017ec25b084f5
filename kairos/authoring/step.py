"""One step of a workflow: its function, its policies, and where each parameter comes from.

Decides how recorded values become arguments. Does not run anything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from kairos.authoring.redaction import Redactor
from kairos.authoring.values import ValueType
from kairos.domain.graph import StepSpec
from kairos.domain.payload import Payload
from kairos.domain.retry import Retry
from kairos.errors import PayloadError

if TYPE_CHECKING:
    from kairos.authoring.context import StepContext
    from kairos.authoring.signature import Signature
    from kairos.authoring.workflow import Workflow

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a parameter's value comes from: the output of `step`, or the run's input if that is None."""

    parameter: str
    step: str | None
    type: ValueType
    what: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How a step is called.

    Attributes:
        sources: parameters that receive a stored value whole.
        connection: parameters that receive the psycopg connection of a transactional step.
        fields: of a job: (parameter, attribute of the input model), with `model` as that model's type.
        context: parameters that receive the context.
    """

    sources: tuple[Source, ...] = ()
    context: tuple[str, ...] = ()
    connection: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    model: Source | None = None


class Step(Generic[P, R]):
    """A step. Calling it calls the plain function, for unit tests.

    Attributes:
        name: unique in its workflow.
        fn: the function as written.
        spec: the node of the graph: what it waits for, its policies.
        output_adapter: checks, encodes and decodes what it returns.
        record_http: whether all of it runs within `ctx.record_http()`.
    """

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(
        self,
        workflow: Workflow,
        fn: Callable[P, R],
        spec: StepSpec,
        plan: Plan,
        signature: Signature,
        output: ValueType,
        *,
        record_http: bool = False,
    ) -> None:
        self.__name__ = spec.name
        functools.update_wrapper(self, fn, updated=())
        self.name = spec.name
        self.workflow = workflow
        self.fn = fn
        self.spec = spec
        self.plan = plan
        self.signature = signature
        self.is_async = signature.is_async
        self.record_http = record_http
        self.output_adapter = output
        self.returned = f"step {spec.name!r} returned a value that"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    @property
    def retry(self) -> Retry:
        """How failures are retried, with the exception types that a stored policy knows only by name."""
        return self.spec.retry

    def bind(self, ctx: StepContext, run_input: bytes, upstream: Mapping[str, bytes]) -> dict[str, Any]:
        """The arguments of one attempt, decoded from what is stored.

        Raises:
            PayloadError: a stored value does not have the type of the parameter that receives it.
        """
        plan, arguments, redactor = self.plan, {}, ctx.redactor
        for source in plan.sources:
            raw = run_input if source.step is None else upstream.get(source.step)
            if raw is None:
                raise PayloadError(f"{source.what} was not handed to the step")
            arguments[source.parameter] = source.type.decode(raw, source.what, redactor)
        if plan.model is not None:
            model = plan.model.type.decode(run_input, plan.model.what, redactor)
            for parameter, attribute in plan.fields:
                arguments[parameter] = getattr(model, attribute)
        for parameter in plan.context:
            arguments[parameter] = ctx
        for parameter in plan.connection:
            if ctx.connection is None:
                raise PayloadError(
                    f"step {self.name!r} is transactional, but there is no connection to give it",
                    hint="Without a worker, pass one: run_inline(..., connection=conn).",
                )
            arguments[parameter] = ctx.connection
        return arguments

    def encode_output(self, value: Any, what: str) -> Payload:
        """Check and encode an output that somebody gives in the place of the step's own: a value, or its JSON form.

        Raises:
            PayloadError: it is not of the type that the step returns.
        """
        return self.output_adapter.encode_loosely(value, what, Redactor(self.workflow.app.redaction))

    def __repr__(self) -> str:
        return f"<Step {self.workflow.name}.{self.name}>"
