"""Blanks what must not be stored: by field name, by pattern, by exact value.

Two sets of rules. What the user names in `Redaction`, and the values of secrets that a step has revealed,
apply to everything that is written: run inputs, outputs, errors, locals, logs. The built-in rules
(`password`, `token`, `Authorization: Bearer ...`) apply only to errors, locals and logs: in inputs and
outputs they would destroy the very data that the next step needs.

A rule replaces text by `[redacted]`. Under a named field any value is replaced, so a field that is not
text no longer has its declared type: the step that reads it fails with an error that says so. Pass what a
step needs as a `Secret` instead.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

from kairos.domain import canonical
from kairos.domain.keywords import checks_keywords
from kairos.errors import DefinitionError

PLACEHOLDER = "[redacted]"
MIN_VALUE = 4
"""Shorter values are not looked for: blanking every `1` or `no` would make everything unreadable."""
_MIN_LINE = 8
"""Lines of a longer secret (a private key) are looked for one by one from this length on."""

DEFAULT_FIELDS = (
    "*password*",
    "*passwd*",
    "*passphrase*",
    "pwd",
    "*secret*",
    "*token",
    "*api_key*",
    "*apikey*",
    "*access_key*",
    "*private_key*",
    "*credential*",
    "authorization",
    "proxy_authorization",
    "cookie",
    "set_cookie",
    "dsn",
)
# Each alternative starts at a literal or a bounded look-behind: a text of a megabyte must not take seconds.
_DEFAULT_PATTERNS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=://)[^\s/:@]{0,256}:[^\s/@]{1,512}(?=@)"
    r"|(?i:(?<=\bbearer )|(?<=\bbasic ))[A-Za-z0-9._~+/=-]{8,}"
    r"|(?i:(?:password|passwd|passphrase|secret|api[_-]?key|(?:access|auth|refresh|session)[_-]?token)"
    r"[\"']?\s*[=:]\s*|token=)(?!\[redacted\])(?P<v>\"[^\"]*\"|'[^']*'|[^\s,;&)\]}]+)"
)


@checks_keywords
@dataclass(frozen=True)
class Redaction:
    """What an app never stores.

    Attributes:
        fields: names of fields, in any letter case; `*` and `?` are wild, `-` and `_` are the same.
        patterns: regular expressions; what they match is blanked wherever it stands in a text.
        values: exact texts of at least 4 characters.

    Raises:
        DefinitionError: a pattern that does not compile or matches nothing at all, a value too short.
    """

    fields: Iterable[str] = ()
    patterns: Iterable[str | re.Pattern[str]] | re.Pattern[str] = ()
    values: Iterable[str] = field(default=(), repr=False)

    _names: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _patterns: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)
    _variants: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("fields", "patterns", "values"):
            object.__setattr__(self, name, _texts(getattr(self, name), name))
        for value in self.values:
            if len(value) < MIN_VALUE:
                raise DefinitionError(f"Redaction(values=...): a value needs at least {MIN_VALUE} characters")
        object.__setattr__(self, "_names", _compile_names(tuple(self.fields)))
        patterns: Any = self.patterns
        object.__setattr__(self, "_patterns", tuple(map(_compile_pattern, patterns)))
        object.__setattr__(self, "_variants", tuple({v: None for value in self.values for v in _variants(value)}))


class Redactor:
    """The rules of one attempt: those of its app, and the secrets revealed so far. Safe in any thread."""

    # One is made for each attempt, and mostly has nothing to look for.
    _has_rules = False
    _outside: tuple[str, ...] = ()
    _rules: Redaction | None = None
    _names: re.Pattern[str] | None = None
    _patterns: tuple[re.Pattern[str], ...] = ()
    _values: tuple[str, ...] = ()
    _search: re.Pattern[str] | None = None

    def __init__(self, rules: Redaction | None = None) -> None:
        if rules is not None:
            self.adopt(rules)

    @property
    def is_active(self) -> bool:
        """Whether there is anything to look for in inputs and outputs."""
        if self._outside is not _revealed_outside:
            self._outside = _revealed_outside
            self._learn(self._outside)
        return self._has_rules or bool(self._values)

    def adopt(self, rules: Redaction | None) -> None:
        """Follow the rules of an app, in addition to what is known already."""
        if rules is self._rules or rules is None:
            return
        self._rules = rules
        if rules._names or rules._patterns:
            self._names, self._patterns, self._has_rules = rules._names, rules._patterns, True
        if rules._variants:
            self._learn(rules._variants)

    def reveal(self, value: str) -> None:
        """Blank this text from now on. Too short ones are not looked for, see `MIN_VALUE`."""
        if len(value) >= MIN_VALUE:
            self._learn(_variants(value))

    @property
    def longest(self) -> int:
        """Length of the longest exact value: what is cut off must be cut after looking that far."""
        return max(map(len, self._values), default=0) if self.is_active else 0

    def json(self, value: Any) -> Any:
        """Blank what the user's rules and revealed secrets say, in a plain JSON value."""
        if isinstance(value, str):
            return self.blank(value)
        if isinstance(value, dict):
            return {self.blank(key): self._field(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.json(item) for item in value]
        if self._values and type(value) in (int, float) and str(value) in self._values:
            return PLACEHOLDER
        return value

    def _field(self, name: str, value: Any) -> Any:
        if value is None or not self.names(name):
            return self.json(value)
        is_reference = isinstance(value, dict) and value.keys() == {"$secret"}
        return value if is_reference else PLACEHOLDER

    def raw(self, raw: bytes) -> bytes:
        """The same for canonical bytes."""
        return canonical.encode_plain(self.json(canonical.decode(raw)))

    def text(self, text: str) -> str:
        """Blank by all rules, the built-in ones too, in a text of an error or log."""
        return _DEFAULT_PATTERNS.sub(_keep_name, self.blank(text))

    def hides(self, name: str) -> bool:
        """Whether a local variable or log field of this name is blanked whole."""
        return _is_default_name(name) or self.names(name)

    def _learn(self, variants: tuple[str, ...]) -> None:
        self._values = tuple({**dict.fromkeys(self._values), **dict.fromkeys(variants)})
        self._search = None

    def names(self, name: str) -> bool:
        """Whether the user's rules name a field so."""
        return self._names is not None and self._names.fullmatch(_normal(name)) is not None

    def blank(self, text: str) -> str:
        """Blank what the user's patterns match and revealed secrets, in one text."""
        if self.is_active and self._values:
            text = self._compiled().sub(PLACEHOLDER, text)
        for pattern in self._patterns:
            text = pattern.sub(PLACEHOLDER, text)
        return text

    def _compiled(self) -> re.Pattern[str]:
        search = self._search
        if search is None:
            # Longest first, so that a value that begins with another one is not left half standing.
            search = re.compile("|".join(map(re.escape, sorted(self._values, key=len, reverse=True))))
            self._search = search
        return search


ATTEMPT: ContextVar[Redactor | None] = ContextVar("kairos_redactor", default=None)
"""The redactor of the attempt that runs here, for `Secret.reveal`."""

_revealed_outside: tuple[str, ...] = ()


def reveal_outside(value: str) -> None:
    """Blank, in all attempts of this process, a secret that was revealed outside any attempt (at import)."""
    global _revealed_outside
    if len(value) >= MIN_VALUE:
        # A new tuple each time: running attempts see by its identity that there is something to learn.
        _revealed_outside = tuple(dict.fromkeys((*_revealed_outside, *_variants(value))))


def _variants(value: str) -> tuple[str, ...]:
    """The forms in which a text shows up: as it is, quoted by repr, JSON, URLs, in base64, line by line."""
    raw = value.encode("utf-8", "surrogatepass")
    written = [
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(raw)[2:-1],
        quote(raw, safe=""),
        quote(raw),
        quote_plus(raw),
        b64encode(raw).decode().rstrip("="),
        urlsafe_b64encode(raw).decode().rstrip("="),
        raw.hex(),
        *(line.strip() for line in value.splitlines() if len(line.strip()) >= _MIN_LINE),
    ]
    # Any of these may stand inside a list or an exception's arguments, and then repr escapes it once more:
    # quotes only if the whole text has both kinds.
    escaped = [repr(form)[1:-1] for form in written]
    quoted = [form.replace("\\'", "'").replace("'", "\\'") for form in escaped]
    unquoted = [form.replace("\\'", "'") for form in escaped]
    return tuple(dict.fromkeys((*written, *escaped, *quoted, *unquoted)))


def _keep_name(match: re.Match[str]) -> str:
    value = match.group("v")
    return PLACEHOLDER if value is None else match.group(0)[: -len(value)] + PLACEHOLDER


def _normal(name: str) -> str:
    return name.lower().replace("-", "_")


def _compile_names(names: tuple[str, ...]) -> re.Pattern[str] | None:
    return re.compile("|".join(translate(_normal(name)) for name in names)) if names else None


_DEFAULT_NAMES = _compile_names(DEFAULT_FIELDS)


@lru_cache(maxsize=4096)
def _is_default_name(name: str) -> bool:
    return _DEFAULT_NAMES is not None and _DEFAULT_NAMES.fullmatch(_normal(name)) is not None


def _compile_pattern(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as exc:
        raise DefinitionError(f"Redaction(patterns=...): {pattern!r} is not a regular expression: {exc}") from exc
    if compiled.search("") is not None:
        raise DefinitionError(
            f"Redaction(patterns=...): {compiled.pattern!r} matches the empty text",
            hint="It would put [redacted] between all characters; make it match at least one.",
        )
    return compiled


def _texts(items: Any, name: str) -> tuple[Any, ...]:
    allowed: tuple[type, ...] = (str, re.Pattern) if name == "patterns" else (str,)
    listed = (items,) if isinstance(items, allowed) else tuple(items) if isinstance(items, Iterable) else None
    if listed is None or not all(isinstance(item, allowed) and item != "" for item in listed):
        raise DefinitionError(f"Redaction({name}=...) takes a list of texts")
    return listed
