"""Restate: its own server (from npm) with its own log, so no Postgres. Tuned: granian, four partitions.

All ports are picked free, so no stale process can answer for this one.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench import processes
from bench.meter import tree_cpu
from bench.peers import common
from bench.peers.common import Task
from bench.record import RECORD

CONCURRENCY = 100


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@contextmanager
def serving(task: Task) -> Iterator[tuple[str, int, int]]:
    """Server and service for the length of the block: the address for calls, and their pids."""
    ingress, admin, node, port = _free_ports(4)
    scratch = Path(os.environ["BENCH_SCRATCH"])
    env = {
        "RESTATE_LOG_FILTER": "warn",
        "RESTATE_BIND_IP": "127.0.0.1",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_PORT": str(node),
        "RESTATE_INGRESS__BIND_PORT": str(ingress),
        "RESTATE_ADMIN__BIND_PORT": str(admin),
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_DEFAULT_NUM_PARTITIONS": str(task.settings.get("partitions", 4)),
    }
    server = [os.environ["BENCH_RESTATE_SERVER"], "--base-dir", scratch / "restate", "--node-name", "n1"]
    service = [
        *(sys.executable, "-m", "granian", "bench.peers.restate_service:app", "--interface", "asgi", "--http", "2"),
        *("--host", "127.0.0.1", "--port", port, "--workers", "1", "--log-level", "error", "--no-access-log"),
    ]
    with open(scratch / "restate.log", "w") as log:
        with processes.running(server, service, env=env, stdout=log) as (one, two):
            _register(f"http://127.0.0.1:{admin}/deployments", f"http://127.0.0.1:{port}", scratch / "restate.log")
            yield f"http://127.0.0.1:{ingress}/Bench", one.pid, two.pid


def _register(admin: str, service: str, log: Path) -> None:
    request = urllib.request.Request(admin, json.dumps({"uri": service}).encode(), {"content-type": "application/json"})
    deadline = time.monotonic() + 40
    while True:
        try:
            urllib.request.urlopen(request, timeout=20).read()
            return
        except OSError as exc:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Restate did not take the service: {exc}\n{log.read_text()[-2000:]}") from exc
            time.sleep(0.3)


async def _measure(task: Task, url: str, server: int, service: int) -> dict[str, float]:
    limits = asyncio.Semaphore(CONCURRENCY)
    timeout = aiohttp.ClientTimeout(300)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

        async def call(handler: str, body: Any) -> Any:
            async with limits, session.post(f"{url}/{handler}", json=body) as response:
                assert response.status == 200, (response.status, await response.text())
                return await response.json()

        await _until_routed(call)
        await asyncio.gather(*(call("chain", RECORD) for _ in range(common.WARM_UP)))
        if task.workload == "w2":
            times = []
            for _ in range(task.latencies + 10):
                began = time.perf_counter()
                await call("chain", RECORD)
                times.append(time.perf_counter() - began)
            return common.quantiles(times[10:])
        if task.workload == "w3":
            return common.quantiles([await call("pickup", time.time()) for _ in range(task.latencies + 10)][10:])
        before = tree_cpu(service), tree_cpu(server)
        began = time.perf_counter()
        if task.workload == "w4":
            units, rate = 1001, "steps/s"
            assert await call("fan", 1000) == 1000
        elif task.workload == "w1":
            units, rate = task.runs * 5, "steps/s"
            await asyncio.gather(*(call("chain", RECORD) for _ in range(task.runs)))
        else:
            units, rate = task.jobs, "drained/s"
            await asyncio.gather(*(call("job", RECORD) for _ in range(task.jobs)))
        took = time.perf_counter() - began
        worker, log = tree_cpu(service) - before[0], tree_cpu(server) - before[1]
        unit = "job" if task.workload == "w5" else "step"
        return {rate: units / took, f"worker us/{unit}": worker * 1e6 / units, f"server us/{unit}": log * 1e6 / units}


async def _until_routed(call: Any) -> None:
    """The service is known at the ingress a moment after it was registered."""
    deadline = time.monotonic() + 20
    while True:
        try:
            await call("chain", RECORD)
            return
        except (AssertionError, aiohttp.ClientError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


def measure(task: Task) -> dict[str, float]:
    """Any of the workloads. Jobs are timed with `CONCURRENCY` calls in flight."""
    with serving(task) as (url, server, service):
        return asyncio.run(_measure(task, url, server, service))


if __name__ == "__main__":
    common.main({}, dict.fromkeys(("w1", "w2", "w3", "w4", "w5"), measure))
