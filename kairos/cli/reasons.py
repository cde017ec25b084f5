"""`kairos why`: what a run waits for, in one sentence, and each of its steps below."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.terminal import one_line, out, print_json, print_line, print_wrapped, safe
from kairos.client.facts import run_facts
from kairos.diagnosis import Reason, RunFacts, explain, explain_steps

MAX_STEPS = 12


def tell_why(name: str, *, url: str | None, as_json: bool) -> int:
    """Print the sentence."""

    async def work() -> int:
        async with reading(url) as reader:
            facts = await run_facts(reader, await reader.state(await reader.find(name)))
            reason, steps = explain(facts), explain_steps(facts)
            if as_json:
                run = {"run_id": str(facts.state.run_id), "status": facts.state.status.value}
                print_json({**run, **reason.to_json(), "steps": [step.to_json() for step in steps]})
            else:
                _print(out(), facts, reason, steps)
            return exits.OK

    return asyncio.run(work())


def _print(console: Console, facts: RunFacts, reason: Reason, steps: list[Reason]) -> None:
    print_wrapped(console, Text(one_line(reason.sentence, 1000)))
    if reason.hint:
        print_wrapped(console, Text(f"hint: {safe(reason.hint)}", "cyan"))
    others = [step for step in steps if step.sentence != reason.sentence]
    if not others or len(facts.state.steps) < 2:
        return
    console.print()
    for step in others[:MAX_STEPS]:
        status = words.status_text(facts.state.steps[step.step].status)
        status.pad_right(max(12 - status.cell_len, 0))
        line = Text("  ").append_text(status).append(one_line(step.sentence.removeprefix("Step "), 300))
        print_line(console, line)
    rest = len([s for s in facts.state.steps.values() if not s.status.is_terminal]) - min(len(others), MAX_STEPS)
    if len(others) > MAX_STEPS:
        console.print(f"  and {rest} more steps; --json shows all", style="dim")
