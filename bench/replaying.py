"""What a replay costs beside a plain loop of the same functions: `python -m bench.replaying`.

The run is written by `InlineRun`, without a database, and replayed from a bundle file by the real parent and child.
Start-up is measured apart, by a replay that runs one step. Prints one JSON object; times in seconds, the best of three.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kairos
from kairos.authoring.inline import InlineRun
from kairos.replay.bundle import open_bundle, write_bundle
from kairos.replay.plan import Choice
from kairos.replay.record import RunRecord
from kairos.replay.replayer import Replayer, Settings
from kairos.store.codec import Row, encode, first_hash

REPEATS = 3
HASHES = 1000
"""Per step: about half a millisecond."""
STEPS = 1000

app = kairos.App("bench-replay")
chain = app.workflow("chain", input=dict)


def _work(text: str) -> str:
    digest = text.encode()
    for _ in range(HASHES):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()


def _step(number: int) -> Callable[..., dict[str, Any]]:
    def first(input: dict[str, Any]) -> dict[str, Any]:
        return {"hash": _work(input["text"]), "items": [{"sku": f"s{n}", "n": n} for n in range(20)]}

    def later(above: dict[str, Any]) -> dict[str, Any]:
        return {"hash": _work(above["hash"]), "items": above["items"]}

    return later if number else first


for n in range(STEPS):
    chain.step(name=f"s{n}", needs={"above": f"s{n - 1}"} if n else {})(_step(n))


def plain() -> float:
    """Seconds that the functions take, one after the other."""
    began = time.perf_counter()
    outputs: dict[str, Any] = {}
    for name, step in chain.steps.items():
        needs = {parameter: outputs[above] for parameter, above in step.spec.needs.items()}
        outputs[name] = step.fn(**(needs or {"input": {"text": "x"}}))
    return time.perf_counter() - began


def record() -> RunRecord:
    """A run of it, as a worker would have stored it."""
    run = InlineRun(chain, {"text": "x"})
    asyncio.run(run.finish())
    rows: list[Row] = []
    for recorded in run.history:
        previous = rows[-1].hash if rows else first_hash(run.state.run_id)
        rows.append(encode(recorded.event, recorded.seq, recorded.at, previous))
    outputs = (step.output for step in run.state.steps.values())
    blobs = {p.sha256: p.data for p in outputs if p is not None and p.sha256 is not None and p.data is not None}
    return RunRecord(run.state.run_id, chain.fingerprint, chain.definition, rows, blobs)


def replay(path: Path, choice: Choice) -> tuple[float, float]:
    """Seconds until the child is ready, and in all."""
    began = time.perf_counter()
    with Replayer(Settings(app=f"{__file__}:app", quiet=True)) as replayer:
        replayer.launch()
        opened = open_bundle(path)
        replayer.start()
        ready = time.perf_counter() - began
        result = replayer.replay(opened, path, choice)
        assert result.exit_code == 0, result.counts
    return ready, time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.kairos"
        write_bundle(record(), path)
        alone = [plain() for _ in range(REPEATS)]
        one = [replay(path, Choice(only="s0"))[1] for _ in range(REPEATS)]
        whole = [replay(path, Choice())[1] for _ in range(REPEATS)]
    start_up = min(one)
    print(json.dumps({
        "steps": STEPS,
        "plain": round(min(alone), 3),
        "start_up": round(start_up, 3),
        "replay_beyond_start_up": round(min(whole) - start_up, 3),
        "ratio": round((min(whole) - start_up) / min(alone), 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
