"""Which differences do not count when a value is compared with a recorded one: times, ids, trace ids.

A rule is a path with wild parts, and means everything below it too:

    created_at        the field of that name at the top
    *.updated_at      ... of any field
    items[*].id       ... of every item of `items`
    **.trace_id       ... at any depth, the top included
    raw.**            all that is inside `raw`
    *_at              a field whose name ends so
    headers["x.id"]   a name that is no plain word, in quotes
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from kairos.errors import InvalidArgument

Part = str | int
Rule = tuple[object, ...]
_TOKEN = re.compile(
    r"""\.? (?P<deep> \*\*) (?=\.|\[|$)
    | \[ (?P<index> \*|\d+) \]
    | \[ (?P<quoted> "(?: [^"\\] | \\. )*") \]
    | \.? (?P<name> [^.\[\]"\s]+)""",
    re.VERBOSE,
)


class Ignore:
    """A set of rules. Without rules nothing is left out.

    Raises:
        InvalidArgument: a rule that cannot be read; says where.
    """

    def __init__(self, rules: Iterable[str] = ()) -> None:
        if isinstance(rules, str):
            rules = (rules,)
        self.rules = tuple(rules)
        self._parsed = [_parse(rule) for rule in self.rules]

    def __bool__(self) -> bool:
        return bool(self.rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ignore) and other.rules == self.rules

    def __hash__(self) -> int:
        return hash(self.rules)

    def __or__(self, other: Ignore) -> Ignore:
        """These rules and the other ones."""
        return Ignore(dict.fromkeys((*self.rules, *other.rules)))

    def covers(self, path: Sequence[Part]) -> bool:
        """Whether a place (names of fields, positions in lists) is left out."""
        return any(_matches(rule, tuple(path)) for rule in self._parsed)

    def without(self, value: object) -> object:
        """A copy of a plain JSON value without what is left out; items of lists are replaced by null."""
        return _prune(self._parsed, value) if self.rules else value


_DEEP = object()
_ANY_INDEX = object()


class _Glob(str):
    """A name with wild letters."""


def _parse(rule: str) -> Rule:
    if not isinstance(rule, str) or not rule.strip():
        raise InvalidArgument(f"{rule!r} is not a path to leave out", hint=_HINT)
    parts: list[object] = []
    place = 0
    while place < len(rule):
        match = _TOKEN.match(rule, place)
        if match is None or (place and rule[place] not in ".[") or (not place and rule[0] == "."):
            raise InvalidArgument(f"the path {rule!r} cannot be read from {rule[place:]!r} on", hint=_HINT)
        parts.append(_part(match))
        place = match.end()
    return tuple(parts)


def _part(match: re.Match[str]) -> object:
    if match["deep"]:
        return _DEEP
    if match["index"]:
        return _ANY_INDEX if match["index"] == "*" else int(match["index"])
    if match["quoted"]:
        try:
            return json.loads(match["quoted"])
        except ValueError:
            raise InvalidArgument(f"{match['quoted']} is not a name in quotes", hint=_HINT) from None
    name = match["name"]
    return _Glob(name) if "*" in name or "?" in name else name


_HINT = "Write paths such as created_at, *.updated_at, items[*].id, **.trace_id."


def _meets(part: object, key: Part) -> bool:
    if part is _ANY_INDEX:
        return isinstance(key, int)
    if isinstance(part, _Glob):
        return isinstance(key, str) and fnmatchcase(key, part)
    return part == key and type(part) is type(key)


def _step(rest: Rule, key: Part) -> Iterable[Rule]:
    """What is left of a rule below `key`: none if it does not lead there; empty if it ends there."""
    if rest == (_DEEP,):
        yield ()
    elif rest and rest[0] is _DEEP:
        yield rest
        yield from _step(rest[1:], key)
    elif rest and _meets(rest[0], key):
        yield rest[1:]


def _matches(rule: Rule, path: tuple[Part, ...]) -> bool:
    rests = {rule}
    for key in path:
        rests = {after for rest in rests for after in _step(rest, key)}
        if () in rests:
            return True
    return False


def _prune(rules: list[Rule], value: object) -> object:
    if not rules:
        return value
    if isinstance(value, dict):
        kept = {}
        for key, inner in value.items():
            below = _below(rules, key)
            if below is not None:
                kept[key] = _prune(below, inner)
        return kept
    if isinstance(value, list):
        items = []
        for i, inner in enumerate(value):
            below = _below(rules, i)
            items.append(None if below is None else _prune(below, inner))
        return items
    return value


def _below(rules: list[Rule], key: Part) -> list[Rule] | None:
    """The rules that go on below `key`; None if one ends there."""
    rests = {after for rule in rules for after in _step(rule, key)}
    return None if () in rests else list(rests)
