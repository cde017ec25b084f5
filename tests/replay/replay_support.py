"""What the tests of replay share: an app, runs of it that a real worker wrote, `kairos replay` as a user calls it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.cli.cli_support import ROOT
from tests.replay.warm import Warm


@dataclass(frozen=True)
class Replayed:
    """What one call of `kairos replay` left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def steps(self) -> dict[str, Any]:
        """Of the JSON document: step -> what came of it."""
        return {step["step"]: step for step in self.json["steps"]}

    @property
    def verdicts(self) -> dict[str, str]:
        """Of the JSON document: step -> verdict."""
        return {name: step["verdict"] for name, step in self.steps.items()}

    def line(self, step: str) -> str:
        """The line of a step."""
        return next(line for line in self.out.splitlines() if f": {step}  " in line)


def environment(**more: str) -> dict[str, str]:
    """A plain environment for a command."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def replay(
    place: Path, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 60
) -> Replayed:
    """Call `kairos replay` in a process of its own, as a user does."""
    return Replayed(*warm().run(("replay", *arguments), place, environment(**(env or {})), stdin, timeout))


@cache
def warm() -> Warm:
    """The process that the commands of these tests are forks of."""
    return Warm()
