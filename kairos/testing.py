"""What users need to test their workflows under pytest.

    from kairos import testing

    def test_a_declined_card_fails_the_order():
        run = testing.run(fulfil, Order(...), replace={"charge": ConnectionError("declined")})
        assert run.status == "FAILED"
        assert run.attempts("charge") == 5

    def test_for_real():
        with testing.running(app) as client:            # embedded Postgres, one worker, a fresh database
            assert client.start(fulfil, Order(...)).result(timeout=10) == ...

`run` needs no database; `running` uses real ones throughout. Neither needs a plugin or a fixture.
"""

from __future__ import annotations

import asyncio
import atexit
import copy
import dataclasses
import inspect
import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kairos.authoring import App, Step, StepContext, Workflow
from kairos.authoring.context import LogRecord, MetricRecord
from kairos.authoring.inline import InlineRun
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import LogEmitted, MetricEmitted, Recorded, StepStarted
from kairos.domain.keywords import checks_keywords
from kairos.domain.names import nearest
from kairos.domain.projection import RunState
from kairos.domain.states import RunStatus, StepStatus
from kairos.errors import DefinitionError, RunFailed

if TYPE_CHECKING:
    from kairos.authoring.effects import Effect, EffectJournal
    from kairos.client import Client
    from kairos.embedded import Cluster

__all__ = ["Records", "TestRun", "context", "run", "running"]


class TestRun:
    """A run that has ended, made by `run`.

    Attributes:
        state: where everything stands; `history`: the events, as a worker would have stored them.
        error: the RunFailed that `output` raises, if it failed.
    """

    __test__ = False

    def __init__(self, inline: InlineRun, output: Any, error: RunFailed | None) -> None:
        self.state: RunState = inline.state
        self.history: Sequence[Recorded] = inline.history
        self.error = error
        self._output = output

    @property
    def status(self) -> RunStatus:
        """How it ended."""
        return self.state.status

    @property
    def output(self) -> Any:
        """What the last step returned (of several: by name). Raises RunFailed."""
        if self.error is not None:
            raise self.error
        return self._output

    def steps(self) -> dict[str, StepStatus]:
        """Where each step stands."""
        return {name: step.status for name, step in self.state.steps.items()}

    def attempts(self, step: str) -> int:
        """How many attempts of a step began."""
        return sum(1 for r in self.history if isinstance(r.event, StepStarted) and r.event.step == step)

    def error_of(self, step: str) -> ErrorInfo | None:
        """What the last failed attempt of a step raised."""
        return self.state.steps[step].error

    def logs(self) -> list[tuple[str, str, str]]:
        """(step, level, message) of every log line, in order."""
        events = (r.event for r in self.history)
        return [(e.step, e.level, e.message) for e in events if isinstance(e, LogEmitted)]

    def metrics(self) -> list[tuple[str, str, float]]:
        """(step, name, value) of every metric, in order."""
        events = (r.event for r in self.history)
        return [(e.step, e.name, e.value) for e in events if isinstance(e, MetricEmitted)]


@checks_keywords
def run(
    workflow: Workflow, input: Any = None, *, replace: Mapping[str, Any] | None = None, connection: Any = None
) -> TestRun:
    """Run a workflow here, without a database, to its end, good or bad. Pauses between retries are skipped.

    Args:
        replace: step -> what stands in for its function: a value to return, an exception to raise, or a
            callable that gets the step's arguments by name. Its output is checked like that of the step.
        connection: a psycopg connection for transactional steps that are not replaced.

    Raises:
        DefinitionError: `replace` names a step that does not exist.
        PayloadError: the input is not of the input type.
    """
    stand_ins = dict(replace or {})
    for name in stand_ins:
        if name not in workflow.steps:
            raise DefinitionError(f"{workflow.name!r} has no step {name!r}", hint=nearest(name, workflow.steps))
    inline = _Replaced(workflow, input, stand_ins, connection)
    return _in_thread(lambda: asyncio.run(_finish(inline)))


async def _finish(inline: InlineRun) -> TestRun:
    try:
        return TestRun(inline, await inline.finish(), None)
    except RunFailed as exc:
        return TestRun(inline, None, exc)


class _Replaced(InlineRun):
    def __init__(self, workflow: Workflow, value: Any, stand_ins: Mapping[str, Any], connection: Any) -> None:
        super().__init__(workflow, value, connection=connection)
        self._steps = {
            name: _stand_in(step, stand_ins[name]) if name in stand_ins else step
            for name, step in workflow.steps.items()
        }

    def step(self, name: str) -> Step[..., Any]:
        return self._steps[name]


def _stand_in(step: Step[..., Any], given: Any) -> Step[..., Any]:
    made = copy.copy(step)
    made.plan = dataclasses.replace(step.plan, connection=())

    def call(**arguments: Any) -> Any:
        if isinstance(given, BaseException) or (isinstance(given, type) and issubclass(given, BaseException)):
            raise given
        return given(**arguments) if callable(given) else copy.deepcopy(given)

    async def acall(**arguments: Any) -> Any:
        value = call(**arguments)
        return await value if inspect.isawaitable(value) else value

    made.fn = acall if step.is_async else call
    return made


class Records:
    """Collects what a step says and asks for through its context."""

    def __init__(self) -> None:
        self.logs: list[LogRecord] = []
        self.metrics: list[MetricRecord] = []
        self.effects: list[Effect] = []

    def log(self, record: LogRecord) -> None:
        """Take a log line."""
        self.logs.append(record)

    def metric(self, record: MetricRecord) -> None:
        """Take a number."""
        self.metrics.append(record)

    def journal(self) -> EffectJournal:
        """Where effects are recorded: here, and nothing is recalled."""
        from kairos.authoring.effects import BasicJournal

        effects = self.effects

        class Journal(BasicJournal):
            def record(self, effect: Effect) -> None:
                effects.append(effect)

        return Journal()


@checks_keywords
def context(
    step: str = "step",
    *,
    run_id: str = "00000000-0000-7000-8000-000000000000",
    attempt: int = 1,
    token: int = 1,
    workflow: str = "workflow",
    app: str = "app",
    records: Records | None = None,
) -> StepContext:
    """A context for calling a step's function directly. `records` collects its logs, metrics and effects."""
    records = records or Records()
    return StepContext(
        run_id=run_id,
        step=step,
        attempt=attempt,
        token=token,
        workflow=workflow,
        app=app,
        sink=records,
        journal=records.journal,
    )


_COUNT = itertools.count(1)
_lock = threading.Lock()
_cluster: Cluster | None = None


@checks_keywords
@contextmanager
def running(app: App, *, url: str | None = None, concurrency: int = 20) -> Iterator[Client]:
    """A worker for `app` in this process and a client, on a real Postgres, for the length of the block.

    Args:
        url: a database whose schema is migrated; by default a fresh one on an embedded server, which lives
            in a temporary folder until the test process ends.
        concurrency: steps that run at once.
    """
    from kairos.client import Client
    from kairos.engine.worker import Worker
    from kairos.settings import WorkerOptions

    dsn = url or _fresh_database()
    queues = {wf.queue for wf in app.workflows.values()}
    queues |= {step.spec.queue for wf in app.workflows.values() for step in wf.steps.values() if step.spec.queue}
    options = WorkerOptions(
        queues=tuple(queues or {"default"}), concurrency=concurrency, poll=0.1, lease=5.0, drain_timeout=2.0
    )
    loop = asyncio.new_event_loop()
    ready: threading.Event = threading.Event()
    workers: list[Worker] = []

    async def work() -> None:
        worker = Worker(app, dsn, options)
        workers.append(worker)
        announce = loop.create_task(worker.ready.wait())
        announce.add_done_callback(lambda _: ready.set())
        try:
            await worker.run()
        finally:
            ready.set()

    errors: list[BaseException] = []

    def main() -> None:
        try:
            loop.run_until_complete(work())
        except BaseException as exc:
            errors.append(exc)
        finally:
            loop.close()

    thread = threading.Thread(target=main, name="kairos-test-worker", daemon=True)
    thread.start()
    ready.wait()
    if errors:
        raise errors[0]
    try:
        with Client(dsn) as client:
            yield client
    finally:
        loop.call_soon_threadsafe(workers[0].stop)
        thread.join()
    if errors:
        raise errors[0]


def _fresh_database() -> str:
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import make_conninfo

    from kairos import embedded
    from kairos.store.migrate import allow_own_tables, migrate
    from kairos.store.queries import query

    global _cluster
    with _lock:
        if _cluster is None:
            folder = Path(tempfile.mkdtemp(prefix="kairos-test-"))
            _cluster = embedded.open(folder / "data")
            atexit.register(_remove, _cluster, folder)
    name = f"test_{next(_COUNT)}"
    with psycopg.connect(_cluster.admin_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL(query("create_database")).format(name=sql.Identifier(name)))
    admin = make_conninfo(_cluster.admin_dsn, dbname=name)
    migrate(admin, grant_to="kairos")
    allow_own_tables(admin, "kairos")
    return make_conninfo(_cluster.dsn, dbname=name)


def _remove(cluster: Cluster, folder: Path) -> None:
    from kairos import embedded

    cluster.close()
    embedded.stop(folder / "data", force=True)
    shutil.rmtree(folder, ignore_errors=True)


def _in_thread(work: Callable[[], TestRun]) -> TestRun:
    """Run where no event loop is running, so that `run` can be called from async tests too."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    result: list[TestRun | BaseException] = []

    def body() -> None:
        try:
            result.append(work())
        except BaseException as exc:
            result.append(exc)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]
