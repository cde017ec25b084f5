"""Takes bounded snapshots of values. Never runs the user's code: no `__repr__`, `__eq__`, `__hash__`, property.

Each type is looked at once; what it is decides how its values are taken. Types are told apart by identity,
because a metaclass may define how they compare.
"""

from __future__ import annotations

import dataclasses
import types
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from itertools import islice
from typing import Any, Final

from kairos.authoring.display import show, type_name
from kairos.authoring.redaction import Redactor
from kairos.replay.trace.scope import Scope
from kairos.replay.trace.values import encode

Node = Any
"""A value on its way to be encoded: what `values.Value` is decoded from, as tuples, which are cheaper to make."""
HIDDEN: Final = ("r",)
_Plan = Callable[["Snapshots", Any, int], Node]
_ARRAYS: Final = {
    "numpy.ndarray", "pandas.core.frame.DataFrame", "pandas.core.series.Series", "polars.dataframe.frame.DataFrame",
    "polars.series.series.Series", "torch.Tensor",
}  # fmt: skip
_LOOKAHEAD: Final = 1_024
"""Characters kept beyond the limit until secrets are blanked: half a secret is a secret too."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much of a step is recorded.

    Attributes:
        depth: levels of containers that are looked into.
        items: items, keys or attributes of each container.
        text: characters of a text.
        nodes: values inside one local variable, altogether.
        hits: times that one line is recorded.
        events: events of one trace; a tenth more is kept for exceptions and returns.
        value_bytes: bytes of all distinct values.
    """

    depth: int = 4
    items: int = 20
    text: int = 160
    nodes: int = 60
    hits: int = 2_000
    events: int = 200_000
    value_bytes: int = 64_000_000


class Snapshots:
    """Distinct values by number. Not safe in several threads at once: the recorder holds its lock.

    Attributes:
        values: the encoded values; secrets in texts are not blanked yet (see `blanking`).
        seen: after `take`, the ids of the mutable objects that the snapshot shows.
    """

    def __init__(self, scope: Scope, redactor: Redactor, limits: Limits) -> None:
        self.values: list[bytes] = []
        self.seen: list[int] = []
        self.is_full = False
        self.redactor = redactor
        self.limits = limits
        self.room = 0
        self._text = limits.text
        self._numbers: dict[bytes, int] = {}
        self._bytes = 0
        self._scope = scope
        self._hidden: dict[str, bool] = {}
        self._plans: dict[int, _Plan] = {id(kind): plan for kind, plan in _PLANS}
        self._kinds: list[type] = []
        self.unbound = self._number(encode(("u",)))
        self.hidden = self._number(encode(HIDDEN))
        self._full = self._number(encode(("v", "", "(not recorded: the trace is full)")))

    def take(self, value: object) -> int:
        """The number of a snapshot of `value`."""
        self.seen = []
        self.room = self.limits.nodes
        try:
            kept = self.node(value, self.limits.depth)
        except RecursionError:
            raise
        except RuntimeError:
            # Another thread changed a container while it was read.
            kept = ("c", type_name(type(value)), None)
        try:
            raw = encode(kept)
        except (UnicodeEncodeError, OverflowError):
            raw = encode(_encodable(kept))
        known = self._numbers.get(raw)
        return known if known is not None else self._number(raw)

    def hides(self, name: str) -> bool:
        """Whether a variable, key or attribute of this name is blanked whole."""
        known = self._hidden.get(name)
        if known is None:
            known = self._hidden[name] = self.redactor.hides(name)
        return known

    def _number(self, raw: bytes) -> int:
        if self._bytes + len(raw) > self.limits.value_bytes:
            self.is_full = True
            return self._full
        self._bytes += len(raw)
        self._numbers[raw] = number = len(self.values)
        self.values.append(raw)
        return number

    def node(self, value: Any, depth: int) -> Node:
        """One value, looked into for `depth` levels as long as there is room."""
        kind = type(value)
        if kind is int or kind is float or kind is bool or value is None or (kind is str and len(value) <= self._text):
            return value
        if kind is dict:
            return self.pairs("dict", value, depth)
        if kind is list:
            self.seen.append(id(value))
            return self.items("list", len(value), value[: self.limits.items], depth)
        plan = self._plans.get(id(kind))
        return (plan or self._learn(kind))(self, value, depth)

    def _learn(self, kind: type) -> _Plan:
        plan = _plan(kind, self._scope)
        # Held, so that no other type can get the same id.
        self._kinds.append(kind)
        self._plans[id(kind)] = plan
        return plan

    def items(self, kind: str, size: int, first: Sequence[Any], depth: int) -> Node:
        """The first items of something that has `size` of them."""
        if depth == 0 or self.room <= 0:
            return ("c", kind, size)
        node, longest, items = self.node, self._text, []
        self.room -= len(first)
        for item in first:
            what = type(item)
            # What needs no further look is passed on here: a call for each would double the cost.
            if what is int or what is float or (what is str and len(item) <= longest):
                items.append(item)
            elif self.room <= 0 and items:
                break
            else:
                items.append(node(item, depth - 1))
        return ("l", kind, size, items)

    def pairs(self, kind: str, value: dict[Any, Any], depth: int) -> Node:
        """The first pairs of a dictionary."""
        size = dict.__len__(value)
        self.seen.append(id(value))
        if depth == 0 or self.room <= 0:
            return ("c", kind, size)
        node, longest, hidden, pairs = self.node, self._text, self._hidden, []
        first = list(islice(dict.items(value), self.limits.items))
        self.room -= len(first)
        for key, item in first:
            what = type(item)
            if type(key) is not str:
                pairs.append((node(key, depth - 1), node(item, depth - 1)))
            elif hidden[key] if key in hidden else self.hides(key):
                pairs.append((node(key, 0), HIDDEN))
            elif what is int or what is float or (what is str and len(item) <= longest):
                pairs.append((key if len(key) <= longest else node(key, 0), item))
            elif self.room <= 0 and pairs:
                break
            else:
                pairs.append((node(key, 0), node(item, depth - 1)))
        return ("d", kind, size, pairs)

    def fields(self, value: object, kind: str, fields: list[tuple[str, Any]], size: int, depth: int) -> Node:
        """The first attributes of an object."""
        self.seen.append(id(value))
        if depth == 0 or self.room <= 0:
            return ("c", kind, None)
        self.room -= len(fields)
        kept = [(name, HIDDEN if self.hides(name) else self.node(item, depth - 1)) for name, item in fields]
        return ("o", kind, size, kept)


def _encodable(node: Any) -> Any:
    """The same with texts that UTF-8 can hold and ints of 64 bits, for what cannot be encoded as it is."""
    if type(node) is str:
        return node.encode("utf-8", "backslashreplace").decode()
    if type(node) is int and not -(2**63) <= node < 2**63:
        return ("v", "int", repr(node) if node.bit_length() <= 512 else f"<int of {node.bit_length():,} bits>")
    if type(node) is tuple or type(node) is list:
        return [_encodable(part) for part in node]
    return node


def _text(shots: Snapshots, value: str, _: int) -> Node:
    limit = shots.limits.text
    return ("s", value[: limit + _LOOKAHEAD], len(value))


def _tuple(shots: Snapshots, value: tuple[Any, ...], depth: int) -> Node:
    return shots.items("tuple", len(value), value[: shots.limits.items], depth)


def _bytes(shots: Snapshots, value: bytes | bytearray, _: int) -> Node:
    if type(value) is bytearray:
        shots.seen.append(id(value))
    limit = shots.limits.text
    start = repr(bytes(value[: limit + _LOOKAHEAD]))
    kind = type(value).__name__
    return ("v", kind, start if len(value) <= limit else f"{start}…({len(value):,} long)")


def _iterated(base: Any, name: str) -> _Plan:
    def take(shots: Snapshots, value: Any, depth: int) -> Node:
        shots.seen.append(id(value))
        return shots.items(name, base.__len__(value), list(islice(base.__iter__(value), shots.limits.items)), depth)

    return take


def _shown(name: str) -> _Plan:
    def take(shots: Snapshots, value: Any, _: int) -> Node:
        return ("v", name, show(value, shots.limits.text, shots.redactor))

    return take


def _only_type(name: str) -> _Plan:
    def take(_: Snapshots, __: Any, ___: int) -> Node:
        return ("c", name, None)

    return take


def _named(kind: Any, attribute: str) -> _Plan:
    read, name = kind.__dict__[attribute].__get__, kind.__name__.removesuffix("_function_or_method")

    def take(_: Snapshots, value: Any, __: int) -> Node:
        return ("v", name, f"<{name} {read(value)}>")

    return take


def _method(_: Snapshots, value: types.MethodType, __: int) -> Node:
    inner = value.__func__
    return ("v", "method", f"<method {inner.__qualname__}>" if type(inner) is types.FunctionType else "<method>")


def _module(_: Snapshots, value: types.ModuleType, __: int) -> Node:
    # Not by getattr: a module may have a `__getattr__` of its own.
    return ("v", "module", f"<module {types.ModuleType.__getattribute__(value, '__dict__').get('__name__')}>")


def _plain(base: Any, nothing: Any) -> _Plan:
    def take(shots: Snapshots, value: Any, depth: int) -> Node:
        return shots.node(base.__add__(value, nothing), depth)

    return take


def _array(name: str) -> _Plan:
    def take(_: Snapshots, value: Any, __: int) -> Node:
        # Numpy and its like: of the exact type, so that these are the library's own attributes.
        facts = [f"{fact}={getattr(value, fact)}" for fact in ("shape", "dtype") if hasattr(value, fact)]
        return ("v", name, f"<{name} {' '.join(facts)}>")

    return take


_PLANS: Final[list[tuple[type, _Plan]]] = [
    (str, _text),
    (tuple, _tuple),
    (bytes, _bytes),
    (bytearray, _bytes),
    (set, _iterated(set, "set")),
    (frozenset, _iterated(frozenset, "frozenset")),
    (deque, _iterated(deque, "deque")),
    (types.FunctionType, _named(types.FunctionType, "__qualname__")),
    (types.BuiltinFunctionType, _named(types.BuiltinFunctionType, "__name__")),
    (types.GeneratorType, _named(types.GeneratorType, "__qualname__")),
    (types.CoroutineType, _named(types.CoroutineType, "__qualname__")),
    (types.AsyncGeneratorType, _named(types.AsyncGeneratorType, "__qualname__")),
    (types.MethodType, _method),
    (types.ModuleType, _module),
]


_WRITTEN: Final = (
    "builtins.", "decimal.", "datetime.", "uuid.", "fractions.", "pathlib.", "re.", "kairos.authoring.secrets.",
)  # fmt: skip
"""Types of these modules have a text of their own that may be shown."""


def _plan(kind: type, scope: Scope) -> _Plan:
    full = type_name(kind)
    name = full.rpartition(".")[2]
    if full in _ARRAYS:
        return _array(name)
    if issubclass(kind, type) or issubclass(kind, Enum):
        return _shown(name)
    if issubclass(kind, dict):
        return lambda shots, value, depth: shots.pairs(name, value, depth)
    if issubclass(kind, tuple):
        fields = _static(kind, "_fields")
        if type(fields) is tuple and all(type(field) is str for field in fields):
            return _named_tuple(name, fields)
    for base in (list, tuple, set, frozenset, deque):
        if issubclass(kind, base):
            return _iterated(base, name)
    for plain, nothing in ((str, ""), (int, 0), (float, 0.0)):
        if issubclass(kind, plain):
            return _plain(plain, nothing)
    if issubclass(kind, BaseException):
        return _exception(kind, name)
    if _has_parts(kind, full, scope):
        return _instance(kind, name)
    return _shown(name) if full.startswith(_WRITTEN) else _only_type(name)


def _has_parts(kind: type, full: str, scope: Scope) -> bool:
    """Whether instances are looked into: those of the user's classes and of anybody's data classes, not clients."""
    if full.startswith(("kairos.", "builtins.")):
        return False
    if full == "types.SimpleNamespace" or _static(kind, "__dataclass_fields__"):
        return True
    if any(type_name(base) == "pydantic.main.BaseModel" for base in _bases(kind)):
        return True
    functions = [held for held in type.__dict__["__dict__"].__get__(kind).values() if type(held) is types.FunctionType]
    if any(scope.has(function.__code__) for function in functions):
        return True
    return scope.owns(type.__getattribute__(kind, "__module__"))


def _bases(kind: type) -> tuple[type, ...]:
    return type.__dict__["__mro__"].__get__(kind)  # type: ignore[no-any-return]


def _static(kind: type, name: str) -> Any:
    """A class attribute as it stands in the class or its bases, without descriptors."""
    for base in _bases(kind):
        held = type.__dict__["__dict__"].__get__(base)
        if name in held:
            return held[name]
    return None


_Fields = Callable[[Any, int], tuple[list[tuple[str, Any]], int]]


def _attributes(kind: type) -> _Fields:
    """Reads an instance's dictionary and slots through Python's own descriptors, past any that the user defined.

    What it returns gives the first attributes and their number.
    """
    held = _static(kind, "__dict__")
    read = held.__get__ if type(held) in (types.GetSetDescriptorType, types.MemberDescriptorType) else None
    slots = [
        (label, slot.__get__)
        for base in reversed(_bases(kind))
        for label, slot in type.__dict__["__dict__"].__get__(base).items()
        if type(slot) is types.MemberDescriptorType and not label.startswith("__")
    ]

    def fields(value: Any, limit: int) -> tuple[list[tuple[str, Any]], int]:
        found, size = [], 0
        own = read(value) if read is not None else None
        if type(own) is dict:
            found = [(key, item) for key, item in list(islice(own.items(), limit)) if type(key) is str]
            size = len(own)
        for label, get in slots:
            try:
                item = get(value)
            except AttributeError:
                continue
            size += 1
            if len(found) < limit:
                found.append((label, item))
        return found, size

    return fields


def _instance(kind: type, name: str) -> _Plan:
    attributes = _attributes(kind)

    def take(shots: Snapshots, value: Any, depth: int) -> Node:
        return shots.fields(value, name, *attributes(value, shots.limits.items), depth)

    return take


def _named_tuple(name: str, names: tuple[str, ...]) -> _Plan:
    def take(shots: Snapshots, value: Any, depth: int) -> Node:
        fields = list(zip(names, tuple.__iter__(value), strict=False))[: shots.limits.items]
        return shots.fields(value, name, fields, len(names), depth)

    return take


def _exception(kind: type, name: str) -> _Plan:
    attributes, arguments = _attributes(kind), BaseException.__dict__["args"].__get__

    def take(shots: Snapshots, value: Any, depth: int) -> Node:
        fields, size = attributes(value, shots.limits.items)
        # Never cut to its type alone: what an exception says is what one looks for.
        return shots.fields(value, name, [("args", arguments(value)), *fields], size + 1, max(depth, 2))

    return take
