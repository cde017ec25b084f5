"""What was changed between two values, as edits of a fork: the deepest places that are there in the old one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kairos.domain.editing import INPUT, Key, written

MAX_EDITS: Final = 20
"""A value that was changed at more places is given as a whole."""


def edits_of(target: str, old: Any, new: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """How `old` becomes `new`, as `set` and `output` of a fork.

    Args:
        target: `input`, or the step whose output it is.
    """
    places = list(_places(old, new, ()))
    if not places:
        return {}, {}
    if len(places) > MAX_EDITS or not places[0][0]:
        return ({INPUT: new}, {}) if target == INPUT else ({}, {target: new})
    return {written(target, keys): value for keys, value in places}, {}


def _places(old: Any, new: Any, keys: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], Any]]:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for key in old:
            yield from _places(old[key], new[key], (*keys, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _places(before, after, (*keys, i))
    elif type(old) is not type(new) or old != new:
        yield keys, new
