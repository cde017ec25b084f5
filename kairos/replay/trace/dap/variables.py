"""Recorded values as the variables of the protocol: a tree that the client opens node by node."""

from __future__ import annotations

from typing import Any

from kairos.replay.trace.values import Items, Object, Pairs, Value, children, left_out, render, type_of

_SHOWN = 300


class Variables:
    """Numbers what the client may open. Valid until the next move."""

    def __init__(self) -> None:
        self._held: list[list[tuple[str, Value, str | None]]] = []

    def forget(self) -> None:
        """All numbers given so far are void."""
        self._held.clear()

    def reference(self, named: list[tuple[str, Value, str | None]]) -> int:
        """A number for these variables: name, value, and the expression that gives it (None: there is none)."""
        self._held.append(named)
        return len(self._held)

    def describe(self, value: Any, expression: str | None) -> dict[str, Any]:
        """A value for the client: text, type, and a reference if it has parts."""
        return {"type": type_of(value), "variablesReference": self._parts(value, expression)}

    def opened(self, reference: int, start: int, count: int) -> list[dict[str, Any]]:
        """The variables behind a reference; with `count`, so many from `start` on.

        Raises:
            LookupError: no such reference.
        """
        if not 1 <= reference <= len(self._held):
            raise LookupError(f"there is no variable {reference} at this position")
        named = self._held[reference - 1]
        return [
            {
                "name": name,
                "value": render(value, _SHOWN),
                "evaluateName": expression,
                **self.describe(value, expression),
            }
            if expression is not None
            else {"name": name, "value": render(value, _SHOWN), **self.describe(value, None)}
            for name, value, expression in named[start : start + count if count else None]
        ]

    def _parts(self, value: Value, expression: str | None) -> int:
        parts: list[tuple[str, Value, str | None]] = [
            (label, item, None if expression is None else _within(value, expression, label))
            for label, item in children(value)
        ]
        if not parts:
            return 0
        if missing := left_out(value):
            parts.append(("…", f"{missing:,} more were not recorded", None))
        return self.reference(parts)


def _within(value: Value, expression: str, label: str) -> str | None:
    if isinstance(value, Object):
        return f"{expression}.{label}" if label.isidentifier() else None
    ordered = isinstance(value, Items) and value.kind not in ("set", "frozenset")
    return f"{expression}{label}" if ordered or isinstance(value, Pairs) else None
