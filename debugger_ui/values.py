"""Stored values: where they stand in the log, how they are read, and how they become a tree on a page.

A value is addressed by `seq`, the number of the event that holds it, and `part`, the field there; a place inside it
by a JSON pointer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from debugger_ui.histories import Entry, History
from debugger_ui.reads import Reads
from kairos.domain import canonical
from kairos.domain.payload import Payload
from kairos.errors import InvalidArgument

PARTS: Final = ("input", "output", "arguments", "result")
SLICE: Final = 200
"""Children of one node that are shown at a time."""
OPEN_CHILDREN: Final = 60
"""A node with more children starts closed, unless it is the root."""
OPEN_DEPTH: Final = 2
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
        count: of all children; `more`: the offset of the next ones, if some are not shown.
    """

    label: str
    path: str
    kind: str
    text: str = ""
    rest: int = 0
    count: int = 0
    children: list[Node] | None = None
    more: int | None = None

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
        elif isinstance(here, list) and token.isdecimal() and len(token) < 10 and int(token) < len(here):
            here = here[int(token)]
        else:
            raise InvalidArgument(f"there is nothing at {path!r} in this value")
    return here


def split(path: str) -> list[str]:
    """The names in a JSON pointer."""
    if not path:
        return []
    if not path.startswith("/"):
        raise InvalidArgument(f"{path!r} is not a JSON pointer: it begins with /")
    return [token.replace("~1", "/").replace("~0", "~") for token in path[1:].split("/")]


def tree(value: Any, *, path: str = "", label: str = "", offset: int = 0) -> Node:
    """The part of a value at `path`, as nodes: what is deep or long is closed."""
    return _node(value, path, label, 0, offset)


def _node(value: Any, path: str, label: str, depth: int, offset: int = 0) -> Node:
    if isinstance(value, dict | list):
        kind = "object" if isinstance(value, dict) else "array"
        is_open = depth == 0 or (depth <= OPEN_DEPTH and len(value) <= OPEN_CHILDREN // depth)
        children = [_node(v, p, k, depth + 1) for k, p, v in _inside(value, path, offset)] if is_open else None
        more = offset + SLICE if is_open and len(value) > offset + SLICE else None
        return Node(label, path, kind, count=len(value), children=children, more=more)
    text, kind = _scalar(value)
    return Node(label, path, kind, text[:SHORT_TEXT], max(len(text) - SHORT_TEXT, 0))


def _inside(value: dict[str, Any] | list[Any], path: str, offset: int) -> Iterator[tuple[str, str, Any]]:
    if isinstance(value, list):
        for index, item in enumerate(value[offset : offset + SLICE], offset):
            yield str(index), f"{path}/{index}", item
        return
    for name in list(value)[offset : offset + SLICE]:
        yield name, f"{path}/{name.replace('~', '~0').replace('/', '~1')}", value[name]


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
