"""Fixtures for debuggers: `drive` runs steps of shop.py in a process of their own, with text or a terminal as input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kairos.replay.stopping.breakpoints import stop_options
from tests.replay.stopping.terminal import ROOT, Terminal

HERE = Path(__file__).parent
SHOP = HERE / "shop.py"
RECORD: dict[str, dict[str, Any]] = {
    "reserve": {"output": "A1 from A"},
    "charge": {"output": 206, "effects": {"rate": 1.5}},
    "spread": {"output": [0, 1, 4]},
}
DIVISION = {
    "type": "builtins.ZeroDivisionError",
    "message": "integer division or modulo by zero",
    "frames": [["/then/shop.py", 12, "divide", "return order.cents // amount"]],
    "locals": {"amount": "0", "password": "[redacted]"},
}


def line_of(comment: str) -> int:
    """The line of shop.py that ends with this comment."""
    lines = SHOP.read_text("utf-8").splitlines()
    return 1 + next(number for number, line in enumerate(lines) if line.endswith(f"# {comment}"))


class Drive:
    """Starts the driver with a job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.terminals: list[Terminal] = []

    def command(
        self,
        *steps: str,
        record: dict[str, Any] | None = None,
        break_api: bool = False,
        **options: Any,
    ) -> list[str]:
        """The command that replays these steps of shop.py.

        `record` replaces what the record says of them. `break_api`: debugpy is as if its private parts had moved.
        """
        known = {**RECORD, **(record or {})}
        job = {
            "app": f"{SHOP}:app",
            "workflow": "fulfil",
            "options": stop_options(**options).to_json(),
            "input": {"order_id": "A1"},
            "scratch": str(self.scratch),
            "break_api": break_api,
            "steps": [{"step": step, **known.get(step, {})} for step in steps],
        }
        (self.folder / "job.json").write_text(json.dumps(job))
        flags = ["-X", "frozen_modules=off"] if options.get("debugger") == "debugpy" else []
        return [sys.executable, *flags, str(HERE / "driver.py"), str(self.folder / "job.json")]

    def piped(self, typed: str, *steps: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run to the end, with these lines on stdin."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})}
        return subprocess.run(
            self.command(*steps, **more),
            input=typed, capture_output=True, text=True, encoding="utf-8", timeout=60, cwd=self.folder, env=env,
        )  # fmt: skip

    def on_terminal(self, *steps: str, **more: Any) -> Terminal:
        """Start on a pty."""
        terminal = Terminal(*self.command(*steps, **more), cwd=self.folder)
        self.terminals.append(terminal)
        return terminal


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    """Starts steps of shop.py as the replay's child does."""
    drive = Drive(tmp_path)
    yield drive
    for terminal in drive.terminals:
        terminal.close()


Lines = Callable[[str], int]
