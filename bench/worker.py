"""One worker process: `python -m bench.worker MODULE:APP CONCURRENCY PROFILE RUNS_PER_FLUSH`,
the database in BENCH_DSN.

Says "ready" when it works; at SIGTERM it drains, and its last line is what it counted, as JSON.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import signal
import sys

from kairos.authoring.loading import load_app
from kairos.engine import flusher
from kairos.engine.memory import ease_collections
from kairos.engine.worker import Worker
from kairos.settings import WorkerOptions


async def work(spec: str, concurrency: int) -> None:
    """Work until SIGTERM."""
    worker = Worker(load_app(spec), os.environ["BENCH_DSN"], WorkerOptions.from_settings(concurrency=concurrency))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    ease_collections()  # as `kairos worker` does
    task = asyncio.create_task(worker.run())
    await worker.ready.wait()
    print("ready", flush=True)
    await task
    counted = worker.flusher
    print(json.dumps({"flushes": counted.flushes, "events": counted.events, "stale": worker.office.stale_writes}))


def main(spec: str, concurrency: str, profile: str, runs_per_flush: str) -> None:
    """See the module. `profile`: a file for cProfile, or empty; `runs_per_flush`: 0 is the engine's own limit."""
    if int(runs_per_flush):
        flusher.MAX_RUNS = int(runs_per_flush)
    if not profile:
        asyncio.run(work(spec, int(concurrency)))
        return
    with cProfile.Profile() as profiler:
        asyncio.run(work(spec, int(concurrency)))
    profiler.dump_stats(f"{profile}.{os.getpid()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
