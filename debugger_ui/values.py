"""Stored values: where they stand in the log, how they are read, and how they become a tree on a page.

A value is addressed by `seq`, the number of the event that holds it, and `part`, the field there; a place inside it
by a JSON pointer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from debugger_ui.histories import Entry, History
from debugger_ui.reads import Reads
from kairos.domain import canonical
from kairos.domain.payload import Payload
from kairos.errors import InvalidArgument

PARTS: Final = ("input", "output", "arguments", "result")
EVENT: Final = "event"
"""The part that means the event itself, as JSON."""
SLICE: Final = 200
"""Children of one node that are shown at a time."""
OPEN_CHILDREN: Final = 60
"""A node with more children starts closed, unless it is the root."""
OPEN_DEPTH: Final = 2
MAX_WAY: Final = 60
"""Levels that are opened on the way to one place."""
TEXT_SLICE: Final = 64_000
SHORT_TEXT: Final = 400
MAX_TREE: Final = 5_000_000
"""Bytes up to which a value is made into a tree; a longer one can be downloaded."""


@dataclass(frozen=True, slots=True)
class Node:
    """One place in a value.

    Attributes:
        label: name or index within its parent; empty for the root.
        kind: `object`, `array`, `string`, `number`, `boolean` or `null`.
        text: of a scalar: how it is written, cut at `SHORT_TEXT`; `rest` characters are missing.
        children: shown ones; None when the node is closed and they are read when it is opened.
        count: of all children; `more`: the offset of the next ones, if some are not shown; `skipped`: of how many
            before the first one shown.
    """

    label: str
    path: str
    kind: str
    text: str = ""
    rest: int = 0
    count: int = 0
    children: list[Node] | None = None
    more: int | None = None
    skipped: int = 0

    @property
    def is_branch(self) -> bool:
        """Whether it has something inside."""
        return self.kind in ("object", "array") and self.count > 0


def payload_at(entry: Entry, part: str) -> Payload:
    """The payload in a field of an event. Raises InvalidArgument if there is none."""
    found = getattr(entry.recorded.event, part, None) if entry.recorded and part in PARTS else None
    if not isinstance(found, Payload):
        raise InvalidArgument(f"event {entry.seq} ({entry.kind}) has no {part}")
    return found


async def read_bytes(reads: Reads, payload: Payload) -> bytes:
    """The bytes of a value, wherever they are stored. Raises HistoryError if they are gone."""
    if payload.data is not None:
        return payload.data
    async with reads.reader() as reader:
        return (await reader.payloads([payload]))[payload.digest]


async def read_value(reads: Reads, payload: Payload) -> Any:
    """The value itself."""
    return canonical.decode(await read_bytes(reads, payload))


def walk(value: Any, path: str) -> Any:
    """What a JSON pointer leads to. Raises InvalidArgument."""
    here = value
    for token in split(path):
        if isinstance(here, dict) and token in here:
            here = here[token]
        elif isinstance(here, list) and _position(here, token) is not None:
            here = here[int(token)]
        else:
            raise InvalidArgument(f"there is nothing at {_cut(path)!r} in this value")
    return here


def _cut(path: str) -> str:
    return path if len(path) <= 200 else path[:200] + "…"


def split(path: str) -> list[str]:
    """The names in a JSON pointer."""
    if not path:
        return []
    if not path.startswith("/"):
        raise InvalidArgument(f"{_cut(path)!r} is not a JSON pointer: it begins with /")
    return [token.replace("~1", "/").replace("~0", "~") for token in path[1:].split("/")]


def pointer(keys: Iterable[str | int]) -> str:
    """The inverse of `split`."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def tree(value: Any, *, path: str = "", label: str = "", offset: int = 0, toward: str = "") -> Node:
    """The part of a value at `path`, as nodes. What is deep or long is closed, but not on the way to `toward`."""
    way = split(toward)[: MAX_WAY + 1] if toward.startswith("/") else []
    return _node(value, path, label, 0, offset, way if not path else [])


def _node(value: Any, path: str, label: str, depth: int, offset: int = 0, way: Sequence[str] = ()) -> Node:
    if isinstance(value, dict | list):
        kind = "object" if isinstance(value, dict) else "array"
        is_open = depth == 0 or (depth <= OPEN_DEPTH and len(value) <= OPEN_CHILDREN // depth)
        step = _position(value, way[0]) if way else None
        if step is not None and depth < MAX_WAY:
            is_open, offset = True, step // SLICE * SLICE
        children = None
        if is_open:
            children = [
                _node(v, p, k, depth + 1, 0, way[1:] if step is not None and k == way[0] else ())
                for k, p, v in _inside(value, path, offset)
            ]
        more = offset + SLICE if is_open and len(value) > offset + SLICE else None
        skipped = offset if step is not None and is_open else 0
        return Node(label, path, kind, count=len(value), children=children, more=more, skipped=skipped)
    text, kind = _scalar(value)
    return Node(label, path, kind, text[:SHORT_TEXT], max(len(text) - SHORT_TEXT, 0))


def _position(value: dict[str, Any] | list[Any], key: str) -> int | None:
    """Which child of a node this is; None if it has none of that name."""
    if isinstance(value, dict):
        return list(value).index(key) if key in value else None
    is_index = key.isascii() and key.isdecimal() and len(key) < 10 and str(int(key)) == key
    return int(key) if is_index and int(key) < len(value) else None


def _inside(value: dict[str, Any] | list[Any], path: str, offset: int) -> Iterator[tuple[str, str, Any]]:
    if isinstance(value, list):
        for index, item in enumerate(value[offset : offset + SLICE], offset):
            yield str(index), f"{path}/{index}", item
        return
    for name in list(value)[offset : offset + SLICE]:
        yield name, path + pointer([name]), value[name]


def _scalar(value: Any) -> tuple[str, str]:
    if isinstance(value, str):
        return value, "string"
    if value is None:
        return "null", "null"
    if isinstance(value, bool):
        return ("true" if value else "false"), "boolean"
    return json.dumps(value), "number"


def summary(value: Any, limit: int = 120) -> str:
    """A value on one line, cut."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    except (ValueError, RecursionError):
        return "…"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def step_output(history: History, step: str) -> Entry | None:
    """The event that holds the output of a step: its own, or the one with which a fork gave it."""
    for seq in reversed(history.by_step.get(step, ())):
        if history.entries[seq - 1].kind in ("step_done", "step_overridden", "steps_inherited"):
            return history.entries[seq - 1]
    return None
