"""The payload that every engine gets, and the trivial step. Imports nothing: peers run in other environments."""

from __future__ import annotations

from typing import Any

RECORD: dict[str, Any] = {
    "id": 0,
    "name": "widget",
    "qty": 3,
    "ok": True,
    "tags": ["a", "b", "c"],
    "note": "x" * 110,
}
"""About 200 bytes of JSON."""


def step(record: dict[str, Any]) -> dict[str, Any]:
    """The trivial step: the same record, counted up."""
    return {**record, "id": record["id"] + 1}
