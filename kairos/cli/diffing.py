"""`kairos diff`: two runs side by side, and the step at which they part."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.differences import print_differences
from kairos.cli.grid import Column, print_grid
from kairos.cli.sources import is_file
from kairos.cli.terminal import one_line, out, print_json, print_line, print_wrapped, safe
from kairos.cli.usage import UsageError
from kairos.domain.ignoring import Ignore
from kairos.domain.states import StepStatus
from kairos.errors import InvalidArgument
from kairos.replay.bundle import open_bundle
from kairos.replay.compare import Differences
from kairos.replay.diffing import RunDiff, Side, StepDiff, diff_runs
from kairos.replay.parting import headline, source_changes
from kairos.replay.reading import find_last_good, read_record
from kairos.replay.record import RunRecord
from kairos.store.reader import Reader

MAX_STEPS = 60
MAX_TOLD = 8
MAX_SOURCE = 200


def diff(
    first: str,
    second: str | None,
    *,
    last_good: bool,
    ignore: list[str],
    code: bool,
    all_steps: bool,
    url: str | None,
    as_json: bool,
) -> int:
    """Compare and print; 0 if they are the same, else 1."""
    if last_good == (second is not None):
        raise UsageError("give two runs, or one run and --last-good", hint="kairos diff RUN_A RUN_B")
    rules = _rules(ignore)
    old, new = asyncio.run(_read(first, second, url))
    found = diff_runs(old, new, rules)
    if as_json:
        print_json({**found.to_json(), **({"sources": source_changes(found)} if code else {})})
    else:
        _print(out(), found, None if all_steps else MAX_STEPS)
        if code:
            _print_code(out(), found)
    return exits.OK if found.is_same else exits.ERROR


def _rules(ignore: list[str]) -> Ignore:
    try:
        return Ignore(ignore)
    except InvalidArgument as exc:
        raise UsageError(f"--ignore: {exc.message}", hint=exc.hint) from None


async def _read(first: str, second: str | None, url: str | None) -> tuple[RunRecord, RunRecord]:
    """The older one and the newer one; `second` None: the last good run before the first."""
    if is_file(first) and second is not None and is_file(second):
        return open_bundle(Path(first)), open_bundle(Path(second))
    async with reading(url) as reader:
        new = await _one(reader, second or first)
        old = (
            await _one(reader, first)
            if second is not None
            else await read_record(reader, await find_last_good(reader, new.state.workflow, new.run_id))
        )
        return old, new


async def _one(reader: Reader, name: str) -> RunRecord:
    return open_bundle(Path(name)) if is_file(name) else await read_record(reader, await reader.find(name))


def _print(console: Console, found: RunDiff, limit: int | None) -> None:
    for letter, record in (("A", found.old), ("B", found.new)):
        console.print(_head(letter, record), soft_wrap=True)
    forked = found.new.state.forked
    if forked is not None and forked.parent == str(found.old.run_id):
        why = f": {one_line(forked.reason)}" if forked.reason else ""
        console.print(Text(f"B is a fork of A from {one_line(forked.from_step)}{why}", "dim"), soft_wrap=True)
    _print_values(console, "input", found.input)
    console.print()
    _print_steps(console, found, limit)
    console.print()
    _print_verdict(console, found)
    told = [step for step in found.steps if step.what]
    for step in told[:MAX_TOLD]:
        _print_step(console, step, is_first=step is found.first)
    if len(told) > MAX_TOLD:
        text = f"and {words.plural(len(told) - MAX_TOLD, 'more step')} differ; --json tells of all"
        console.print(text, style="dim")


def _head(letter: str, record: RunRecord) -> Text:
    state = record.state
    line = Text.assemble((letter, "bold"), "  ", one_line(state.workflow), " ", (words.short_id(record.run_id), "cyan"))
    line.append("  ").append_text(words.status_text(state.status))
    length = words.span(state.started_at, state.finished_at)
    line.append(f" in {words.took(length)}" if length is not None else "")
    created = words.clock(state.scheduled_at) if state.scheduled_at else ""
    line.append(f"  {created}  version {record.fingerprint[:8]}", "dim")
    if record.source != "database":
        line.append(f"  {safe(record.source)}", "dim")
    return line


def _print_steps(console: Console, found: RunDiff, limit: int | None) -> None:
    steps = found.steps
    if limit is not None and len(steps) > limit:
        kept = {id(step) for step in [s for s in steps if s.what or s.code != "same"][:limit]}
        steps = tuple(step for step in steps if id(step) in kept)
    columns = [Column("", least=1), Column("STEP", most=28), Column("A", least=6), Column("B", least=6)]
    columns += [Column("TOOK A", is_right=True), Column("TOOK B", is_right=True), Column("DIFFERS")]
    print_grid(console, columns, [_row(step, step is found.first) for step in steps])
    if len(steps) < len(found.steps):
        text = f"and {words.plural(len(found.steps) - len(steps), 'more step')}; --all shows them"
        console.print(text, style="dim")


def _row(step: StepDiff, is_first: bool) -> list[Text]:
    mark, style = ("▶", "bold red") if is_first else ("≠", "yellow") if step.what else ("=", "dim")
    plain = {"▶": ">", "≠": "*"}
    differs = [*(what for what in step.what if what != "step")]
    if step.old is None or step.new is None:
        differs.append("only in " + ("B" if step.old is None else "A"))
    differs += [
        f"{side.given} in {letter}" for letter, side in (("A", step.old), ("B", step.new)) if side and side.given
    ]
    differs += [f"({step.code} changed)"] if step.code != "same" else []
    return [
        Text(mark if words.has_shapes() else plain.get(mark, mark), style),
        Text(one_line(step.name), "bold" if is_first else ""),
        _status(step.old),
        _status(step.new),
        _took(step.old),
        _took(step.new),
        Text(", ".join(differs), style if step.what else "dim"),
    ]


def _status(side: Side | None) -> Text:
    return Text("-", "dim") if side is None else words.status_text(StepStatus(side.status))


def _took(side: Side | None) -> Text:
    return Text(
        "-" if side is None or side.took_us is None else words.took(timedelta(microseconds=side.took_us)), "dim"
    )


def _print_verdict(console: Console, found: RunDiff) -> None:
    mark = "✓ " if words.has_shapes() else ""
    if found.is_same:
        console.print(Text.assemble((f"{mark}the same", "green"), "  input, outputs, errors and effects agree"))
        return
    print_wrapped(console, Text.assemble(("first divergence  ", "bold red"), one_line(headline(found), 400)), hanging=2)


def _print_step(console: Console, step: StepDiff, *, is_first: bool) -> None:
    console.print()
    console.print(Text(one_line(step.name), "bold red" if is_first else "bold"))
    if step.old is None or step.new is None:
        return
    if "status" in step.what:
        line = Text("  status  ").append_text(_status(step.old)).append(" → " if words.has_shapes() else " -> ")
        console.print(line.append_text(_status(step.new)))
    if "error" in step.what:
        for letter, side in (("A", step.old), ("B", step.new)):
            print_wrapped(console, Text(f"  error {letter}  {one_line(side.error or 'none', 400)}"), hanging=11)
    for parameter, differences in step.inputs.items():
        _print_values(console, f"input {one_line(parameter, 60)}", differences, indent=2)
    _print_values(console, "output", step.output, indent=2)
    for effect in step.effects:
        title = f"effect {one_line(effect.name, 60)} #{effect.ordinal}"
        only = {"added": "only in B", "removed": "only in A"}.get(effect.kind)
        if only is not None:
            console.print(f"  {title}: {only}")
        else:
            _print_values(console, f"{title} {effect.kind}", effect.differences, indent=2)
    if step.unknown:
        console.print(f"  {' and '.join(step.unknown)} differ, but a value is not at hand", style="yellow")


def _print_values(console: Console, title: str, differences: Differences, *, indent: int = 0) -> None:
    if not differences:
        return
    ignored = f", {differences.ignored} ignored" if differences.ignored else ""
    counted = f"{words.plural(differences.total, 'difference')}, {words.plural(differences.size, 'byte')}{ignored}"
    print_line(console, Text(" " * indent).append(title, "bold").append(f"  {counted}", "dim"))
    print_differences(console, differences, indent=indent + 2)


def _print_code(console: Console, found: RunDiff) -> None:
    sources = source_changes(found)
    console.print()
    if not sources:
        console.print("the code of every step is the same", style="dim")
    for text in sources.values():
        lines = text.splitlines()
        for line in lines[:MAX_SOURCE]:
            style = "green" if line.startswith("+") else "red" if line.startswith("-") else "dim"
            console.print(Text(safe(line), style), soft_wrap=True)
        if len(lines) > MAX_SOURCE:
            console.print(f"and {words.plural(len(lines) - MAX_SOURCE, 'more line')}", style="dim")
