"""The peers as cases of the bench: which workloads, with which settings, in which environment."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from bench.limits import run_json
from bench.plan import Case, Metrics, Options
from bench.server import Server

PYTHON = [
    "dbos==3.4.0",
    "absurd-sdk==0.5.1",
    "absurdctl==0.5.1",
    "procrastinate==3.10.0",
    "pgqueuer==1.6.0",
    "asyncpg==0.32.0",
    "psycopg[binary]==3.3.9",
    "orjson",
    "uvloop",
]
RESTATE_PYTHON = ["restate-sdk[serde]==1.3.0", "granian", "aiohttp", "psycopg[binary]==3.3.9"]
RESTATE_NPM = "@restatedev/restate-server-linux-x64@1.7.12"
RESTATE_SERVER = "node_modules/@restatedev/restate-server-linux-x64/bin/restate-server"

Settings = dict[str, Any]
# (peer, module, {workload: (main metric, settings)}). Settings: the best of what their documentation offers, found
# by short sweeps; docs/performance.md says which.
_FAST = {"connections": 8, "poll": 0.05}
_QUICK = {"poll": 0.01}
_PEERS: list[tuple[str, str, dict[str, tuple[str, Settings]]]] = [
    ("dbos", "dbos", {"w1": ("steps/s", {}), "w2": ("p50 ms", {}), "w3": ("p50 ms", _QUICK), "w4": ("steps/s", {}),
                      "w5": ("drained/s", {})}),
    ("absurd", "absurd", {"w1": ("steps/s", _FAST), "w2": ("p50 ms", _QUICK), "w3": ("p50 ms", _QUICK),
                          "w4": ("steps/s", _FAST), "w5": ("drained/s", _FAST)}),
    ("restate", "restate", {"w1": ("steps/s", {}), "w2": ("p50 ms", {}), "w3": ("p50 ms", {}), "w4": ("steps/s", {}),
                            "w5": ("drained/s", {})}),
    ("procrastinate", "queues", {"w3": ("p50 ms", {"library": "procrastinate"}),
                                 "w5": ("drained/s", {"library": "procrastinate"})}),
    ("pgqueuer", "queues", {"w3": ("p50 ms", {"library": "pgqueuer"}), "w5": ("drained/s", {"library": "pgqueuer"})}),
    ("pgqueuer100", "queues", {"w5": ("drained/s", {"library": "pgqueuer", "batch": 100})}),
]  # fmt: skip


def cases() -> list[Case]:
    """Every workload of every peer, as `peer-NAME-w1`."""
    return [
        Case(
            f"peer-{peer}-{workload}", f"{peer} {workload.upper()}", main, partial(_measure, module, workload, settings)
        )
        for peer, module, workloads in _PEERS
        for workload, (main, settings) in workloads.items()
    ]


def _measure(module: str, workload: str, settings: Settings, server: Server, options: Options) -> Metrics:
    env = options.environments
    python = env / ("restate" if module == "restate" else "peers") / "bin" / "python"
    task = {
        "workload": workload,
        "runs": options.runs,
        "jobs": options.jobs,
        "latencies": options.latencies,
        "settings": settings,
    }
    scratch = tempfile.mkdtemp(prefix="kairos-bench-peer-")
    try:
        more = {"BENCH_SCRATCH": scratch, "BENCH_RESTATE_SERVER": str(env / RESTATE_SERVER)}
        with server.fresh(with_schema=False) as place:
            command: list[object] = [python, "-m", f"bench.peers.{module}", json.dumps(task)]
            return run_json(command, place, timeout=300.0, env=more)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def install(folder: Path) -> None:
    """Make the peers' environments below `folder`, unless they are there. Raises CalledProcessError."""
    environments: tuple[tuple[str, list[str]], ...] = (("peers", PYTHON), ("restate", RESTATE_PYTHON))
    for name, packages in environments:
        done = folder / name / ".installed"
        if done.exists() and done.read_text() == " ".join(packages):
            continue
        print(f"installing {' '.join(packages)} into {folder / name}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
        pip: list[str | Path] = [
            folder / name / "bin" / "python",
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, *packages], check=True)
        done.write_text(" ".join(packages))
    if not (folder / RESTATE_SERVER).exists():
        print(f"installing {RESTATE_NPM} into {folder}", flush=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, RESTATE_NPM], check=True)
