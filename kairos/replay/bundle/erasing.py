"""Blanks what must not leave with a bundle: by field name, by pattern, or all values.

What stood in a named field is looked for everywhere else too: a card number also stands in the text of an error, in
the `repr` of a local variable, and in the output of the next step under another name. So there are two passes:
`learn` from every value, then `event` and `blob`.

Only what users decide is touched (inputs, outputs, effects, errors, logs, labels, keys, reasons, edits); the rest of
an event says when what happened, and must be read back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from kairos.authoring.redaction import MIN_VALUE, PLACEHOLDER, Redaction, Redactor
from kairos.domain import canonical
from kairos.domain.paths import join

MAX_PATHS: Final = 100
"""Paths that are listed for one event or value; beyond that they are counted."""

_DEPTH: Final = 24
_NAMED: Final = re.compile(
    r"""(?P<before>(?<![A-Za-z0-9_])(?P<name>[A-Za-z_][A-Za-z0-9_]{0,99})["']?\s{0,3}[=:]\s{0,3})"""
    r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,;'"()\[\]{}]+)"""
)
"""A name with a plain value, in the repr of an object, in JSON that is a text, or in a message."""
_Walk = Callable[[Any, str], Any]

TEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    "run_scheduled": ("input", "key", "labels"),
    "run_failed": ("reason",),
    "run_expired": ("reason",),
    "run_cancelled": ("reason",),
    "run_cancel_requested": ("author", "reason"),
    "step_done": ("output",),
    "step_overridden": ("output",),
    "step_failed": ("error",),
    "step_dead": ("reason",),
    "step_expired": ("reason",),
    "step_cancelled": ("reason",),
    "metric_emitted": ("labels",),
    "log_emitted": ("message", "fields"),
    "effect_recorded": ("arguments", "result", "error"),
    "run_forked": ("author", "reason", "edits"),
}
"""Kind -> the parts of its body that users decide."""
_VALUES: Final = ("input", "output", "arguments", "result")
_OF_ERRORS: Final = ("message", "locals", "notes", "hint")


class Eraser:
    """The rules of one export.

    Args:
        rules: names of fields (`*` and `?` are wild) and patterns.
        payloads: False blanks every value, whatever the rules.
    """

    def __init__(self, rules: Redaction | None = None, *, payloads: bool = True) -> None:
        self.rules, self.payloads = rules or Redaction(), payloads
        self._redactor = Redactor(self.rules)
        self._values: set[str] = set()
        self._search: re.Pattern[str] | None = None
        self._named: dict[str, bool] = {}

    @property
    def pattern_count(self) -> int:
        """How many patterns there are."""
        patterns: Any = self.rules.patterns  # made a tuple by the rules themselves
        return len(patterns)

    @property
    def must_learn(self) -> bool:
        """Whether values have to be shown to `learn` before the first is blanked."""
        return self.payloads and bool(self.rules.fields)

    @property
    def is_active(self) -> bool:
        """Whether anything is to be blanked at all."""
        return not self.payloads or bool(self.rules.fields or self.rules.patterns)

    def learn_event(self, kind: str, body: bytes) -> None:
        """Remember what stands in the named fields of an event."""
        data = canonical.decode(body)
        for part in TEXTS.get(kind, ()):
            if part in data:
                self._learn(data[part])

    def learn(self, raw: bytes) -> None:
        """Remember what stands in the named fields of a value."""
        self._learn(canonical.decode(raw))

    def event(self, kind: str, body: bytes) -> tuple[bytes, list[str]]:
        """The body with what must not leave blanked, and the paths of that."""
        data: dict[str, Any] = canonical.decode(body)
        walk, paths = self._walk() if self.payloads else _wiping()
        for part in TEXTS.get(kind, ()):
            if part in data:
                data[part] = _error(data[part], walk, part) if part == "error" else walk(data[part], part)
        return (canonical.encode_trusted(data) if paths else body), paths

    def blob(self, raw: bytes) -> tuple[bytes, list[str]]:
        """The same for a value."""
        walk, paths = self._walk()
        value = walk(canonical.decode(raw), "")
        return (canonical.encode_trusted(value) if paths else raw), paths

    def _learn(self, value: Any) -> None:
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, list):
                stack += item
            elif isinstance(item, dict):
                for name, inner in item.items():
                    if self._names(name):
                        self._remember(inner)
                    else:
                        stack.append(inner)

    def _remember(self, value: Any) -> None:
        for item in _scalars(value):
            text = item if isinstance(item, str) else json.dumps(item)
            if len(text) >= MIN_VALUE and not isinstance(item, bool) and text != PLACEHOLDER:
                # Inside the repr of a local variable, or inside JSON that is a text, it is written with escapes.
                self._values.update((text, repr(text)[1:-1], json.dumps(text)[1:-1]))
                self._search = None

    def _blank_named(self, found: re.Match[str]) -> str:
        """Of a text such as `Card(cvc=123)`: however short a value is, its name stands beside it."""
        return found["before"] + PLACEHOLDER if self._names(found["name"]) else found[0]

    def _names(self, name: str) -> bool:
        known = self._named.get(name)
        if known is None:
            # The edits of a fork are named by path: `reserve.card`.
            known = self._redactor.names(name) or self._redactor.names(name.rpartition(".")[2])
            self._named[name] = known
        return known

    def _walk(self) -> tuple[_Walk, list[str]]:
        """A function that blanks the parts of a value, and the list that it adds the paths to."""
        paths: list[str] = []
        if self._values and self._search is None:
            self._search = any_of(self._values)
        search = self._search

        def text(item: str) -> str:
            if self.rules.fields and ("=" in item or ":" in item):
                item = _NAMED.sub(self._blank_named, item)
            return self._redactor.blank(item if search is None else search.sub(PLACEHOLDER, item))

        def walk(item: Any, path: str) -> Any:
            if isinstance(item, dict):
                return dict(pair(key, inner, path) for key, inner in item.items())
            if isinstance(item, list):
                return [walk(inner, join(path, i)) for i, inner in enumerate(item)]
            if isinstance(item, str):
                cleared = text(item)
            elif type(item) in (int, float):
                written = json.dumps(item)
                cleared = PLACEHOLDER if written in self._values else item
            else:
                return item
            if cleared != item:
                paths.append(path)
            return cleared

        def pair(key: str, inner: Any, path: str) -> tuple[str, Any]:
            name = text(key)
            place = join(path, name)
            if name != key:
                paths.append(place)
            if inner is not None and self._names(key) and inner != PLACEHOLDER and not _is_reference(inner):
                paths.append(place)
                return name, PLACEHOLDER
            return name, walk(inner, place)

        return walk, paths


def any_of(values: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds any of thousands of texts, the longest where several begin.

    As a tree of their first letters: an alternation of all would be tried from end to end at every letter.
    """
    root: dict[str, Any] = {}
    for value in values:
        node = root
        for letter in value[:_DEPTH]:
            node = node.setdefault(letter, {})
        node.setdefault("", []).append(value[_DEPTH:])

    def pattern(node: dict[str, Any]) -> str:
        rests = node.get("", [])
        parts = [re.escape(letter) + pattern(below) for letter, below in node.items() if letter]
        parts += [re.escape(rest) for rest in sorted(rests, key=len, reverse=True) if rest]
        found = parts[0] if len(parts) == 1 and "" not in rests else f"(?:{'|'.join(parts)})"
        return found + "?" if "" in rests and parts else found if parts else ""

    return re.compile(pattern(root))


def marks(value: Any, path: str = "") -> Iterable[str]:
    """The paths at which something was blanked, as far as that can be seen."""
    if isinstance(value, dict):
        for key, inner in value.items():
            place = join(path, key)
            if PLACEHOLDER in key:
                yield place
            yield from marks(inner, place)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from marks(inner, join(path, i))
    elif isinstance(value, str) and PLACEHOLDER in value:
        yield path


def _error(error: dict[str, Any], walk: _Walk, path: str) -> dict[str, Any]:
    """Of an error the texts; its type and its frames say where, and stay readable."""
    cleared: dict[str, Any] = {name: walk(error[name], join(path, name)) for name in _OF_ERRORS if name in error}
    frames = [
        [*frame[:3], walk(frame[3], f"{path}.frames[{i}][3]")] if len(frame) > 3 else frame
        for i, frame in enumerate(error.get("frames", ()))
    ]
    return error | cleared | ({"frames": frames} if frames else {})


def _wipe(value: Any, path: str, paths: list[str]) -> Any:
    """Nothing of it stays; what must be an object or a list stays one."""
    if value is None or value == PLACEHOLDER:
        return value
    if path not in _VALUES and isinstance(value, dict):
        return {key: _wipe(inner, join(path, key), paths) for key, inner in value.items()}
    if path not in _VALUES and isinstance(value, list):
        return [_wipe(inner, join(path, i), paths) for i, inner in enumerate(value)]
    paths.append(path)
    return PLACEHOLDER


def _wiping() -> tuple[_Walk, list[str]]:
    paths: list[str] = []
    # Lines of source may stay in frames: the definition has them all.
    return lambda value, path: value if ".frames[" in path else _wipe(value, path, paths), paths


def _is_reference(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"$secret"}


def _scalars(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _scalars(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _scalars(inner)
    elif value is not None:
        yield value
