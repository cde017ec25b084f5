"""`kairos show`: one run on one page."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from kairos import settings
from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.failures import print_failure
from kairos.cli.grid import Column, print_grid
from kairos.cli.lines import lost_words
from kairos.cli.live import pick, step_width
from kairos.cli.offline import ending_of, input_of, open_story
from kairos.cli.payloads import print_value, value_of
from kairos.cli.sources import is_file
from kairos.cli.story import Story, read_story
from kairos.cli.terminal import one_line, out, print_json, print_wrapped, safe
from kairos.cli.timeline import LEGEND, Scale, bar
from kairos.cli.waiting import Ending, read_ending
from kairos.client.facts import run_facts
from kairos.diagnosis import Reason, explain
from kairos.domain.documents import error_json, fork_json, state_json
from kairos.domain.events import EffectRecorded, LeaseLost
from kairos.domain.states import RunStatus, StepStatus
from kairos.store.forks import Fork, read_forks_of

MAX_STEPS = 60
MAX_LOSSES = 3
MAX_FAILURES = 3
MAX_EFFECTS = 8


def show_run(name: str, *, url: str | None, as_json: bool, all_steps: bool) -> int:
    """Print the page, of a run or of a bundle."""
    if is_file(name):
        record, story = open_story(name)
        ending, given = ending_of(record, story.info), input_of(record)
        reason = Reason("file", f"It was {story.info.status} when this file was written.") if ending is None else None
        _show(story, ending, given, reason, (), all_steps, as_json)
        console = out()
        if not as_json:
            console.print()
            console.print(f"kairos events {safe(name)}   kairos replay {safe(name)}", style="dim", soft_wrap=True)
        return exits.OK

    async def work() -> int:
        async with reading(url) as reader:
            story = await read_story(reader, await reader.find(name))
            ending = await read_ending(reader, story.info) if story.info.status.is_terminal else None
            raw = await reader.payloads([story.state.input])
            given = value_of(raw[story.state.input.digest])
            reason = explain(await run_facts(reader, story.state)) if ending is None else None
            forks = await read_forks_of(reader.session, [story.info.id])
            _show(story, ending, given, reason, forks, all_steps, as_json)
            if not as_json:
                print_next(out(), story)
            return exits.OK

    return asyncio.run(work())


def _show(
    story: Story,
    ending: Ending | None,
    given: Any,
    reason: Reason | None,
    forks: Sequence[Fork],
    all_steps: bool,
    as_json: bool,
) -> None:
    if as_json:
        print_json(document(story, ending, given, reason, forks))
        return
    console = out()
    print_header(console, story, given)
    print_kin(console, story, forks)
    if reason is not None:
        print_wrapped(console, Text(one_line(reason.sentence, 1000), "yellow"))
    print_steps(console, story, None if all_steps else MAX_STEPS)
    print_losses(console, story)
    print_effects(console, story)
    print_outcome(console, story, ending)


def document(
    story: Story, ending: Ending | None, given: Any, reason: Reason | None, forks: Sequence[Fork] = ()
) -> dict[str, Any]:
    """The page as JSON."""
    now = words.now()
    steps = state_json(story.state)["steps"]
    for name, tries in story.attempts.items():
        steps[name]["history"] = [
            {
                "attempt": a.number,
                "began": a.began.isoformat(),
                "ended": a.ended.isoformat() if a.ended else None,
                "seconds": round(a.length(now).total_seconds(), 6),
                "outcome": a.outcome,
                "worker": a.worker or (story.state.worker if story.info.claims == 1 else None),
                "isolated": a.isolated,
                "signal": a.signal,
                "error": None if a.error is None else error_json(a.error),
            }
            for a in tries
        ]
    return {
        "run": story.info.to_json(),
        "input": given,
        "output": ending.output if ending else None,
        "error": error_json(ending.error) if ending and ending.error else None,
        "why": None if reason is None else reason.to_json(),
        "fork_of": None if story.state.forked is None else fork_json(story.state.forked),
        "forks": [fork.to_json() for fork in forks],
        "steps": steps,
    }


def print_header(console: Console, story: Story, given: Any) -> None:
    """Who, how, when, and with what input."""
    info, state, now = story.info, story.state, words.now()
    length = words.took(words.span(state.started_at, state.finished_at or now)) if state.started_at else ""
    head = Text.assemble((one_line(info.workflow), "bold"), "  ", (str(info.id), "bold cyan"))
    console.print(head, soft_wrap=True)
    facts = Text.assemble(words.status_text(info.status))
    if length:
        facts.append(f" {'in' if info.status.is_terminal else 'for'} {length}")
    facts.append(f"  created {words.clock(info.created_at)} ({words.ago(info.created_at, now)})", "dim")
    console.print(facts)
    console.print(Text("  ".join(_facts(story)), "dim"))
    if info.labels or info.key:
        parts = [f"key {one_line(info.key)}"] if info.key else []
        parts += [f"{one_line(k)}={one_line(v)}" for k, v in info.labels.items()]
        console.print(Text("  ".join(parts)), soft_wrap=True)
    if given is not None:
        console.print(Text.assemble(("input  ", "dim"), one_line(_compact(given), max(console.width - 8, 40))))
    if state.cancel_requested and not info.status.is_terminal:
        asked = state.cancel_requested
        console.print(Text(f"being cancelled by {one_line(asked.author)}: {one_line(asked.reason)}", "magenta"))


def print_kin(console: Console, story: Story, forks: Sequence[Fork]) -> None:
    """What it is a fork of, and what was forked from it."""
    forked = story.state.forked
    if forked is not None:
        line = Text.assemble("fork of ", (words.short_id(forked.parent), "cyan"), f" from {one_line(forked.from_step)}")
        why = f": {one_line(forked.reason)}" if forked.reason else ""
        line.append(f"  by {one_line(forked.author, 40)}{why}", "dim")
        console.print(line, soft_wrap=True)
        for path, value in forked.edits.items():
            shown = one_line(_compact(value), max(console.width - 12 - len(path), 40))
            console.print(Text.assemble(("edit  ", "magenta"), f"{one_line(path)} = {shown}"), soft_wrap=True)
    if forks:
        names = ", ".join(words.short_id(fork.run_id) for fork in forks[-3:])
        more = f" and {len(forks) - 3:,} more" if len(forks) > 3 else ""
        follow = f"  kairos lineage {words.short_id(story.info.id)}"
        console.print(Text.assemble("forked as ", (names, "cyan"), more, (follow, "dim")), soft_wrap=True)


def _facts(story: Story) -> list[str]:
    info, state = story.info, story.state
    facts = [f"queue {info.queue}", f"priority {info.priority}", f"version {info.fingerprint[:8]}"]
    facts.append(words.plural(info.seq, "event"))
    waited = words.span(state.scheduled_at, state.started_at)
    if waited is not None and waited.total_seconds() >= 1:
        facts.append(f"waited {words.took(waited)} for a worker")
    if info.claims > 1:
        facts.append(f"{info.claims} owners")
    if state.stale_writes:
        facts.append(f"{state.stale_writes} late writes refused")
    return facts


def print_steps(console: Console, story: Story, limit: int | None) -> None:
    """The table of steps, with bars if there is room for them."""
    now = words.now()
    names = pick(story, limit or len(story.state.graph.steps))
    name_width = min(step_width(story), 28 if console.width >= 80 else 20)
    room = console.width - name_width - 2 - 13 - 7 - 9 - 1
    scale = Scale.of(story, min(room, 60), now) if room >= 16 else None
    columns = [
        Column("STEP", most=name_width),
        Column("STATUS", least=11),
        Column("TRIES", is_right=True),
        Column("TOOK", is_right=True, least=7),
    ]
    if scale is not None:
        columns.append(Column(scale.heading()))
    rows = [[*_row(story, name, now), *([bar(story, name, scale)] if scale else [])] for name in names]
    console.print()
    print_grid(console, columns, rows)
    hidden = len(story.state.graph.steps) - len(names)
    if hidden:
        console.print(f"and {hidden:,} more steps; --all shows them", style="dim")
    if scale is not None and any(a.outcome != "done" for t in story.attempts.values() for a in t):
        console.print(LEGEND, style="dim")


def print_losses(console: Console, story: Story) -> None:
    """Which attempts were lost, with whom, to what."""
    losses: dict[str, list[str]] = {}
    for recorded in story.events:
        if isinstance(recorded.event, LeaseLost):
            losses.setdefault(lost_words(recorded.event), []).append(one_line(recorded.event.step, 40))
    for how, steps in list(losses.items())[-MAX_LOSSES:]:
        more = f" and {len(steps) - 5} more" if len(steps) > 5 else ""
        print_wrapped(console, Text.assemble(("lost  ", "red"), f"{', '.join(steps[:5])}{more}: {how}"), hanging=6)


def print_effects(console: Console, story: Story) -> None:
    """What each step has asked of the world: how often, and of what went wrong the last."""
    by_step: dict[str, list[EffectRecorded]] = {}
    for recorded in story.events:
        if isinstance(recorded.event, EffectRecorded):
            by_step.setdefault(recorded.event.step, []).append(recorded.event)
    for step, effects in list(by_step.items())[:MAX_EFFECTS]:
        counts = Counter(one_line(effect.name, 60) for effect in effects if effect.error is None)
        names = [name if n == 1 else f"{name} x{n}" for name, n in counts.items()]
        more = f" and {len(names) - MAX_EFFECTS} more" if len(names) > MAX_EFFECTS else ""
        failed = [effect for effect in effects if effect.error is not None]
        line = Text.assemble(("effects  ", "blue"), f"{one_line(step, 40)}: {', '.join(names[:MAX_EFFECTS])}{more}")
        if failed and failed[-1].error is not None:
            last = f"{one_line(failed[-1].name, 60)}: {one_line(failed[-1].error.summary)}"
            line.append(f"{'; ' if names else ''}{len(failed)} failed, the last {last}", "yellow")
        print_wrapped(console, line, hanging=9)
    if len(by_step) > MAX_EFFECTS:
        console.print(f"and of {len(by_step) - MAX_EFFECTS:,} more steps; kairos events shows all", style="dim")


def _row(story: Story, name: str, now: datetime) -> list[Text]:
    step = story.state.steps[name]
    tries = story.attempts.get(name, [])
    length = tries[-1].length(now) if tries else None
    style = "yellow" if len(tries) > 1 else ""
    status = words.status_text(step.status)
    if step.status is StepStatus.PENDING and story.state.status.is_terminal:
        status = Text("· NEVER RAN" if words.has_shapes() else "NEVER RAN", "dim")
    if step.status is StepStatus.DONE and not tries:
        word = "GIVEN" if step.output is not None and step.output.origin is None else "INHERITED"
        status = Text(f"✓ {word}" if words.has_shapes() else word, "dim green")
    return [
        Text(one_line(name)),
        status,
        Text(str(len(tries) or ""), style),
        Text(words.took(length) if length else ""),
    ]


def print_outcome(console: Console, story: Story, ending: Ending | None) -> None:
    """The output, or what went wrong."""
    if ending is None:
        for name, step in story.state.steps.items():
            if step.status in (StepStatus.DEAD, StepStatus.FAILED) and step.error is not None:
                console.print()
                print_failure(console, name, tries_of(story, name), step.error)
        return
    if ending.info.status is RunStatus.DONE:
        console.print()
        console.print("output", style="dim")
        print_value(console, ending.output)
        return
    if ending.info.reason and not ending.info.failed_steps:
        console.print()
        print_wrapped(console, Text(one_line(ending.info.reason, 500)))
    for name in ending.info.failed_steps[:MAX_FAILURES]:
        step = story.state.steps[name]
        console.print()
        if step.error is not None:
            print_failure(console, name, tries_of(story, name), step.error)
        else:
            print_wrapped(console, Text(f"{one_line(name)}: {one_line(step.reason)}"))
    hidden = len(ending.info.failed_steps) - MAX_FAILURES
    if hidden > 0:
        console.print(f"and {words.plural(hidden, 'more failed step')}; --json shows all", style="dim")


def tries_of(story: Story, name: str) -> str:
    """`failed 3 times, the last at 12:03:27`."""
    step = story.state.steps[name]
    policy = story.state.graph.steps[name].retry
    return f"failed {step.failures} of {policy.attempts} tries" if policy.attempts else f"failed {step.failures} times"


def print_next(console: Console, story: Story) -> None:
    """What one might want to know next."""
    short = words.short_id(story.info.id)
    follow = f"kairos state {short} --at SEQ"
    if not story.info.status.is_terminal:
        follow = f"kairos why {short}   kairos watch {short}"
    elif story.info.failed_steps:
        follow += f"   kairos fork {short} --from {story.info.failed_steps[0]}"
    console.print()
    console.print(f"kairos events {short}   {follow}   kairos ui {short}", style="dim", soft_wrap=True)
    if reached := settings.read("ui_url"):
        console.print(f"{reached}/runs/{story.info.id}", style="dim", soft_wrap=True)


def _compact(value: Any) -> str:
    from kairos.cli.terminal import to_json

    return to_json(value, indent=None)
