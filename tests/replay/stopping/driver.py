"""Calls steps as the replay's child does: attach, put up the guards, load the app, check, then step after step.

    python driver.py JOB    with JOB a JSON file: app, workflow, options, input, steps [{step, output | error}]

The outcome of the whole is its exit code: 0 fine, 1 something failed or was not reproduced, 40 the user has quit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kairos.authoring import StepContext
from kairos.authoring.loading import load_app
from kairos.domain import canonical
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import EffectRecorded
from kairos.domain.payload import Payload
from kairos.errors import KairosError
from kairos.replay import guard
from kairos.replay.stopping.session import DebuggerQuit
from kairos.replay.stopping.stops import Stops


class Silent:
    def log(self, record: object) -> None: ...
    def metric(self, record: object) -> None: ...


@dataclass
class Attempt:
    output: Payload | None
    error: ErrorInfo | None
    effects: list[EffectRecorded]


@dataclass
class Call:
    step: Any
    ctx: StepContext
    run_input: bytes
    upstream: dict[str, bytes]
    arguments: dict[str, Any]
    recorded: Attempt


def main(path: str) -> int:
    with open(path) as file:
        job = json.load(file)
    stops = Stops.from_json(job["options"])
    try:
        stops.attach()
    except KeyboardInterrupt:
        print("nobody attached")
        return 130
    except KairosError as exc:
        print(f"error: {exc}")
        return 2
    if job["break_api"]:
        from _pydevd_bundle.pydevd_api import PyDevdAPI

        del PyDevdAPI.add_breakpoint
    loop = asyncio.new_event_loop()
    guard.enter(guard.Policy(scratch=Path(job["scratch"])))
    try:
        workflow = load_app(job["app"]).workflows[job["workflow"]]
        notes = stops.check({name: step.fn for name, step in workflow.steps.items()})
    except KairosError as exc:
        print(f"error: {exc}")
        return 2
    for note in notes:
        print(f"[replay] {note}")
    failed = False
    upstream: dict[str, bytes] = {}
    try:
        for item in job["steps"]:
            failed |= run(stops, workflow.steps[item["step"]], item, job, upstream, loop)
            if stops.session.quit:
                raise DebuggerQuit(0)
    except DebuggerQuit:
        print("[replay] ended by the debugger")
        return 40
    finally:
        loop.close()
    for leak in guard.leaks():
        print(f"[leak] {leak}")
        failed = True
    return 1 if failed or stops.not_reproduced else 0


def run(stops: Stops, step: Any, item: Any, job: Any, upstream: dict[str, bytes], loop: Any) -> bool:
    ctx = StepContext(
        run_id="0190f3a2-0000-7000-8000-000000000001", step=step.name, attempt=2, token=1,
        workflow=job["workflow"], app="shop", sink=Silent(),
    )  # fmt: skip
    raw = canonical.encode(job["input"])
    recorded = Attempt(
        Payload.of(canonical.encode(item["output"])) if "output" in item else None,
        ErrorInfo.from_json(item["error"]) if "error" in item else None,
        [
            EffectRecorded(step=step.name, attempt=2, token=1, name=name, ordinal=1, via="call",
                           result=Payload.of(canonical.encode(value)), duration_us=1500)
            for name, value in item.get("effects", {}).items()
        ],
    )  # fmt: skip
    call = Call(step, ctx, raw, upstream, step.bind(ctx, raw, upstream), recorded)
    try:
        with contextlib.ExitStack() as watched:
            watched.enter_context(stops.observe(call))
            value = step.fn(**call.arguments)
            if step.is_async:
                value = loop.run_until_complete(value)
    except Exception as exc:
        print(f"[replay] step {step.name}  FAIL {type(exc).__name__}")
        return True
    upstream[step.name] = step.output_adapter.encode(value, step.returned, ctx.redactor).data
    stops.returned(upstream[step.name])
    print(f"[replay] step {step.name}  OK {value!r}")
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
