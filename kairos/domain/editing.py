"""Changes to recorded values, by path: `input.amount`, `reserve.items[2].price`, `reserve["a key"]`."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kairos.domain import canonical
from kairos.domain.names import nearest
from kairos.errors import InvalidArgument

INPUT = "input"
"""What the input of a run is called in a path."""

Key = str | int
_PART = re.compile(r'\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+)\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]')
_HOW = 'Write it as input.amount, reserve.items[2].price or reserve["a key"]: a step (or input), then what is inside.'


@dataclass(frozen=True, slots=True)
class Edit:
    """One change.

    Attributes:
        path: as it was written.
        step: whose output; None for the input of the run.
        keys: the way into the value; empty if the whole of it is replaced.
    """

    path: str
    step: str | None
    keys: tuple[Key, ...]
    value: Any

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the old value is left."""
        return not self.keys


def read_edits(given: Mapping[str, Any], outputs: Mapping[str, Any], steps: Collection[str]) -> list[Edit]:
    """Read changes by path, and whole outputs by step. Its errors have the `path` that they are about.

    Raises:
        InvalidArgument: a path cannot be read, names no step, or is given twice.
        PayloadError: a value is not JSON.
    """
    edits = [_read(path, value, steps) for path, value in given.items()]
    for step, value in outputs.items():
        if step not in steps:
            raise InvalidArgument(
                f"there is no step {step!r} to give an output to", hint=nearest(step, steps), path=step
            )
        edits.append(Edit(step, step, (), value))
    seen: set[tuple[str | None, tuple[Key, ...]]] = set()
    for edit in edits:
        canonical.encode(edit.value)
        twins = [other for other in seen if other[0] == edit.step and (not other[1] or not edit.keys)]
        if (edit.step, edit.keys) in seen or twins:
            what = f"{edit.step or INPUT} is changed twice: as a whole or at {edit.path!r}"
            raise InvalidArgument(what, path=edit.path)
        seen.add((edit.step, edit.keys))
    return edits


def _read(path: str, value: Any, steps: Collection[str]) -> Edit:
    target, rest = _target(path, steps)
    keys = read_keys(rest, path)
    return Edit(path, None if target == INPUT else target, keys, value)


def read_keys(rest: str, path: str | None = None) -> tuple[Key, ...]:
    """The way into a value, written `.items[2].price`; `path` is what the message shows instead.

    Raises:
        InvalidArgument: it cannot be read.
    """
    keys: list[Key] = []
    at = 0
    while at < len(rest):
        part = _PART.match(rest, at)
        if part is None:
            raise InvalidArgument(
                f"the path {path or rest!r} cannot be read from {rest[at:]!r} on", hint=_HOW, path=path
            )
        quoted = part["quoted"]
        index = part["index"]
        keys.append(int(index) if index else canonical.decode(quoted.encode()) if quoted else part["name"])
        at = part.end()
    return tuple(keys)


def _target(path: str, steps: Collection[str]) -> tuple[str, str]:
    """What a path begins with, and the rest. Names of steps may hold dots: the longest that fits is meant."""
    for name in sorted({INPUT, *steps}, key=len, reverse=True):
        if path.startswith(name) and path[len(name) : len(name) + 1] in ("", ".", "["):
            return name, path[len(name) :]
    first = re.split(r"[.\[]", path, maxsplit=1)[0]
    raise InvalidArgument(
        f"{path!r} names neither a step nor the input", hint=f"{nearest(first, [INPUT, *steps])} {_HOW}", path=path
    )


def split_edit(text: str) -> tuple[str, str] | None:
    """`PATH=VALUE` as its two parts; None if it is not of that form."""
    # A key in brackets may hold `=`; a name or an index may not.
    inside = quoted = False
    for i, letter in enumerate(text):
        if letter == '"' and inside and text[i - 1] != "\\":
            quoted = not quoted
        elif letter in "[]" and not quoted:
            inside = letter == "["
        elif letter == "=" and not quoted and i:
            return text[:i], text[i + 1 :]
    return None


def read_value(text: str) -> Any:
    """JSON if it can be read as such, else text."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON does not have {name}")


def apply_edits(value: Any, edits: Iterable[Edit]) -> Any:
    """`value` (plain JSON; lists and dicts in it are changed in place) with the changes made.

    Raises:
        InvalidArgument: a path leads nowhere; says how far it leads, and what is there.
    """
    for edit in edits:
        if edit.is_whole:
            value = edit.value
        else:
            *way, last = edit.keys
            inside = value
            for i, key in enumerate(way):
                inside = inside[_existing(inside, key, edit, i)]
            inside[_existing(inside, last, edit, len(way))] = edit.value
    return value


def value_at(value: Any, edit: Edit) -> Any:
    """What stands where an edit leads; None if nothing does."""
    for key in edit.keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _existing(inside: Any, key: Key, edit: Edit, depth: int) -> Any:
    where = written(edit.step or INPUT, edit.keys[:depth])
    if isinstance(inside, dict):
        if key in inside:
            return key
        known = [name for name in inside if isinstance(name, str)]
        hint = f"{nearest(str(key), known)} {_whole(edit)}" if known else _whole(edit)
        raise InvalidArgument(f"{edit.path!r} leads nowhere: {where} has no {key!r}", hint=hint, path=edit.path)
    if isinstance(inside, list):
        if isinstance(key, int) and key < len(inside):
            return key
        length = f"{where} is a list of {len(inside)}"
        hint = f"Its items are {where}[0] to {where}[{len(inside) - 1}]." if inside else _whole(edit)
        raise InvalidArgument(f"{edit.path!r} leads nowhere: {length}", hint=hint, path=edit.path)
    kind = {str: "text", bool: "true or false", type(None): "null"}.get(type(inside), "a number")
    raise InvalidArgument(f"{edit.path!r} leads nowhere: {where} is {kind}", hint=_whole(edit), path=edit.path)


def _whole(edit: Edit) -> str:
    return f"A new whole is given as {edit.step or INPUT}=JSON."


def written(target: str, keys: Iterable[Key]) -> str:
    """A path as a user would write it."""
    text = target
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        elif re.fullmatch(r"[^.\[\]\"\s=]+", key):
            text += f".{key}"
        else:
            text += f"[{canonical.encode(key).decode()}]"
    return text
