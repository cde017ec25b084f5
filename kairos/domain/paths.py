"""How a place inside a JSON value is written: `items[3].price`, `headers["x.y"]`; the value itself is ``""``."""

from __future__ import annotations

import json
import re

_PLAIN = re.compile(r"[^\W\d][\w-]*")


def join(path: str, key: str | int) -> str:
    """The path of a part of what stands at `path`: the value of a key, or the item of a list (from 0)."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if _PLAIN.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{json.dumps(key, ensure_ascii=False)}]"


def text_of(parts: tuple[str | int, ...]) -> str:
    """The path that consists of these keys and positions."""
    path = ""
    for part in parts:
        path = join(path, part)
    return path
