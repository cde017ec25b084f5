"""Blanks secrets in snapshots. Done once, at the end: by then the step has revealed whatever it reveals."""

from __future__ import annotations

from kairos.authoring.redaction import MIN_VALUE, Redactor
from kairos.replay.trace.capture import Limits
from kairos.replay.trace.values import Hidden, Items, Object, Pairs, Scalar, Text, Value, decoder, encode


class Blanking:
    """Takes encoded snapshots to such without secrets, their texts cut to the limit."""

    def __init__(self, redactor: Redactor, limits: Limits) -> None:
        self._redactor = redactor
        self._limit = limits.text
        self._known: dict[str, str] = {}

    def __call__(self, raw: bytes) -> bytes:
        value = decoder.decode(raw)
        return raw if value is None or isinstance(value, bool | float) else encode(self.value(value))

    def value(self, value: Value) -> Value:
        match value:
            case str():
                return self._text(value)
            case Text(shown, size):
                return Text(self._text(shown)[: self._limit], size)
            case Scalar(kind, shown):
                return Scalar(kind, _cut(self._text(shown), self._limit))
            case Items(kind, size, items):
                return Items(kind, size, [self.value(item) for item in items])
            case Pairs(kind, size, pairs):
                return Pairs(kind, size, [(self.value(key), self.value(item)) for key, item in pairs])
            case Object(kind, size, fields):
                return Object(kind, size, [(self._text(name), self.value(item)) for name, item in fields])
            case int() if not isinstance(value, bool) and self._redactor.json(value) != value:
                return Hidden()
        return value

    def _text(self, text: str) -> str:
        if len(text) < MIN_VALUE:
            return text
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = self._redactor.text(text)
        return known


def _cut(text: str, limit: int) -> str:
    # A mark that the value goes on may stand at the end: it is kept, the lookahead before it is not.
    return text if len(text) <= 2 * limit else f"{text[:limit]}…{text[-24:]}"
