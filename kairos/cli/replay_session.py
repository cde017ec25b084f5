"""One `kairos replay`: reads the run, has it replayed, says what came of it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from kairos.cli import words
from kairos.cli.database import PATIENCE, connected, open_existing
from kairos.cli.forking import read_output, read_set
from kairos.cli.repeating import command
from kairos.cli.replay_json import document
from kairos.cli.replay_lines import Lines, next_lines
from kairos.cli.replay_request import Request
from kairos.cli.sources import is_file
from kairos.cli.stopping import code_after, prepare
from kairos.cli.terminal import err, out, print_json, safe
from kairos.cli.usage import UsageError
from kairos.errors import (
    InvalidArgument,
)
from kairos.replay.bundle import export_bundle, open_bundle
from kairos.replay.facts import facts_of
from kairos.replay.plan import Choice, Mode, Plan, make_plan
from kairos.replay.record import RunRecord
from kairos.replay.replayer import Edits, Replayer
from kairos.replay.results import Code, RunResult
from kairos.replay.verdicts import USAGE, Verdict
from kairos.store.connect import Session
from kairos.store.reader import Reader

_BAD: Final = frozenset(
    {
        Verdict.SAME_ERROR, Verdict.NEW_ERROR, Verdict.CRASHED, Verdict.INTERRUPTED, Verdict.BLOCKED, Verdict.MISSING,
        Verdict.DIVERGED_EFFECTS,
    }
)  # fmt: skip
"""A fork is not submitted if a step of it ends so. Another output than then is no reason: that is what a fix is for."""


class ReplaySession:
    """One replay: the child is there already, unless effects are to happen."""

    record: RunRecord

    def __init__(self, request: Request, choice: Choice, replayer: Replayer) -> None:
        self.request, self.choice, self.replayer = request, choice, replayer
        self.console: Console = err() if request.as_json else out()
        self.lines = replayer.listener = Lines(self.console, replayer.settings.app)

    def run(self) -> int:
        """From the first line to the exit code."""
        replayer = self.replayer
        path = self._read(replayer)
        self._introduce()
        self.choice, said = prepare(self.request.stops, self.record, self.choice)
        if said:
            self.lines.noted(said)
        if self.choice.mode is Mode.LIVE and not self._is_agreed():
            return USAGE
        replayer.start()
        edits = replayer.edits(self.record, *self._given)
        code, plan = self._prepare(replayer, edits)
        result = replayer.replay(self.record, path, self.choice, plan=plan, edits=edits, ignore=self.request.ignore)
        trace = self._keep_trace(replayer)
        result.leaks.extend(replayer.loaded.leaks if replayer.loaded is not None else ())
        version = replayer.describe(self.record.definition.workflow).fingerprint
        told = document(result, self.record, self.choice, replayer, code) if self.request.as_json else {}
        replayer.end_child()
        self.lines.finish(result)
        submitted = self._submit(result, version) if self.request.submit else None
        if submitted is None:
            for line in next_lines(result, self.choice, self.request.again):
                self.lines.say(Text("next: ", "cyan").append(safe(line)))
        if self.request.as_json:
            print_json(told | {"fork": submitted} | ({} if trace is None else {"trace": str(trace)}))
        elif trace is not None:
            assert self.request.looking_back is not None
            self.request.looking_back.look(trace, self.lines.say)
        return code_after(result, self.request.stops)

    def _keep_trace(self, replayer: Replayer) -> Path | None:
        """Where the recorded lines are now; None if there are none, or none were asked for."""
        back = self.request.looking_back
        if back is None:
            return None
        if not replayer.trace_file.exists():
            self.lines.noted(f"step {back.step} was not run, so nothing was recorded")
            return None
        return back.keep(replayer.trace_file)

    @property
    def _given(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What `--set` and `--output` say: by path, and by step."""
        return (
            dict(map(read_set, self.request.set)),
            dict(map(read_output, self.request.output)),
        )

    def _submit(self, result: RunResult, version: str) -> str | None:
        """Start the fork on the server; returns its id. It runs again there: nothing that was computed here is sent."""
        bad = next((step.name for step in result.steps if step.verdict in _BAD), None)
        if bad is not None and not self.request.yes:
            self.lines.noted(f"not submitted: {bad} did not come out well here; --yes submits all the same")
            return None
        run_id = str(self.record.run_id)
        fork = asyncio.run(_fork(run_id, self.request, version, *self._given))
        self.lines.say(
            Text.assemble("submitted: ", (fork, "green"), f", a fork of {run_id} from {self.choice.fork_from}")
        )
        self.lines.say(
            Text("next: ", "cyan").append(safe(command("watch", words.short_id(fork), url=self.request.url)))
        )
        return fork

    def _prepare(self, replayer: Replayer, edits: Edits) -> tuple[Code, Plan]:
        code = replayer.code(self.record)
        plan = replayer.plan(self.record, self.choice, edits)
        self.lines.code(code)
        for note in plan.notes:
            self.lines.noted(note)
        if self.request.looking_back is not None:
            self.request.looking_back.check([step.name for step in plan.steps])
        if self.request.show_code:
            self.lines.sources(code, code.changes)
        self.lines.mode(self.choice)
        return code, plan

    def _read(self, replayer: Replayer) -> Path:
        """Read the record; returns the file that holds it: the one that was named, or a copy from the database."""
        if is_file(self.request.run):
            path = Path(self.request.run)
            self.record = open_bundle(path)
            return path.absolute()
        path = replayer.folder / "run.kairos"
        asyncio.run(_export(self.request.run, self.request.url, path))
        self.record = replace(open_bundle(path), source="the database")
        return path

    def _introduce(self) -> None:
        record, say = self.record, self.lines.say
        say(f"run {record.run_id} (workflow: {record.definition.workflow} {record.fingerprint[:8]})")
        state = record.state
        say(f"fetched {words.plural(len(record.rows), 'event')} from {record.source}: {state.status}")
        if record.redactions:
            self.lines.noted("parts of this bundle were blanked or left out; what comes of them may differ for that")

    def _is_agreed(self) -> bool:
        """Whether effects may really happen. Asked before any of the user's code is loaded."""
        graph = self.record.definition.graph
        facts = facts_of(self.record.history, graph.steps)
        plan: Plan = make_plan(graph, graph, facts, self.choice)
        self.lines.say(
            "live mode: these steps run for real, without guards, and do again what they did then", "bold red"
        )
        for step in plan.runs:
            recorded = facts.step(step.name).attempt(step.attempt)
            effects = (
                [f"{e.name} #{e.ordinal}" for e in recorded.effects if e.via in ("call", "http")] if recorded else []
            )
            self.console.print(f"         {safe(step.name)}  {safe(', '.join(effects[:6]))}".rstrip(), soft_wrap=True)
        if self.request.yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError("live mode asks first, and there is nobody to ask", hint="Pass --yes to go on unasked.")
        self.console.print("Go on? [y/N] ", end="")
        answer = sys.stdin.readline().strip().lower() in ("y", "yes")
        if not answer:
            self.lines.say("nothing was run")
        return answer


async def _fork(run_id: str, request: Request, version: str, given: dict[str, Any], outputs: dict[str, Any]) -> str:
    """A fork on the server that runs the version of the code at hand."""
    assert request.fork_from is not None
    async with connected(request.url) as (client, _):
        try:
            planned = await client.plan_fork(
                run_id, from_step=request.fork_from, set=given, output=outputs, version=version, reason=request.reason
            )
        except InvalidArgument as exc:
            if version[:8] in exc.message or "means no version" in exc.message:
                raise _unknown(version) from None
            raise
        if not planned.is_announced and not planned.is_pinned:
            raise _unknown(version)
        return (await client.start_fork(planned)).id


def _unknown(version: str) -> InvalidArgument:
    return InvalidArgument(
        f"the version of the code here, {version[:8]}, was never announced by a worker",
        hint="Deploy it first: a worker that starts with it (`kairos worker`, `kairos dev`) announces it.",
    )


async def _export(name: str, url: str | None, path: Path) -> None:
    """Out of the database into a file, through a session that cannot write."""
    with open_existing(url) as database:
        session = Session(database.dsn, "kairos-replay", patience=PATIENCE, default_transaction_read_only="on")
        try:
            reader = Reader(session)
            await export_bundle(reader, await reader.find(name), path)
        finally:
            await session.close()
