"""One worker in a process of its own: `python -m tests.faults.worker`. Settings come from the environment.

Says `ready` on standard output once it works; its log goes to standard error.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys

from kairos.engine.worker import Worker
from kairos.settings import WorkerOptions
from tests.faults.workload import app


def show_stacks() -> None:
    """For whoever wonders why nothing goes on: where every thread and task stands."""
    faulthandler.dump_traceback(file=sys.stderr)
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


async def main() -> None:
    """Work until SIGTERM."""
    worker = Worker(app, os.environ["KAIROS_DATABASE_URL"], WorkerOptions.from_settings())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, show_stacks)
    work = asyncio.create_task(worker.run())
    ready = asyncio.create_task(worker.ready.wait())
    await asyncio.wait([work, ready], return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        print("ready", flush=True)
    await work


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(main())
