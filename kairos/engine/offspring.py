"""One worker process as its parent sees it: how it is started, what it says of itself, how it ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from kairos.engine.child import ENV, Orders
from kairos.engine.logs import LogFormat
from kairos.settings import WorkerOptions


@dataclass(frozen=True, slots=True)
class Plan:
    """What the worker processes are started with.

    Attributes:
        log_file: a descriptor for what they print and log.
        hold_fd: a descriptor that keeps the embedded server up; they share it, and so can drain without their parent.
    """

    app_spec: str
    dsn: str
    options: WorkerOptions
    processes: int = 1
    log_format: LogFormat = "text"
    log_level: str = "INFO"
    log_file: int | None = None
    hold_fd: int | None = None


@dataclass(slots=True, eq=False)
class Child:
    """One worker process.

    Attributes:
        workers: ids under which it has registered; more than one if it was declared dead and went on.
        workflows, queues: what it serves, once it is ready; name -> fingerprint.
        sources: the files of the user's modules that it has loaded.
        draining: what it lets end before it stops; None as long as it does not drain.
        is_asked: whether it was told to stop.
    """

    number: int
    process: asyncio.subprocess.Process
    life_fd: int
    started: float = field(default_factory=time.monotonic)
    workers: list[UUID] = field(default_factory=list)
    name: str = ""
    workflows: dict[str, str] = field(default_factory=dict)
    queues: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    draining: list[str] | None = None
    is_ready: bool = False
    is_asked: bool = False
    listener: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def ask_to_stop(self) -> None:
        """SIGTERM, once: a second one would end it without a drain."""
        if not self.is_asked and self.process.returncode is None:
            self.is_asked = True
            self.process.terminate()

    def hear(self, line: bytes) -> bool:
        """Take in what it says of itself; True when it has become ready, or begun to drain."""
        message = json.loads(line)
        if "worker" in message:
            self.workers.append(UUID(message["worker"]))
            self.name = message["name"]
            return False
        if "draining" in message:
            self.draining = message["draining"]
        else:
            self.is_ready = True
            self.workflows, self.queues, self.sources = message["ready"], message["queues"], message["sources"]
        return True


async def spawn(plan: Plan, number: int, on_news: Callable[[Child], None]) -> Child:
    """Start a worker process. `on_news` is called whenever it has registered with the database, and when it drains."""
    report_r, report_w = os.pipe()
    life_r, life_w = os.pipe()
    orders = Orders(plan.options, plan.log_format, plan.log_level, report_w, life_r, plan.hold_fd, os.getpid())
    inherited = (report_w, life_r) if plan.hold_fd is None else (report_w, life_r, plan.hold_fd)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "kairos.engine.child",
            plan.app_spec,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=plan.log_file,
            stderr=plan.log_file,
            pass_fds=inherited,
            env={**os.environ, "KAIROS_DATABASE_URL": plan.dsn, ENV: orders.to_text()},
            # A group of its own: Ctrl-C reaches the parent alone, and what a dead child leaves can be killed.
            process_group=0,
        )
    except BaseException:
        os.close(report_r)
        os.close(life_w)
        raise
    finally:
        os.close(report_w)
        os.close(life_r)
    child = Child(number, process, life_w)
    child.listener = asyncio.create_task(_listen(child, report_r, on_news))
    return child


async def _listen(child: Child, fd: int, on_news: Callable[[Child], None]) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
    )
    try:
        async for line in reader:
            if child.hear(line):
                on_news(child)
    finally:
        transport.close()


def signal_name(code: int) -> str | None:
    """The signal in a return code, if it was one."""
    if code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def ending(code: int) -> str:
    """`signal=SIGKILL` or `exit_code=1`, for log lines."""
    name = signal_name(code)
    return f"signal={name}" if name else f"exit_code={code}"
