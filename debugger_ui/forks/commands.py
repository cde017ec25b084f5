"""What to type in a terminal instead of clicking here. Every line does exactly what the page would do."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any
from uuid import UUID


def replay_line(run: UUID | str, step: str | None = None, attempt: int | None = None) -> str:
    """`kairos replay RUN`, stopping inside of the step with the data of that attempt. `run`: id or bundle."""
    words = ["kairos", "replay", str(run)]
    if step is not None:
        words += ["--break-at", step]
        if attempt is not None:
            words += ["--attempt", str(attempt)]
    return shlex.join(words)


def fork_line(
    run_id: UUID, from_step: str, *, set: Mapping[str, Any], output: Mapping[str, Any], version: str, reason: str
) -> str:
    """`kairos fork RUN --from STEP ...` with the same edits, version and reason."""
    words = ["kairos", "fork", str(run_id), "--from", from_step]
    for path, value in set.items():
        words += ["--set", f"{path}={_json(value)}"]
    for step, value in output.items():
        words += ["--output", f"{step}={_json(value)}"]
    if version != "latest":
        words += ["--version", version]
    if reason:
        words += ["--reason", reason]
    return shlex.join(words)


def _json(value: Any) -> str:
    # In ASCII: whatever terminal it is pasted into, nothing of it is invisible or turned around.
    return json.dumps(value)
