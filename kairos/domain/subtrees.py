"""Every place of one JSON value, findable by what stands there.

A value is walked once, bottom-up: each scalar, list and object gets a 64-bit number that equal ones share (a hash,
valid within this process), and a measure of how much it says: a card number can be recognised elsewhere, `true`
cannot. Kept in flat arrays, some hundred bytes per place, so that all values of a run fit into memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from math import log2
from typing import Any, Final

Key = str | int

TELLING: Final = 13
"""Bits from which a value is looked for elsewhere: a text of five letters, a number of four digits."""
CERTAIN: Final = 32
"""Bits from which the same value elsewhere is hardly chance."""
BLANKED: Final = "[redacted]"
"""What stands in place of a value that was blanked before it was stored. It says nothing."""
BLANKED_HINT: Final = (
    "Part of it was blanked by the app's Redaction before it was stored. Pass what a step needs as a kairos.Secret, or "
    "leave that field out of Redaction."
)
"""The hint where a value cannot be read because it holds placeholders."""
_MOST: Final = 255
_SAMPLE: Final = 16
_BITS: Final = [0.0, *(log2(n) + 1 for n in range(1, _SAMPLE + 1))]
"""Per character of a text with so many different ones."""


def said_by(scalar: Any) -> int:
    """Roughly how many bits a scalar says, 0 to 255. Repeated characters and the zeros of round numbers say nothing."""
    if type(scalar) is str:
        if not scalar or scalar == BLANKED:
            return 0
        return min(int(len(scalar) * _BITS[len(set(scalar[:_SAMPLE]))]), _MOST)
    if scalar is None or scalar is True or scalar is False:
        return 1
    digits = _number(scalar).lstrip("-").partition("e")[0].replace(".", "").strip("0")
    return min(int(len(digits) * 3.33), _MOST)


class Subtrees:
    """The places of one value, numbered in the order of the document; 0 is the value itself."""

    __slots__ = ("_ends", "_first", "_following", "_keys", "_names", "_parents", "hashes", "said")

    def __init__(self, value: Any) -> None:
        """Walk a value. Raises RecursionError for one that is nested deeper than Python can go."""
        self._parents, self._ends, self._keys = array("i"), array("i"), array("i")
        self.hashes = array("q")
        self.said = bytearray()
        self._names: list[str] = []
        self._walk(value)
        self._first: dict[int, int] = {}
        self._following = array("i", bytes(4 * len(self.hashes)))
        self._chain()

    def __len__(self) -> int:
        return len(self.hashes)

    def _walk(self, whole: Any) -> None:
        # Everything local: this runs for every place of every value of a run.
        hashes, said, ends = self.hashes, self.said, self._ends
        add_parent, add_key, add_end = self._parents.append, self._keys.append, ends.append
        add_hash, add_said = hashes.append, said.append
        names: dict[str, int] = {}

        def walk(value: Any, parent: int, key: int) -> int:
            node = len(hashes)
            add_parent(parent)
            add_key(key)
            kind = type(value)
            if kind is str:
                add_end(node + 1)
                add_hash(hash(("s", value)))
                telling = int(len(value) * _BITS[len(set(value[:_SAMPLE]))]) if value != BLANKED else 0
                add_said(telling if telling < _MOST else _MOST)
                return node
            if kind is not dict and kind is not list:
                add_end(node + 1)
                add_hash(hash(_scalar(value)))
                add_said(said_by(value))
                return node
            add_end(0)
            add_hash(0)
            add_said(0)
            parts: list[Any] = [kind is dict]
            add, sum_ = parts.append, 0
            if kind is dict:
                for name in sorted(value):
                    child = walk(value[name], node, -names.setdefault(name, len(names)) - 1)
                    add(name)
                    add(hashes[child])
                    sum_ += said[child] + 1
            else:
                for index, item in enumerate(value):
                    child = walk(item, node, index)
                    add(hashes[child])
                    sum_ += said[child] + 1
            ends[node] = len(hashes)
            hashes[node] = hash(tuple(parts))
            said[node] = min(sum_, _MOST)
            return node

        walk(whole, -1, 0)
        self._names = list(names)

    def _chain(self) -> None:
        """Link places that are found by the same. One that says little is found only together with its name."""
        first, following, hashes, said = self._first, self._following, self.hashes, self.said
        keys, names = self._keys, self._names
        for node in range(len(hashes) - 1, -1, -1):
            sought = hashes[node]
            if said[node] < TELLING:
                key = keys[node]
                sought = hash((names[-key - 1] if key < 0 else None, sought))
            following[node] = first.get(sought, -1)
            first[sought] = node

    def find(self, wanted: int, name: str | None = None) -> Iterator[int]:
        """The places where a value with this hash stands, in order. One that says little is found by its `name` too."""
        sought = wanted if name is None else hash((name, wanted))
        node = self._first.get(sought, -1)
        while node >= 0:
            if self.hashes[node] == wanted:
                yield node
            node = self._following[node]

    def at(self, path: Sequence[Key]) -> int | None:
        """The place at a path (an index may be written as text); None if there is none."""
        node = 0
        for key in path:
            found = self._child(node, str(key))
            if found is None:
                return None
            node = found
        return node

    def is_blanked(self, node: int) -> bool:
        """Whether something was blanked here before it was stored."""
        return self.hashes[node] == _BLANK

    def path(self, node: int) -> tuple[Key, ...]:
        """The way from the value itself to a place."""
        keys: list[Key] = []
        while node > 0:
            keys.append(self.key(node))
            node = self._parents[node]
        return tuple(reversed(keys))

    def key(self, node: int) -> Key:
        """The name or the index of a place within its parent."""
        key = self._keys[node]
        return self._names[-key - 1] if key < 0 else key

    def parent(self, node: int) -> int | None:
        """What a place is inside of; None for the value itself."""
        return self._parents[node] if node else None

    def _child(self, node: int, key: str) -> int | None:
        child, end, ends = node + 1, self._ends[node], self._ends
        is_list = child < end and self._keys[child] >= 0
        if is_list and not (key.isascii() and key.isdecimal() and len(key) < 10):
            return None
        left = int(key) if is_list else -1
        while child < end:
            if left == 0 or (not is_list and self.key(child) == key):
                return child
            left -= 1
            child = ends[child]
        return None


def _scalar(value: Any) -> tuple[str, Any]:
    if type(value) is str:
        return ("s", value)
    if value is None or value is True or value is False:
        return ("c", str(value))
    # Numbers by their text: in Python hash(-1) == hash(-2), and 1 == True.
    return ("n", _number(value))


def _number(value: int | float) -> str:
    """5 and 5.0 are one number: a step whose type is float writes the one as the other."""
    return repr(int(value) if isinstance(value, float) and value.is_integer() else value)


def most_places(raw: bytes) -> int:
    """No fewer than the places of the value that these bytes stand for; without reading it."""
    return 1 + raw.count(b",") + raw.count(b"{") + raw.count(b"[")


_BLANK: Final = hash(tuple(_scalar(BLANKED)))
