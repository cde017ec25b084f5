"""One worker process for the measurements: `python -m bench.worker`, the database in BENCH_DSN."""

from __future__ import annotations

import asyncio
import cProfile
import os
import signal
import sys

from bench.flows import app
from kairos.engine.worker import Worker
from kairos.settings import WorkerOptions


async def main() -> None:
    """Work until SIGTERM."""
    options = WorkerOptions.from_settings(concurrency=int(os.environ.get("BENCH_CONCURRENCY", "500")))
    worker = Worker(app, os.environ["BENCH_DSN"], options)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    task = asyncio.create_task(worker.run())
    await worker.ready.wait()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await task
    sys.stderr.write(f"flushes={worker.flusher.flushes} events={worker.flusher.events}\n")


if __name__ == "__main__":
    where = os.environ.get("BENCH_PROFILE")
    if where:
        profile = cProfile.Profile()
        profile.enable()
        asyncio.run(main())
        profile.disable()
        profile.dump_stats(where)
    else:
        asyncio.run(main())
