"""A fork before it is started, as the page shows it: the form, and what would become of each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from debugger_ui import values, words
from debugger_ui.forks.asking import Ask, Target, blame, collect, read_ask, read_target, target_names
from debugger_ui.forks.commands import fork_line
from debugger_ui.forks.fields import MISSING
from debugger_ui.graph import Node, Picture, picture
from debugger_ui.histories import History
from debugger_ui.moments import failure_seq
from debugger_ui.ui import Ui
from kairos.client.facts import read_workers
from kairos.client.forking import PlannedFork
from kairos.domain.fingerprint import Definition
from kairos.domain.payload import Payload
from kairos.errors import DatabaseUnavailable, HistoryError, KairosError, MigrationError, RunNotFound

MAX_VALUE: Final = 60_000
"""Bytes up to which a value is put into a form."""
WORDS: Final = {"from": "fork point", "runs": "will run", "given": "given", "reused": "reused"}
GLYPHS: Final = {"from": "fork", "runs": "play", "given": "pencil", "reused": "link"}
GUARDED: Final = (
    "The app of this workflow redacts what is stored, or its input holds a secret. So values are changed with the app "
    "at hand: `kairos fork --app MODULE:APP`."
)


@dataclass(frozen=True, slots=True)
class Becoming:
    """What a step becomes in the fork: `from`, `runs`, `given` or `reused`, and why.

    Attributes:
        is_stale: reused, although what it had read is other now.
    """

    step: str
    what: str
    why: str
    is_stale: bool = False

    @property
    def word(self) -> str:
        """For people."""
        return WORDS[self.what]


@dataclass(frozen=True, slots=True)
class View:
    """All that the page shows. `planned` is None while something is wrong with step or version.

    Attributes:
        steps: what can be forked from; `others`: steps whose output could be given beside those in the form.
        notes: what whoever starts it should know.
        line: the same fork in a terminal.
    """

    ask: Ask
    planned: PlannedFork | None
    definition: Definition
    steps: tuple[str, ...]
    others: tuple[str, ...]
    becomes: Mapping[str, Becoming]
    picture: Picture | None
    notes: tuple[str, ...]
    line: str

    @property
    def counts(self) -> list[tuple[str, int]]:
        """How many steps are reused, given, run."""
        found = Counter("runs" if b.what == "from" else b.what for b in self.becomes.values())
        return [(what, found[what]) for what in ("reused", "given", "runs")]

    def tally(self, node: Node) -> list[tuple[str, int]]:
        """The same of a group."""
        return list(Counter(self.becomes[s].what for s in node.steps if s in self.becomes).items())


def usual_step(history: History) -> str:
    """Where one would go on: at the step that failed, else at the first."""
    failure = failure_seq(history)
    step = history.entries[failure - 1].step if failure else None
    return step or next(iter(history.definition.graph.steps))


async def view_fork(ui: Ui, history: History, given: Mapping[str, str]) -> View:
    """Plan what was typed; writes nothing. What is wrong stands at its field.

    Raises:
        RunNotFound, DatabaseUnavailable, MigrationError
    """
    ask = read_ask(given, usual_step(history))
    ask, base = await plan(ui, history.run_id, ask)
    definition = history.definition if base is None else base.definition
    done = tuple(base.parent.outputs) if base is not None else ()
    names = target_names(given, definition.graph, ask.from_step, done)
    if base is not None:
        targets = [await _target(ui, base, name, number, given) for number, name in enumerate(names)]
        ask = collect(replace(ask, targets=tuple(targets)))
    planned = base
    if base is not None and ask.is_fine and (ask.set or ask.output):
        ask, planned = await plan(ui, history.run_id, ask)
    shown = planned or base
    becomes = {} if shown is None else becoming(shown)
    return View(
        ask,
        planned if ask.is_fine else None,
        definition,
        tuple(definition.graph.steps),
        tuple(
            n
            for n, b in becomes.items()
            if n not in names and (b.what in ("reused", "given") or b.why.startswith("not"))
        ),
        becomes,
        picture(definition.graph, given.get("open", "").split(","), is_tall=True) if becomes else None,
        await _notes(ui, shown),
        fork_line(
            history.run_id, ask.from_step, set=ask.set, output=ask.output, version=ask.version, reason=ask.reason
        ),
    )


async def plan(ui: Ui, run_id: UUID, ask: Ask) -> tuple[Ask, PlannedFork | None]:
    """The plan for what is asked, or the ask with what is wrong with it."""
    client = await ui.client()
    try:
        planned = await client.plan_fork(
            run_id,
            from_step=ask.from_step,
            set=ask.set,
            output=ask.output,
            version=ask.version,
            reason=ask.reason,
            key=ask.key,
        )
    except (RunNotFound, DatabaseUnavailable, MigrationError):
        raise
    except KairosError as exc:
        return blame(ask, exc), None
    return ask, planned


async def _target(ui: Ui, base: PlannedFork, name: str, number: int, given: Mapping[str, str]) -> Target:
    if base.definition.defaults.get("guarded"):
        return Target(name, number, refusal=GUARDED)
    payload: Payload | None = base.parent.scheduled.input
    if name != "input":
        origin = base.parent.outputs.get(name)
        payload = None if origin is None else origin.payload
    old: Any = MISSING
    if payload is not None:
        if payload.size > MAX_VALUE:
            what = f"{words.size(payload.size)}: too long for a form. Change places in it by path, below."
            return Target(name, number, refusal=what)
        try:
            old = await values.read_value(ui.reads, payload)
        except HistoryError as exc:
            return Target(name, number, refusal=f"This value cannot be read: {exc.message}")
    schema = base.definition.schemas.get("" if name == "input" else name, {})
    return read_target(given, Target(name, number, old), schema)


def becoming(planned: PlannedFork) -> dict[str, Becoming]:
    """Step -> what becomes of it, in order of definition."""
    found, short = planned.plan, words.short_id
    steps: dict[str, Becoming] = {}
    for name in planned.definition.graph.steps:
        if name in found.runs:
            what = "from" if name == found.from_step else "runs"
            steps[name] = Becoming(name, what, found.runs[name])
        elif name in found.reused:
            origin = found.reused[name]
            where = f"{words.size(origin.size)}, event {origin.seq} of {short(origin.run)}"
            steps[name] = Becoming(name, "reused", where, name in found.stale)
        else:
            steps[name] = Becoming(name, "given", words.size(planned.payloads[name].size))
    return steps


async def _notes(ui: Ui, planned: PlannedFork | None) -> tuple[str, ...]:
    if planned is None:
        return ()
    notes = [note[0].upper() + note[1:] for note in planned.plan.notes]
    async with ui.reads.reader() as reader:
        workers = await read_workers(reader)
    if not any(w.is_live and planned.fingerprint in w.fingerprints for w in workers):
        notes.append(f"No live worker has version {planned.fingerprint[:8]}; the fork waits until one does.")
    return tuple(notes)
