"""Real bundles and traces: runs by the engine, exported, and recorded line by line by a replay."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kairos
from kairos.replay.bundle import export_bundle
from kairos.store.connect import Session
from kairos.store.reader import Reader
from tests.cli.cli_support import ROOT, working
from tests.ui import bills
from tests.ui.shop import HOSTILE

APP = f"{Path(bills.__file__)}:app"


@dataclass
class Filed:
    """Runs of a database by name, and the files that were made of them."""

    dsn: str
    folder: Path
    runs: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """One of the files."""
        return self.folder / name


def file_away(dsn: str, folder: Path) -> Filed:
    """Let the runs happen, then write their files."""
    filed = Filed(dsn, folder)
    hostile = kairos.App("hostile")

    @hostile.job(retry=kairos.Retry(attempts=1))
    def harm(text: list, ctx: kairos.StepContext) -> dict:
        for piece in text:
            ctx.log.warning(piece, piece=piece)
        if len(text) > 1:
            raise ValueError(text[0] + text[1])
        return {piece: piece for piece in text}

    with working(bills.app, dsn), working(hostile, dsn), kairos.Client(dsn) as client:
        for name, workflow, value, more in (
            ("good", bills.bill, {"id": 1, "currency": "USD"}, {}),
            ("bad", bills.bill, {"id": 2, "currency": "XXX"}, {"labels": {"customer": "42"}}),
            ("harm", harm, {"text": HOSTILE}, {"key": HOSTILE[1], "labels": {"l": HOSTILE[0]}}),
        ):
            run = client.start(workflow, value, **more)
            filed.runs[name] = run.id
            run.wait(60)
        fork = client.fork(filed.runs["bad"], from_step="charge", set={"input.currency": "USD"}, reason="a <b>fix</b>")
        filed.runs["fork"] = fork.id
        fork.wait(60)
        filed.runs["open"] = _unserved(client)
    # In a thread of their own: a browser's event loop may run in this one.
    with ThreadPoolExecutor(1) as thread:
        for name in filed.runs:
            thread.submit(_export, dsn, filed.runs[name], folder / f"{name}.kairos").result()
        thread.submit(_export, dsn, filed.runs["bad"], folder / "blank.kairos", payloads=False).result()
    for name in ("good", "bad"):
        trace(folder / f"{name}.kairos", "charge", folder / f"{name}.ktrace")
    return filed


def _unserved(client: Any) -> str:
    app = kairos.App("elsewhere")

    @app.job(queue="nobody")
    def unserved(to: str) -> str:
        return to

    return str(client.start(unserved, {"to": "x"}).id)


def _export(dsn: str, run: str, path: Path, **more: Any) -> None:
    async def export() -> None:
        session = Session(dsn, "tests", patience=5)
        try:
            reader = Reader(session)
            await export_bundle(reader, await reader.find(run), path, **more)
        finally:
            await session.close()

    asyncio.run(export())


def trace(run: Path, step: str, out: Path, app: str = APP) -> None:
    """Record a step of a bundle's run by `kairos replay`."""
    command = [sys.executable, "-m", "kairos.cli", "replay", str(run), "--app", app, "--only", step]
    done = subprocess.run(
        [*command, "--trace", step, "--trace-out", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert out.is_file(), done.stderr + done.stdout
