"""A workflow: a name, the type of its input, and steps that form a DAG.

Checks every step where it is defined. Holds definitions only; running them is the work of others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from kairos.authoring import options
from kairos.authoring.options import UNSET, MaybeDuration
from kairos.authoring.redaction import Redactor
from kairos.authoring.signature import function_name, read_signature
from kairos.authoring.step import Step
from kairos.authoring.values import ValueType
from kairos.authoring.wiring import Surroundings, resolve_steps, wire
from kairos.domain import fingerprint
from kairos.domain.duration import Duration
from kairos.domain.fingerprint import Definition
from kairos.domain.graph import (
    DEFAULT_CRASH_LIMIT,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    DEFAULT_TIMEOUT,
    Graph,
    StepSpec,
)
from kairos.domain.keywords import checks_keywords
from kairos.domain.names import check_name
from kairos.domain.payload import NULL, Payload
from kairos.domain.retry import Retry
from kairos.errors import DefinitionError, PayloadError

if TYPE_CHECKING:
    from kairos.authoring.app import App

P = ParamSpec("P")
R = TypeVar("R")
StepRef = Step[..., Any] | str


@checks_keywords
class Workflow:
    """A DAG of steps. Made by `App.workflow`.

    Attributes:
        queue: where its runs wait.
        priority: 1 to 10, higher goes first.
        ttl: how long a run may wait for a worker before it is EXPIRED; None means for ever.
        replay_ignore: paths whose differences do not count when a replay or `kairos diff` compares outputs.
    """

    is_job = False

    def __init__(
        self,
        app: App,
        name: str,
        *,
        input: Any = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = DEFAULT_PRIORITY,
        ttl: Duration | None = None,
        retry: Retry | None = None,
        timeout: MaybeDuration = UNSET,
        replay_ignore: Iterable[str] = (),
    ) -> None:
        owner = f"{'job' if self.is_job else 'workflow'} {name!r}"
        self.app = app
        self.name = name
        self.queue = options.check_queue(queue, owner)
        self.priority = options.check_priority(priority, owner)
        self.ttl = None if ttl is None else options.check_duration(ttl, "ttl", owner)
        self.retry = Retry() if retry is None else options.check_retry(retry, owner)
        self.timeout = _timeout(timeout, DEFAULT_TIMEOUT, owner)
        self.replay_ignore = options.check_ignore(replay_ignore, owner)
        self.input_type: ValueType | None = None if input is None else app.type_of(input, {}, f"{owner}: input")
        self._steps: dict[str, Step[..., Any]] = {}
        self._graph: Graph | None = None
        self._definition: Definition | None = None
        self._fingerprint: str | None = None

    @property
    def steps(self) -> Mapping[str, Step[..., Any]]:
        """Its steps by name, in order of definition."""
        return MappingProxyType(self._steps)

    @property
    def graph(self) -> Graph:
        """The DAG as data."""
        if self._graph is None:
            self._graph = Graph.build(self.name, {name: step.spec for name, step in self._steps.items()})
        return self._graph

    @property
    def definition(self) -> Definition:
        """All that is pinned to a run: graph, sources, schemas."""
        if self._definition is None:
            steps = self._steps
            schemas: dict[str, Any] = {name: step.output_adapter.schema() for name, step in steps.items()}
            schemas[""] = self.input_type.schema("validation") if self.input_type else {"type": "null"}
            self._definition = Definition(
                graph=self.graph,
                sources={name: step.signature.source for name, step in steps.items()},
                code={name: step.signature.code_hash for name, step in steps.items()},
                schemas=schemas,
                defaults={
                    "queue": self.queue,
                    "priority": self.priority,
                    "ttl_us": None if self.ttl is None else self.ttl // timedelta(microseconds=1),
                    "replay_ignore": list(self.replay_ignore),
                    "guarded": self.app.redaction is not None or '"$secret"' in json.dumps(schemas[""]),
                },
            )
        return self._definition

    @property
    def fingerprint(self) -> str:
        """Names this version of the workflow by its content."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint.fingerprint(self.definition)
        return self._fingerprint

    @overload
    def step(self, fn: Callable[P, R], /) -> Step[P, R]: ...

    @overload
    def step(
        self,
        *,
        name: str | None = None,
        after: Iterable[StepRef] | StepRef = (),
        needs: Mapping[str, StepRef] | None = None,
        retry: Retry | None = None,
        timeout: MaybeDuration = UNSET,
        queue: str | None = None,
        priority: int | None = None,
        ttl: Duration | None = None,
        crash_limit: int = DEFAULT_CRASH_LIMIT,
        record_http: bool = False,
    ) -> Callable[[Callable[P, R]], Step[P, R]]: ...

    def step(
        self,
        fn: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        after: Iterable[StepRef] | StepRef = (),
        needs: Mapping[str, StepRef] | None = None,
        retry: Retry | None = None,
        timeout: MaybeDuration = UNSET,
        queue: str | None = None,
        priority: int | None = None,
        ttl: Duration | None = None,
        crash_limit: int = DEFAULT_CRASH_LIMIT,
        record_http: bool = False,
    ) -> Any:
        """Make a function a step, as `@wf.step` or `@wf.step(...)`.

        Args:
            name: the function's name if left out.
            after: steps that must be done first, without passing data.
            needs: parameter -> the step whose output it receives, where the names differ.
            retry: how failures are retried; the workflow's if left out.
            timeout: limit for one attempt; the workflow's if left out, none if None.
            queue: if other than the run's, only workers of that queue take the step.
            priority: 1 to 10 among the steps that wait; the run's if left out.
            ttl: how long it may wait for a worker before it is EXPIRED.
            crash_limit: crashes of the process, running nothing else, after which it is DEAD.
            record_http: record the HTTP calls that it makes, see `StepContext.record_http`.

        Raises:
            DefinitionError: the step is written wrongly.
        """

        def decorate(function: Callable[..., Any]) -> Step[..., Any]:
            step_name = check_name(function_name(function, name), f"workflow {self.name!r}: step")
            owner = f"step {step_name!r}"
            policies: dict[str, Any] = {
                "retry": self.retry if retry is None else options.check_retry(retry, owner),
                "timeout": _timeout(timeout, self.timeout, owner),
                "queue": None if queue is None else options.check_queue(queue, owner),
                "priority": None if priority is None else options.check_priority(priority, owner),
                "ttl": None if ttl is None else options.check_duration(ttl, "ttl", owner),
                "crash_limit": options.check_count(crash_limit, "crash_limit", owner),
            }
            records = options.check_flag(record_http, "record_http", owner)
            return self._define(step_name, function, after, needs, policies, records)

        return decorate if fn is None else decorate(fn)

    def encode_input(self, value: Any = None) -> Payload:
        """Check and encode the input of a run: a value of the input type, or its plain JSON form.

        Raises:
            PayloadError: it is not of the input type; lists every problem.
        """
        if self.input_type is None:
            if value is not None:
                raise PayloadError(
                    f"{self._kind} {self.name!r} takes no input, and got a {type(value).__name__}",
                    hint="Declare it: app.workflow(..., input=YourModel).",
                )
            return NULL
        what = f"the input of {self._kind} {self.name!r}"
        return self.input_type.encode_loosely(value, what, Redactor(self.app.redaction))

    def run_inline(
        self,
        input: Any = None,
        *,
        sleep: bool = False,
        clock: Callable[[], datetime] | None = None,
        connection: Any = None,
    ) -> Any:
        """Run it here and now, without a database, and return its output: of the one last step, or of all by name.

        Args:
            input: as for `encode_input`.
            sleep: wait between retries as a worker would; otherwise the pauses are skipped.
            clock: tells the time of events; the system's if left out.
            connection: a psycopg connection for transactional steps; you commit or roll back.

        Raises:
            PayloadError: the input is not of the input type.
            RunFailed: a step failed for good; its exception is the cause.
        """
        from kairos.authoring import inline

        return inline.run_inline(self, input, sleep=sleep, clock=clock, connection=connection)

    async def arun_inline(
        self,
        input: Any = None,
        *,
        sleep: bool = False,
        clock: Callable[[], datetime] | None = None,
        connection: Any = None,
    ) -> Any:
        """`run_inline` for async code: the loop goes on meanwhile."""
        from kairos.authoring import inline

        return await inline.InlineRun(self, input, sleep=sleep, clock=clock, connection=connection).finish()

    @property
    def _kind(self) -> str:
        return "job" if self.is_job else "workflow"

    def _define(
        self,
        name: str,
        fn: Callable[..., Any],
        after: Iterable[StepRef] | StepRef,
        needs: Mapping[str, StepRef] | None,
        policies: dict[str, Any],
        record_http: bool,
    ) -> Step[..., Any]:
        self._refuse_twin(name)
        owner = f"step {name!r}"
        signature = read_signature(fn, owner)
        around = Surroundings(self._steps, self.input_type, self.app.type_of)
        given = _mapping(needs, owner)
        explicit = dict(zip(given, resolve_steps(name, given.values(), around, self), strict=True))
        plan, wired = wire(name, signature, explicit, around)
        waits = tuple(dict.fromkeys(resolve_steps(name, _listed(after, owner), around, self)))
        spec = StepSpec(name=name, needs=wired, after=waits, transactional=bool(plan.connection), **policies)
        output = self.app.type_of(signature.returns, signature.names, f"what {owner} returns")
        step: Step[..., Any] = Step(self, fn, spec, plan, signature, output, record_http=record_http)
        self._add(step)
        return step

    def _add(self, step: Step[..., Any]) -> None:
        self._steps[step.name] = step
        self._graph = self._definition = self._fingerprint = None

    def _refuse_twin(self, name: str) -> None:
        if name in self._steps:
            raise DefinitionError(
                f"workflow {self.name!r} has two steps named {name!r}",
                hint='Name one of them differently: @wf.step(name="...").',
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self._steps)} steps>"


def _timeout(value: MaybeDuration, inherited: timedelta | None, owner: str) -> timedelta | None:
    if value is UNSET:
        return inherited
    return None if value is None else options.check_duration(value, "timeout", owner)


def _listed(after: Any, owner: str) -> list[Any]:
    if isinstance(after, str | Step):
        return [after]
    if isinstance(after, Mapping) or not isinstance(after, Iterable):
        raise DefinitionError(f"{owner}: after= takes a list of steps, not a {type(after).__name__}")
    return list(after)


def _mapping(needs: Any, owner: str) -> Mapping[str, Any]:
    if needs is None:
        return {}
    if not isinstance(needs, Mapping):
        raise DefinitionError(
            f"{owner}: needs= takes a dict of parameter to step, not a {type(needs).__name__}",
            hint='Write needs={"parameter": step}; to wait without data, after=[step].',
        )
    return needs
