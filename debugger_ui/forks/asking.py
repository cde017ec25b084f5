"""What the form of a fork asks for: read from what was typed, with what is wrong at its place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

from debugger_ui.forks.changes import edits_of
from debugger_ui.forks.fields import MISSING, Field, Key, describe, parse, pretty, retyped, value_of, with_errors
from kairos.domain import canonical
from kairos.domain.editing import read_value, split_edit, written
from kairos.domain.forking import downstream_of
from kairos.domain.graph import Graph
from kairos.errors import InvalidArgument, KairosError, PayloadError

MAX_TARGETS: Final = 12
MAX_REASON: Final = 500
MAX_JSON: Final = 100_000
"""Characters of a value that is edited as a whole."""
NONCE: Final = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class Target:
    """A value that can be changed: the run's input, or the output of a step that does not run.

    Attributes:
        name: `input`, or the step.
        number: tells its controls from those of others.
        old: what it is in the parent; `MISSING` if there is none.
        mode: `fields` or `json`.
        root: the form, if there is one; `text`: as JSON.
        refusal: why it cannot be changed here.
        error: what is wrong with it as a whole.
        is_opened: whether it was just added, or turned from one mode into the other.
    """

    name: str
    number: int
    old: Any = MISSING
    mode: str = "fields"
    root: Field | None = None
    text: str = ""
    refusal: str = ""
    error: str = ""
    edits: int = 0
    is_opened: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it is worth a look."""
        has_error = bool(self.error) or (self.root is not None and any(f.error for f in self.root.walk()))
        return self.is_opened or has_error or self.edits > 0

    @property
    def is_new(self) -> bool:
        """Whether the parent has no such value."""
        return self.old is MISSING


@dataclass(frozen=True, slots=True)
class Ask:
    """All that was typed.

    Attributes:
        sets: changes by path, one per line; `line_errors` what is wrong with them.
        set, output: what it comes to, as `client.plan_fork` takes it; empty while something is wrong.
        problems: what is wrong, by field: `from`, `version`, or `` for the whole.
    """

    from_step: str
    version: str = "latest"
    reason: str = ""
    sets: str = ""
    nonce: str = ""
    targets: tuple[Target, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    line_errors: tuple[str, ...] = ()
    problems: Mapping[str, KairosError] = field(default_factory=dict)

    @property
    def is_fine(self) -> bool:
        """Whether nothing that was typed is wrong."""
        wrong = any(t.error or (t.root and any(f.error for f in t.root.walk())) for t in self.targets)
        return not (self.problems or self.line_errors or wrong)

    @property
    def paths(self) -> list[str]:
        """What is changed line by line."""
        return [found[0] for line in self.sets.split("\n") if (found := split_edit(line.strip())) is not None]

    @property
    def key(self) -> str | None:
        """The idempotency key: the same form sent twice is one fork, a changed one is another."""
        if not self.nonce:
            return None
        asked = [self.from_step, self.version, self.reason, dict(self.set), dict(self.output)]
        return f"debugger:{self.nonce}:{sha256(canonical.encode(asked)).hexdigest()[:12]}"


def read_ask(given: Mapping[str, str], from_step: str) -> Ask:
    """What was typed, without the values; `from_step`: where to go on if nothing is said."""
    nonce = given.get("nonce", "")
    return Ask(
        from_step=given.get("from", "") or from_step,
        version=given.get("version", "").strip()[:64] or "latest",
        reason=" ".join(given.get("reason", "").split())[:MAX_REASON],
        sets=given.get("sets", "").replace("\r\n", "\n"),
        nonce=nonce if NONCE.fullmatch(nonce) else "",
    )


def target_names(given: Mapping[str, str], graph: Graph, from_step: str, done: Sequence[str]) -> list[str]:
    """Which values the form holds: those that it held, or at first the input and what the step reads."""
    runs = downstream_of(graph, from_step) | {from_step} if from_step in graph.steps else set()
    held = [given[f"t{i}"] for i in range(MAX_TARGETS) if given.get(f"t{i}")]
    if not held:
        spec = graph.steps.get(from_step)
        held = ["input", *(name for name in (spec.needs.values() if spec else ()) if name in done)][:5]
    if given.get("do") == "add" and given.get("add"):
        held.append(given["add"])
    dropped = given.get("do", "").partition("drop:")[2]
    kept = [name for name in dict.fromkeys(held) if name == "input" or (name in graph.steps and name not in runs)]
    return [name for name in kept if name != dropped][:MAX_TARGETS]


def read_target(given: Mapping[str, str], target: Target, schema: Any) -> Target:
    """A value with what was typed for it, and the form for it."""
    if target.refusal:
        return target
    number = next((i for i in range(MAX_TARGETS) if given.get(f"t{i}") == target.name), None)
    root = describe(schema, target.old)
    text = "" if target.old is MISSING else pretty(target.old)
    mode = "fields" if root is not None else "json"
    if number is None:
        is_added = given.get("do") == "add" and given.get("add") == target.name
        return _checked(replace(target, mode=mode, root=root, text=text, is_opened=is_added))
    mode = given.get(f"m{number}", mode) if root is not None else "json"
    if mode == "json":
        text = given.get(f"j{number}", text).replace("\r\n", "\n")
    elif root is not None:
        root = retyped(root, _of(given, f"v{number}"), _of(given, f"n{number}"))
    turned = {f"json:{target.name}": "json", f"fields:{target.name}": "fields"}.get(given.get("do", ""))
    found = _checked(replace(target, mode=mode, root=root, text=text, is_opened=turned is not None))
    return found if turned in (None, mode) else _turned(found, turned, schema)


def _turned(target: Target, mode: str, schema: Any) -> Target:
    """The same value in the other mode; stays as it is while something is wrong with it."""
    try:
        value = new_value(target)
    except ValueError:
        return target
    if mode == "json":
        return replace(target, mode=mode, text="" if value is MISSING else pretty(value))
    root = describe(schema, target.old)
    if root is None:
        return target
    fresh = describe(schema, value)
    texts = {} if fresh is None else {f.pointer: f.text for f in fresh.walk() if f.kind not in ("group", "fixed")}
    nulls = {} if fresh is None else {f.pointer: "" for f in fresh.walk() if f.is_null}
    changed = _checked(replace(target, mode=mode, root=retyped(root, texts, nulls)))
    try:
        is_kept = new_value(changed) == value
    except ValueError:
        is_kept = False
    if is_kept:
        return changed
    return replace(target, error="the fields cannot show this value: it is of another shape than its type")


def _of(given: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The controls of one value, by pointer."""
    size = len(prefix)
    return {
        name[size:]: text
        for name, text in given.items()
        if name.startswith(prefix) and name[size : size + 1] in ("", "/")
    }


def _checked(target: Target) -> Target:
    try:
        value = new_value(target)
    except ValueError as exc:
        return replace(target, error=str(exc) if target.mode == "json" else "")
    changed, whole = ({}, {}) if value is MISSING else edits_of(target.name, target.old, value)
    return replace(target, edits=len(changed) + len(whole))


def new_value(target: Target) -> Any:
    """The value as it is in the form; `MISSING` if there is none. Raises ValueError."""
    if target.refusal:
        return target.old
    if target.mode == "fields" and target.root is not None:
        return value_of(target.root)
    if not target.text.strip():
        if target.old is MISSING:
            return MISSING
        raise ValueError("a value is needed here: null is one")
    if len(target.text) > MAX_JSON:
        raise ValueError(f"longer than {MAX_JSON:,} characters: give it with `kairos fork --output STEP=@FILE`")
    return target.old if target.old is not MISSING and target.text == pretty(target.old) else parse(target.text)


def collect(ask: Ask) -> Ask:
    """With what all the values and lines come to."""
    changed: dict[str, Any] = {}
    whole: dict[str, Any] = {}
    for target in ask.targets:
        try:
            value = new_value(target)
        except ValueError:
            continue
        if value is not MISSING:
            edits = edits_of(target.name, target.old, value)
            changed |= edits[0]
            whole |= edits[1]
    errors: list[str] = []
    for line in filter(None, (line.strip() for line in ask.sets.split("\n"))):
        found = split_edit(line)
        if found is None:
            errors.append(f"{line[:80]!r} is not PATH=VALUE, such as input.amount=5")
        elif found[0] in changed:
            errors.append(f"{found[0]!r} is changed twice")
        else:
            changed[found[0]] = read_value(found[1])
    return replace(ask, set=changed, output=whole, line_errors=tuple(errors))


def blame(ask: Ask, error: KairosError) -> Ask:
    """With an error of the client at the field that it is about."""
    facts = error.facts
    path = str(facts.get("path", ""))
    if isinstance(error, PayloadError) and "target" in facts:
        name = facts["target"]
        if _is_typed(ask, name, facts.get("problems", ())):
            return replace(ask, line_errors=(*ask.line_errors, _told(error)))
        targets = tuple(_blamed(t, error) if t.name == name and not t.refusal else t for t in ask.targets)
        if targets != ask.targets:
            return replace(ask, targets=targets)
        if any(re.match(rf"{re.escape(name)}($|[.\[])", typed) for typed in ask.paths):
            return replace(ask, line_errors=(*ask.line_errors, _told(error)))
    elif path and path in ask.paths:
        return replace(ask, line_errors=(*ask.line_errors, _told(error)))
    where = "from" if "from_step" in facts else "version" if "version" in facts else ""
    return replace(ask, problems={**ask.problems, where: error})


def _is_typed(ask: Ask, name: str, problems: Sequence[tuple[list[Key], str]]) -> bool:
    """Whether one of these places of a value was changed by path."""
    places = {written(name, keys[:i]) for keys, _ in problems for i in range(len(keys) + 1)}
    return not places.isdisjoint(ask.paths)


def _blamed(target: Target, error: KairosError) -> Target:
    problems: Sequence[tuple[list[Key], str]] = error.facts.get("problems", ())
    if target.mode == "fields" and target.root is not None and problems:
        root = with_errors(target.root, {tuple(keys): text for keys, text in problems})
        return replace(target, root=root, error="" if any(f.error for f in root.walk()) else _told(error))
    return replace(target, error=_told(error))


def _told(error: KairosError) -> str:
    return f"{error.message}. {error.hint}" if error.hint and isinstance(error, InvalidArgument) else error.message
