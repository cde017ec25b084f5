"""Puts a configuration for `--debugger debugpy` into .vscode/launch.json, and keeps every other character of it.

The file is JSON with comments, which no library at hand can write back; so it is read with the comments blanked out,
and changed as text. What cannot be changed safely is refused, with the text to paste.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from kairos.errors import BreakpointError

NAME: Final = "Kairos: attach to replay"
_STRING = r'"(?:\\.|[^"\\\n])*"'
_COMMENT = re.compile(rf"{_STRING}|//[^\n\r]*|/\*.*?\*/", re.DOTALL)
_LAST_COMMA = re.compile(rf"{_STRING}|,(?=\s*[}}\]])")
_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


def configuration(listen: tuple[str, int]) -> dict[str, Any]:
    """What VS Code needs to attach to a replay that waits there."""
    return {
        "name": NAME,
        "type": "debugpy",
        "request": "attach",
        "connect": {"host": listen[0], "port": listen[1]},
        "justMyCode": True,
        "subProcess": False,
    }


def write_launch(folder: Path, listen: tuple[str, int]) -> str:
    """Make `folder`/.vscode/launch.json hold the configuration. Returns what was done, in a sentence.

    Raises:
        BreakpointError: the port is not fixed, or the file cannot be changed safely; the hint is what to paste.
    """
    if listen[1] == 0:
        raise BreakpointError("--write-vscode needs a fixed port", hint="For example --listen 127.0.0.1:5678.")
    path = (folder / ".vscode" / "launch.json").resolve()
    entry = configuration(listen)
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, json.dumps({"version": "0.2.0", "configurations": [entry]}, indent=4) + "\n")
            return f"{path} written: start {NAME!r} in VS Code"
        before = path.read_bytes().decode("utf-8")
        after = _changed(before, entry)
        if after == before:
            return f"{path} has {NAME!r} already"
        _check(before, after, entry)
        _write(path, after)
    except (ValueError, RecursionError, OSError) as exc:
        text = json.dumps(entry, indent=4)
        raise BreakpointError(
            f"{path} was left alone: {exc}", hint=f"Paste this into its list of configurations:\n{text}"
        ) from None
    return f"{path} changed: start {NAME!r} in VS Code"


def read_launch(text: str) -> Any:
    """The value of a launch.json. Raises ValueError if it is none."""
    return json.loads(_plain(text))


def _changed(text: str, entry: dict[str, Any]) -> str:
    plain = _plain(text)
    begin, _ = _member(plain, _SPACE.match(plain, 0).end(), "configurations")  # type: ignore[union-attr]
    elements = list(_elements(plain, begin))
    for start, end in elements:
        value = json.loads(plain[start:end])
        if isinstance(value, dict) and value.get("name") == NAME:
            return _with_address(text, plain, start, entry["connect"])
    newline = "\r\n" if "\r\n" in text else "\n"
    indent = _indent(text, elements[0][0]) if elements else "        "
    lines = json.dumps(entry, indent=4).split("\n")
    new = newline.join(f"{indent}{line}" for line in lines)
    closing = "," if elements else newline + indent[: len(indent) // 2]
    return text[: begin + 1] + newline + new + closing + text[begin + 1 :]


def _with_address(text: str, plain: str, start: int, connect: dict[str, Any]) -> str:
    where, _ = _member(plain, start, "connect")
    for key in ("port", "host"):  # the later one first, wherever they stand
        begin, end = _member(plain, where, key)
        if json.loads(plain[begin:end]) != connect[key]:
            change = json.dumps(connect[key])
            text, plain = text[:begin] + change + text[end:], plain[:begin] + change + plain[end:]
    return text


def _check(before: str, after: str, entry: dict[str, Any]) -> None:
    """What was there is there, and the new configuration too."""
    old, new = read_launch(before), read_launch(after)
    others = [item for item in old["configurations"] if not _is_ours(item)]
    kept = [item for item in new["configurations"] if not _is_ours(item)]
    ours = [item for item in new["configurations"] if _is_ours(item)]
    same_rest = {**old, "configurations": 0} == {**new, "configurations": 0}
    if others != kept or not same_rest or len(ours) != 1 or ours[0].get("connect") != entry["connect"]:
        raise ValueError("it would not be the same afterwards")


def _is_ours(item: Any) -> bool:
    return isinstance(item, dict) and item.get("name") == NAME


def _plain(text: str) -> str:
    """As strict JSON of the same length: comments, last commas and a byte order mark become spaces."""
    text = text.replace(_BOM, " ", 1) if text.startswith(_BOM) else text
    return _LAST_COMMA.sub(_blank, _COMMENT.sub(_blank, text))


def _blank(match: re.Match[str]) -> str:
    return match[0] if match[0].startswith('"') else re.sub(r"[^\r\n]", " ", match[0])


def _member(plain: str, at: int, wanted: str) -> tuple[int, int]:
    """Begin and end of the value of a key, in the object that begins at `at`."""
    if plain[at : at + 1] == "{":
        at = _skip(plain, at + 1)
        while plain[at : at + 1] == '"':
            key, at = _DECODER.raw_decode(plain, at)
            begin = _skip(plain, _skip(plain, at) + 1)
            _, end = _DECODER.raw_decode(plain, begin)
            if key == wanted:
                return begin, end
            at = _skip(plain, end)
            at = _skip(plain, at + 1) if plain[at : at + 1] == "," else at
    raise ValueError(f"it has no {wanted!r} where one was expected")


def _elements(plain: str, at: int) -> Iterator[tuple[int, int]]:
    if plain[at] != "[":
        raise ValueError("its 'configurations' are no list")
    at = _skip(plain, at + 1)
    while plain[at] != "]":
        _, end = _DECODER.raw_decode(plain, at)
        yield at, end
        at = _skip(plain, end)
        at = _skip(plain, at + 1) if plain[at] == "," else at


def _skip(plain: str, at: int) -> int:
    match = _SPACE.match(plain, at)
    return match.end() if match else at


def _indent(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line if not line.strip() else "        "


def _write(path: Path, text: str) -> None:
    """At once or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(text.encode("utf-8"))
        if path.exists():
            shutil.copymode(path, draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
