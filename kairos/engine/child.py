"""One worker process below the supervisor of `processes`: loads the app, works, drains, exits.

    python -m kairos.engine.child module:app

Everything else comes by one environment variable, which is removed at once. The parent hears through a pipe
who this worker is (so that it can be buried without waiting for its lease), and this process hears through
another that its parent is gone: then it drains, as at SIGTERM. A second SIGTERM ends it on the spot.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from kairos.domain.graph import DEFAULT_QUEUE
from kairos.engine.lifeline import die_with_parent
from kairos.engine.logs import LogFormat, configure, escape, escape_prints
from kairos.engine.memory import ease_collections
from kairos.errors import KairosError
from kairos.settings import WorkerOptions

if TYPE_CHECKING:
    from kairos.authoring import App
    from kairos.engine.worker import Worker

log = logging.getLogger("kairos.worker")

ENV: Final = "KAIROS_WORKER_CHILD"
CANNOT_START: Final = 3
"""Exit code of a child whose app cannot be loaded: starting it again would not help."""
OOM_SCORE: Final = 500
"""Workers go before Postgres when memory runs out; isolated steps (1000) go before workers."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the parent tells its child. The database stands in KAIROS_DATABASE_URL, as for anybody.

    No queues in `options` means: all that the app uses.
    """

    options: WorkerOptions
    log_format: LogFormat
    log_level: str
    report_fd: int
    life_fd: int
    hold_fd: int | None
    parent: int

    def to_text(self) -> str:
        """As JSON, for the environment."""
        return json.dumps({**asdict(self), "options": asdict(self.options)})

    @classmethod
    def from_text(cls, text: str) -> Orders:
        """The inverse of `to_text`."""
        data = json.loads(text)
        options = data.pop("options")
        return cls(options=WorkerOptions(**{**options, "queues": tuple(options["queues"])}), **data)


def main() -> None:
    """Be a worker until told to stop; exits with 0 after a clean drain."""
    orders = Orders.from_text(os.environ.pop(ENV))
    # Ctrl-C is for the parent, which asks its children to drain.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for fd in (orders.report_fd, orders.life_fd, orders.hold_fd):
        if fd is not None:
            os.set_inheritable(fd, False)
    # Not SIGTERM, a second one of which would cut the drain short.
    die_with_parent(orders.parent, signal.SIGHUP)
    _raise_oom_score()
    configure(orders.log_format, orders.log_level)
    escape_prints()
    app = _load(sys.argv[1])
    try:
        asyncio.run(_serve(app, orders))
    except KairosError as exc:
        log.error("worker_failed: %s", exc)
        sys.exit(1)
    # What a step left running in a thread cannot be stopped; it must not keep the process.
    logging.shutdown()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


async def _serve(app: App, orders: Orders) -> None:
    worker = _make_worker(app, orders)
    loop = asyncio.get_running_loop()
    asked = 0

    def on_term() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            os._exit(128 + signal.SIGTERM)
        worker.stop()

    def on_orphaned() -> None:
        loop.remove_reader(orders.life_fd)
        log.warning("parent_gone: draining, then stopping")
        worker.stop()

    loop.add_signal_handler(signal.SIGTERM, on_term)
    loop.add_signal_handler(signal.SIGHUP, worker.stop)
    loop.add_reader(orders.life_fd, on_orphaned)
    ease_collections()
    await worker.run()


def _make_worker(app: App, orders: Orders) -> Worker:
    from kairos.engine.worker import Worker

    options = orders.options
    if not options.queues:
        options = replace(options, queues=queues_of(app))

    class Reporting(Worker):
        """Tells the parent each of its names, before the database hears of them."""

        async def _register(self) -> None:
            tell(orders.report_fd, {"worker": str(self.office.identity.id), "name": self.office.identity.name})
            await super()._register()
            ready = {name: workflow.fingerprint for name, workflow in app.workflows.items()}
            tell(orders.report_fd, {"ready": ready, "queues": list(options.queues), "sources": sources()})

        async def _drain(self) -> None:
            steps = [f"{body.step} of {held.workflow.name} {str(held.run_id)[-8:]}"
                     for held in self.owner.held.values() for body in held.bodies.values()]  # fmt: skip
            helped = [f"{step} of {str(run_id)[-8:]}" for run_id, step in self.helper.tasks]
            tell(orders.report_fd, {"draining": steps + helped})
            await super()._drain()

    return Reporting(app, os.environ["KAIROS_DATABASE_URL"], options, app_spec=sys.argv[1])


def queues_of(app: App) -> tuple[str, ...]:
    """Every queue that something in the app waits in, the default one first."""
    found = {DEFAULT_QUEUE: None}
    for workflow in app.workflows.values():
        found[workflow.queue] = None
        found.update(dict.fromkeys(spec.queue for spec in workflow.graph.steps.values() if spec.queue))
    return tuple(found)


def sources() -> list[str]:
    """Files of the modules that are loaded and belong to the user."""
    from kairos.usercode import is_user_file

    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return sorted({file for file in files if file and is_user_file(file)})


def tell(fd: int, message: dict[str, Any]) -> None:
    """One line to the parent, if it is still there."""
    with contextlib.suppress(OSError):
        os.write(fd, json.dumps(message).encode() + b"\n")


def _load(spec: str) -> App:
    from kairos.authoring.loading import load_app

    try:
        return load_app(spec)
    except KairosError as exc:
        sys.stderr.write(f"error: {escape(str(exc))}\n")
    except BaseException as exc:
        # The frames of the import machinery and of Kairos say nothing about the user's mistake.
        trace = traceback.TracebackException.from_exception(exc)
        own = [f for f in trace.stack if "importlib" not in f.filename and f"kairos{os.sep}" not in f.filename]
        trace.stack = traceback.StackSummary.from_list(own)
        sys.stderr.write(escape("".join(trace.format())) + f"error: {spec} could not be loaded\n")
    sys.exit(CANNOT_START)


def _raise_oom_score() -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(OOM_SCORE))


if __name__ == "__main__":
    main()
