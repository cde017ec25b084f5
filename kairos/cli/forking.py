"""`kairos fork RUN`: says what is reused and what runs, starts the fork, follows it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.apps import choose_app, find_source
from kairos.cli.database import connected
from kairos.cli.filters import read_duration
from kairos.cli.grid import Column, print_grid
from kairos.cli.payloads import preview
from kairos.cli.repeating import command
from kairos.cli.terminal import err, is_live, one_line, out, print_json, print_wrapped, safe
from kairos.cli.usage import UsageError
from kairos.cli.waiting import see_through, wait_quietly
from kairos.client.facts import read_workers
from kairos.client.forking import LATEST, PlannedFork
from kairos.domain.editing import read_value, split_edit
from kairos.errors import InvalidArgument, PayloadError, WorkflowNotFound
from kairos.store.reader import Reader, RunInfo

if TYPE_CHECKING:
    from kairos.authoring import App, Workflow
    from kairos.client import AsyncClient

MAX_STEPS = 60


@dataclass(frozen=True, slots=True)
class Edits:
    """What was typed; nothing of it is checked yet."""

    from_step: str
    sets: tuple[str, ...]
    outputs: tuple[str, ...]
    version: str
    reason: str

    def arguments(self) -> dict[str, Any]:
        """As `AsyncClient.plan_fork` takes them. Raises UsageError."""
        return {
            "set": _unique((read_set(text) for text in self.sets), "--set"),
            "output": _unique((read_output(text) for text in self.outputs), "--output"),
            "version": self.version,
            "reason": self.reason,
        }


def fork_run(
    name: str | None,
    edits: Edits,
    *,
    key: str | None,
    is_dry: bool,
    wait: bool,
    timeout: str | None,
    app: str | None,
    url: str | None,
    as_json: bool,
) -> int:
    """Fork one run."""
    if name is None:
        raise UsageError("which run?", hint="`kairos fork RUN --from STEP`; to fork many, `kairos fork --where ...`.")
    arguments = edits.arguments()
    seconds = None if timeout is None else read_duration(timeout, "--timeout").total_seconds()
    if timeout is not None and not wait:
        raise UsageError("--timeout says how long --wait waits", hint="Add --wait.")
    loaded = load_app_of(app)

    async def work() -> int:
        async with connected(url) as (client, reader):
            info = await reader.run(await reader.find(name))
            with as_usage():
                planned = await client.plan_fork(
                    info.id, from_step=edits.from_step, key=key, workflow=workflow_of(loaded, info, app), **arguments
                )
            refusal = None if given_version(edits, planned) else unannounced(planned)
            if is_dry:
                if as_json:
                    print_json({"plan": planned.to_json()})
                else:
                    print_plan(out(), planned, info)
                    if refusal is not None:
                        note_refusal(out(), refusal)
                    else:
                        await _warn_if_unserved(out(), reader, planned)
                return exits.OK
            if refusal is not None:
                raise refusal
            console = out() if is_live() else err()
            if not as_json:
                print_plan(console, planned, info)
                await _warn_if_unserved(console, reader, planned)
                console.print()
            return await _start(client, reader, planned, wait, seconds, timeout, as_json, url)

    return asyncio.run(work())


@contextlib.contextmanager
def as_usage() -> Iterator[None]:
    """What cannot be forked as it was typed is wrong usage, exit code 2, as in `kairos replay --fork-from`."""
    try:
        yield
    except (InvalidArgument, PayloadError, WorkflowNotFound) as exc:
        raise UsageError(exc.message, hint=exc.hint) from exc


async def _start(
    client: AsyncClient, reader: Reader, planned: PlannedFork, wait: bool, seconds: float | None,
    timeout: str | None, as_json: bool, url: str | None,
) -> int:  # fmt: skip
    run = await client.start_fork(planned)
    short = words.short_id(run.id)
    if as_json:
        if wait:
            ending = await wait_quietly(reader, run.info.id, seconds)
            print_json({**ending.to_json(), "plan": planned.to_json()})
            return ending.exit_code
        print_json({"run": run.info.to_json(), "plan": planned.to_json()})
        return exits.OK
    head = Text.assemble(safe(run.info.workflow), "  ", (run.id, "bold"), "  ", words.status_text(run.status))
    if not wait:
        out().print(head, soft_wrap=True)
        if out().is_terminal:
            nexts = (command(verb, short, url=url) for verb in ("watch", "lineage"))
            out().print(safe("   ".join(nexts)), style="dim", soft_wrap=True)
        return exits.OK
    (out() if is_live() else err()).print(head, soft_wrap=True)
    return await see_through(reader, run.info.id, seconds, timeout, what="fork")


def load_app_of(given: str | None) -> App | None:
    """The app that is named here, if any."""
    choice = choose_app(given)
    if choice is None:
        return None
    find_source(choice)
    from kairos.authoring.loading import load_app

    return load_app(choice.spec)


def workflow_of(app: App | None, info: RunInfo, given: str | None) -> Workflow | None:
    """The workflow of a run in the app. It need not be there unless the app was named on this command line."""
    if app is None:
        return None
    try:
        return app.get(info.workflow)
    except WorkflowNotFound:
        if given is not None:
            raise
        return None


def read_set(text: str) -> tuple[str, Any]:
    """`input.amount=5`: a path, and a value that is JSON, or else text. Raises UsageError."""
    path, value = _split(text, "--set", "PATH=VALUE", "For example --set input.amount=5 or --set reserve.warehouse=B.")
    return path, read_value(value)


def read_output(text: str) -> tuple[str, Any]:
    """`reserve={"warehouse": "B"}` or `reserve=@file`. Raises UsageError."""
    hint = 'For example --output \'reserve={"warehouse": "B"}\', or --output reserve=@file.json.'
    step, value = _split(text, "--output", "STEP=JSON", hint)
    where = f"--output {step}"
    if value.startswith("@"):
        where = value[1:]
        try:
            value = Path(where).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"--output {step}: {where} cannot be read: {exc}") from exc
    try:
        return step, json.loads(value, parse_constant=_no_constant)
    except ValueError as exc:
        raise UsageError(f"{where} is not JSON: {exc}", hint=f"{hint} Text needs its quotes: '{step}=\"B\"'.") from None


def _split(text: str, option: str, form: str, hint: str) -> tuple[str, str]:
    found = split_edit(text)
    if found is None:
        raise UsageError(f"{option} {text!r} is not {form}", hint=hint)
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON does not have {name}")


def _unique(pairs: Any, option: str) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UsageError(f"{option} gives {name!r} twice")
        found[name] = value
    return found


def print_plan(console: Console, planned: PlannedFork, info: RunInfo) -> None:
    """What becomes of each step."""
    plan = planned.plan
    head = Text.assemble(
        (one_line(info.workflow), "bold"), "  fork of ", (words.short_id(info.id), "bold cyan"), " ",
        words.status_text(info.status), f" from {one_line(plan.from_step)}",
    )  # fmt: skip
    console.print(head, soft_wrap=True)
    own = info.fingerprint[:8]
    version = "its own" if planned.is_pinned else f"its own is {own}"
    console.print(Text(f"version {planned.fingerprint[:8]} ({version})", "dim"))
    for path, value in planned.edits.items():
        shown = one_line(json.dumps(value, ensure_ascii=False), 160)
        console.print(Text.assemble(("edit  ", "magenta"), one_line(path), " = ", shown), soft_wrap=True)
    console.print()
    names = list(planned.definition.graph.steps)
    print_grid(
        console,
        [Column("STEP", most=28), Column("IN THE FORK", least=11), Column("")],
        [_row(planned, name) for name in names[:MAX_STEPS]],
    )
    if len(names) > MAX_STEPS:
        console.print(f"and {len(names) - MAX_STEPS:,} more steps; --json shows all", style="dim")
    counts = f"{len(plan.reused):,} reused, {len(plan.overridden):,} given, {len(plan.runs):,} to run"
    console.print(Text(counts, "dim"))
    _print_notes(console, planned)


def _row(planned: PlannedFork, name: str) -> list[Text]:
    plan = planned.plan
    if name in plan.runs:
        return [Text(one_line(name)), Text("runs", "cyan"), Text(plan.runs[name], "dim")]
    if name in plan.overridden:
        return [Text(one_line(name)), Text("given", "magenta"), Text(preview(planned.payloads[name]), "dim")]
    origin = plan.reused[name]
    where = f"{words.size(origin.size)}, event {origin.seq} of {words.short_id(origin.run)}"
    return [Text(one_line(name)), Text("reused", "green"), Text(where, "dim")]


def _print_notes(console: Console, planned: PlannedFork) -> None:
    for note in planned.plan.notes:
        print_wrapped(console, Text(f"note: {one_line(note, 1_000)}", "yellow"))


def given_version(edits: Edits, planned: PlannedFork) -> bool:
    """Whether the version is one that workers have had, or was named. `latest` of an app at hand names nothing."""
    return planned.is_announced or planned.is_pinned or planned.request.workflow is None or edits.version != LATEST


def unannounced(planned: PlannedFork) -> UsageError:
    """The fork would wait for a worker that nobody has promised."""
    version, own = planned.fingerprint[:8], planned.parent.scheduled.fingerprint
    others = f"--version pinned ({own[:8]}, the run's own)"
    if planned.latest not in (None, own, planned.fingerprint):
        others += f", --version {planned.latest[:8]} (the latest that workers have)"
    return UsageError(
        f"the version of the code here, {version}, was never announced by a worker",
        hint="Deploy it first: a worker that starts with it (`kairos worker`, `kairos dev`) announces it. "
        f"Or fork to another: {others}. --version {version} forks all the same, and waits for such a worker.",
    )


def note_refusal(console: Console, refusal: UsageError) -> None:
    """In a dry run: what would be said."""
    print_wrapped(console, Text(f"note: would be refused: {refusal.message}. {refusal.hint}", "yellow"), hanging=6)


async def _warn_if_unserved(console: Console, reader: Reader, planned: PlannedFork) -> None:
    workers = await read_workers(reader)
    if not any(w.is_live and planned.fingerprint in w.fingerprints for w in workers):
        text = f"note: no live worker has version {planned.fingerprint[:8]}; the fork waits until one does."
        print_wrapped(console, Text(text, "yellow"))
