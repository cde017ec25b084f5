"""`kairos verify`: proves that histories and bundles are whole, or says which event is the first that is not."""

from __future__ import annotations

import asyncio
import time

from rich.console import Console
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.terminal import err, one_line, out, print_json, print_wrapped, safe
from kairos.replay.bundle import BundleReport, verify_bundle
from kairos.store.verify import Report, Verifier

MAX_SHOWN = 50
MAX_REDACTED = 12


def verify_runs(name: str | None, *, url: str | None, as_json: bool) -> int:
    """Check one run, or all of them; 0 if nothing was found, else 1."""

    async def work() -> int:
        async with reading(url) as reader:
            began = time.monotonic()
            verifier = Verifier(reader.session)
            if name is not None:
                report = await verifier.one(await reader.find(name))
            else:
                report = await _every(verifier)
            if as_json:
                print_json(report.to_json())
            else:
                _print(out(), report, time.monotonic() - began)
            return exits.OK if report.is_clean else exits.ERROR

    return asyncio.run(work())


def verify_file(name: str, *, as_json: bool) -> int:
    """Check a bundle, offline; 0 if it is whole, 1 if not, 4 if there is no such file."""
    began = time.monotonic()
    report = verify_bundle(name)
    if as_json:
        print_json(report.to_json())
    else:
        _print_file(out(), report, time.monotonic() - began)
    if report.is_whole:
        return exits.OK
    return exits.NO_SUCH_RUN if report.code == "no_file" else exits.ERROR


async def _every(verifier: Verifier) -> Report:
    console = err()
    if not console.is_terminal:
        async for _ in verifier.every():
            pass
        return verifier.report
    with console.status("verifying", spinner="line") as status:
        async for report in verifier.every():
            status.update(f"verifying: {words.plural(report.runs, 'run')}, {words.plural(report.events, 'event')}")
    return verifier.report


def _print(console: Console, report: Report, seconds: float) -> None:
    counted = f"{words.plural(report.runs, 'run')}, {words.plural(report.events, 'event')}"
    counted += f", {words.plural(report.blobs, 'payload')}" if report.blobs else ""
    if report.is_clean:
        mark = "✓ " if words.has_shapes() else ""
        console.print(Text.assemble((f"{mark}whole", "green"), f"  {counted} checked in {seconds:.2g}s"))
        console.print("numbering, hash chain, rules, stored state, payloads, tasks", style="dim")
        return
    for problem in report.problems[:MAX_SHOWN]:
        where = f" at event {problem.seq}" if problem.seq is not None else ""
        head = Text.assemble((problem.code, "bold red"), f"  run {problem.run_id}{where}")
        console.print(head, soft_wrap=True)
        console.print(Text(f"  {one_line(problem.message, 500)}"), soft_wrap=True)
    if len(report.problems) > MAX_SHOWN:
        console.print(f"and {len(report.problems) - MAX_SHOWN} more; --json lists all", style="dim")
    concerned = len({problem.run_id for problem in report.problems})
    mark = "✗ " if words.has_shapes() else ""
    text = f"  {words.plural(len(report.problems), 'problem')} in {words.plural(concerned, 'run')}; {counted} checked"
    console.print(Text.assemble((f"{mark}not whole", "bold red"), text))


def _print_file(console: Console, report: BundleReport, seconds: float) -> None:
    if not report.is_whole:
        mark = "✗ " if words.has_shapes() else ""
        where = f" at event {report.seq}" if report.seq is not None else ""
        console.print(Text.assemble((f"{mark}not whole", "bold red"), f"  {report.code}{where}"), soft_wrap=True)
        print_wrapped(console, Text(f"  {one_line(report.problem, 500)}"), hanging=2)
        return
    mark = "✓ " if words.has_shapes() else ""
    counted = f"{words.plural(report.events, 'event')}, {words.plural(report.values, 'value')}"
    console.print(Text.assemble((f"{mark}whole", "green"), f"  {counted} checked in {seconds:.2g}s"))
    run = f"{report.workflow} {report.run_id}, {report.status}; written by Kairos {report.kairos}"
    console.print(safe(run), style="dim", soft_wrap=True)
    console.print("seal, digests, numbering, hash chain, rules, fold", style="dim")
    _print_redactions(console, report)


def _print_redactions(console: Console, report: BundleReport) -> None:
    redactions = report.redactions
    if not redactions:
        return
    count = len(redactions.events) + len(redactions.blobs)
    text = f"{words.plural(count, 'part')} redacted" if count else ""
    if redactions.omitted:
        text += f"{', ' if text else ''}{words.plural(len(redactions.omitted), 'value')} left out"
    rest = "the chain links across them, but what stands there cannot be proved"
    print_wrapped(console, Text.assemble((f"redacted  {text}: ", "yellow"), rest), hanging=10)
    lines = [(f"event {seq}", paths) for seq, paths in redactions.events.items()]
    lines += [(f"value {digest[:12]}", paths) for digest, paths in redactions.blobs.items()]
    for what, paths in lines[:MAX_REDACTED]:
        console.print(Text(f"  {what}: {one_line(', '.join(paths), 160)}", "dim"), soft_wrap=True)
    if len(lines) > MAX_REDACTED:
        console.print(f"  and {len(lines) - MAX_REDACTED} more; --json lists all", style="dim")
