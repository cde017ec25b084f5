"""`kairos pytest`: a run as a regression test: a file for pytest, and the bundle beside it."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.apps import require_app
from kairos.cli.database import reading
from kairos.cli.exporting import read_rules
from kairos.cli.sources import is_file
from kairos.cli.terminal import note, out, print_json, safe
from kairos.cli.usage import UsageError
from kairos.replay.bundle import export_bundle, open_bundle
from kairos.replay.compare import Ignore
from kairos.replay.facts import Ending, facts_of
from kairos.replay.record import RunRecord

_FILE: Final = Template('''\
"""Pins run $run of workflow $workflow: each step must do what it did.

Recorded on $day. Written by `kairos pytest`; yours to change. Each step's function runs on its recorded input, effects
are answered from the record, and nothing leaves the process. If an output is meant to change, name the place in
`IGNORE`, or write this file anew from a newer run.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kairos_replay import KairosReplay

RUN = Path(__file__).with_name("$bundle")
APP = $app
IGNORE: list[str] = $ignore


@pytest.mark.parametrize("step", $steps)
def test_a_step_does_what_it_did(kairos_replay: KairosReplay, step: str) -> None:
    kairos_replay(RUN, app=APP, ignore=IGNORE).check(step)
''')


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was typed."""

    run: str
    output: str | None = None
    ignore: tuple[str, ...] = ()
    redact: tuple[str, ...] = ()
    force: bool = False
    app: str | None = None
    url: str | None = None
    as_json: bool = False


def pin_run(request: Request) -> int:
    """Write both files, and say what they hold."""
    Ignore(request.ignore)  # complains of what cannot be read
    app = _portable(require_app(request.app).spec)
    folder = _folder(request.output)
    draft = folder / ".kairos-pytest.kairos.new"
    try:
        _bundle(request, draft)
        record = open_bundle(draft)
        steps = _pinned(record)
        if not steps:
            raise UsageError(
                f"run {words.short_id(record.run_id)} has no step whose outcome could be pinned",
                hint="No step of it has ended here, or all were inherited or transactional.",
            )
        workflow = record.definition.workflow
        stem = f"test_replay_{re.sub(r'[^A-Za-z0-9_]+', '_', workflow)}_{words.short_id(record.run_id)}"
        test, bundle = folder / f"{stem}.py", folder / f"{stem}.kairos"
        for path in (test, bundle):
            if path.exists() and not request.force:
                raise UsageError(f"{path} is there already", hint="--force replaces it.")
        draft.replace(bundle)
    finally:
        draft.unlink(missing_ok=True)
    test.write_text(_text(record, bundle.name, app, request.ignore, steps), "utf-8")
    _tell(request, record, test, bundle, steps)
    return exits.OK


def _bundle(request: Request, path: Path) -> None:
    if is_file(request.run):
        if request.redact:
            raise UsageError("--redact works on a run of the database", hint="Export it anew with --redact.")
        open_bundle(Path(request.run))  # proves it
        shutil.copyfile(request.run, path)
        return
    rules = read_rules(list(request.redact))

    async def work() -> None:
        async with reading(request.url) as reader:
            await export_bundle(reader, await reader.find(request.run), path, redact=rules, force=True)

    asyncio.run(work())


def _pinned(record: RunRecord) -> list[str]:
    """The steps that ended in this run, and that a replay runs."""
    graph = record.definition.graph
    facts = facts_of(record.history, graph.steps)
    return [
        name
        for name, step in facts.steps.items()
        if not step.given
        and not graph.steps[name].transactional
        and (last := step.attempt()) is not None
        and last.ending in (Ending.DONE, Ending.FAILED)
    ]


def _text(record: RunRecord, bundle: str, app: str, ignore: tuple[str, ...], steps: list[str]) -> str:
    return _FILE.substitute(
        run=record.run_id,
        workflow=_comment(record.definition.workflow),
        day=f"{record.history[0].at:%Y-%m-%d}",
        bundle=bundle,
        app=_quoted(app),
        ignore=f"[{', '.join(map(_quoted, ignore))}]",
        steps=f"[{', '.join(map(_quoted, steps))}]",
    )


def _quoted(text: str) -> str:
    """A literal of Python in double quotes."""
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"'


def _comment(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii").replace('"', "'")


def _portable(spec: str) -> str:
    """A file is named as it is seen from here, so that the test works in another checkout."""
    where, colon, attribute = spec.rpartition(":") if ".py:" in spec else (spec, "", "")
    path = Path(where)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return f"{path.relative_to(Path.cwd()).as_posix()}{colon}{attribute}"
    return spec


def _folder(output: str | None) -> Path:
    folder = Path(output) if output is not None else Path("tests") if Path("tests").is_dir() else Path()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {output} is not a folder", hint="Both files are named after the run.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _tell(request: Request, record: RunRecord, test: Path, bundle: Path, steps: list[str]) -> None:
    if request.as_json:
        names = {"test": str(test), "bundle": str(bundle), "run": str(record.run_id), "steps": steps}
        print_json({**names, "workflow": record.definition.workflow})
        return
    mark = "✓ " if words.has_shapes() else ""
    console = out()
    console.print(Text(f"{mark}wrote ", "green").append(safe(test), "bold"), soft_wrap=True)
    console.print(f"      {safe(bundle)}  {words.size(bundle.stat().st_size)}", soft_wrap=True)
    console.print(
        f"pins {words.plural(len(steps), 'step')}: {safe(', '.join(steps[:10]))}", style="dim", soft_wrap=True
    )
    console.print(Text("next: ", "cyan").append(safe(shlex.join(["pytest", str(test)]))), soft_wrap=True)
    if not request.redact and not record.redactions:
        note("the bundle holds the run's data as recorded; --redact FIELD blanks what should not be in a repository")
