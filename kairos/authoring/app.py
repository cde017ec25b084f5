"""An app holds workflows and jobs. There is no global one: a worker is told which app it serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar, overload

from kairos.authoring.display import clean
from kairos.authoring.job import Job
from kairos.authoring.options import UNSET, MaybeDuration
from kairos.authoring.redaction import Redaction
from kairos.authoring.signature import function_name
from kairos.authoring.values import ValueType
from kairos.authoring.workflow import Workflow
from kairos.domain.duration import Duration
from kairos.domain.graph import DEFAULT_CRASH_LIMIT, DEFAULT_PRIORITY, DEFAULT_QUEUE
from kairos.domain.keywords import checks_keywords
from kairos.domain.names import check_name, nearest
from kairos.domain.retry import Retry
from kairos.errors import DefinitionError, WorkflowNotFound

P = ParamSpec("P")
R = TypeVar("R")


@checks_keywords
class App:
    """A set of workflows and jobs that are deployed together.

    Args:
        name: of the app.
        redact: what must never be stored, see `Redaction`.

    Raises:
        DefinitionError: the name is not valid.
    """

    def __init__(self, name: str, *, redact: Redaction | None = None) -> None:
        self.name = check_name(name, "app")
        if redact is not None and not isinstance(redact, Redaction):
            raise DefinitionError(f"app {name!r}: redact= takes a kairos.Redaction, not a {type(redact).__name__}")
        self.redaction = redact
        self._workflows: dict[str, Workflow] = {}
        self._types: dict[Any, ValueType] = {}

    @property
    def workflows(self) -> Mapping[str, Workflow]:
        """All workflows by name; jobs are workflows too."""
        return MappingProxyType(self._workflows)

    def get(self, name: str) -> Workflow:
        """The workflow or job of this name.

        Raises:
            WorkflowNotFound: there is none; proposes the nearest.
        """
        found = self._workflows.get(name)
        if found is None:
            raise WorkflowNotFound(
                f"app {self.name!r} has no workflow or job {name!r}", hint=nearest(str(name), self._workflows)
            )
        return found

    def workflow(
        self,
        name: str,
        *,
        input: Any = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = DEFAULT_PRIORITY,
        ttl: Duration | None = None,
        retry: Retry | None = None,
        timeout: MaybeDuration = UNSET,
        replay_ignore: Iterable[str] = (),
    ) -> Workflow:
        """Begin a workflow.

        Args:
            name: unique in the app.
            input: type of its input: a pydantic model, a dataclass, dict, ...; None if it takes none.
            queue: where its runs wait for a worker.
            priority: 1 to 10, higher goes first.
            ttl: how long a run may wait for a worker before it is EXPIRED.
            retry: for steps that have none of their own.
            timeout: for steps that have none of their own; None means no limit.
            replay_ignore: what does not count when a replay or `kairos diff` compares outputs: paths such as
                `created_at`, `*.updated_at`, `items[*].id`, `**.trace_id`. No part of the fingerprint.

        Raises:
            DefinitionError: an option is wrong, or the name is taken.
        """
        self._refuse_twin(check_name(name, "workflow"))
        made = Workflow(
            self,
            name,
            input=input,
            queue=queue,
            priority=priority,
            ttl=ttl,
            retry=retry,
            timeout=timeout,
            replay_ignore=replay_ignore,
        )
        self._workflows[name] = made
        return made

    @overload
    def job(self, fn: Callable[P, R], /) -> Job[P, R]: ...

    @overload
    def job(
        self,
        *,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = DEFAULT_PRIORITY,
        ttl: Duration | None = None,
        retry: Retry | None = None,
        timeout: MaybeDuration = UNSET,
        crash_limit: int = DEFAULT_CRASH_LIMIT,
        replay_ignore: Iterable[str] = (),
        record_http: bool = False,
    ) -> Callable[[Callable[P, R]], Job[P, R]]: ...

    def job(
        self,
        fn: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = DEFAULT_PRIORITY,
        ttl: Duration | None = None,
        retry: Retry | None = None,
        timeout: MaybeDuration = UNSET,
        crash_limit: int = DEFAULT_CRASH_LIMIT,
        replay_ignore: Iterable[str] = (),
        record_http: bool = False,
    ) -> Any:
        """Make a function a job, as `@app.job` or `@app.job(...)`. Options as in `workflow`.

        Raises:
            DefinitionError: the job is written wrongly, or the name is taken.
        """

        def decorate(function: Callable[..., Any]) -> Job[..., Any]:
            job_name = check_name(function_name(function, name), "job")
            self._refuse_twin(job_name)
            made: Job[..., Any] = Job(
                self,
                job_name,
                function,
                queue=queue,
                priority=priority,
                ttl=ttl,
                retry=retry,
                timeout=timeout,
                crash_limit=crash_limit,
                replay_ignore=replay_ignore,
                record_http=record_http,
            )
            self._workflows[job_name] = made
            return made

        return decorate if fn is None else decorate(fn)

    def type_of(self, annotation: Any, names: Mapping[str, Any], owner: str) -> ValueType:
        """The `ValueType` of an annotation, built once for each. `owner` begins the text of an error."""
        try:
            known = self._types.get(annotation)
        except TypeError:  # an annotation that cannot be hashed
            return self._build_type(annotation, names, owner)
        if known is None:
            known = self._types[annotation] = self._build_type(annotation, names, owner)
        return known

    def _build_type(self, annotation: Any, names: Mapping[str, Any], owner: str) -> ValueType:
        if isinstance(annotation, str):
            raise DefinitionError(
                f"{owner}: {clean(annotation, 80)!r} is a text, not a type",
                hint="Define the type above, and write its name without quotes.",
            )
        try:
            return ValueType(annotation, names=dict(names))
        except DefinitionError as exc:
            raise DefinitionError(f"{owner}: {exc.message}", hint=exc.hint) from exc

    def _refuse_twin(self, name: str) -> None:
        if name in self._workflows:
            raise DefinitionError(f"app {self.name!r} has two workflows or jobs named {name!r}")

    def __repr__(self) -> str:
        return f"<App {self.name}: {len(self._workflows)} workflows>"
