"""Evaluates expressions over recorded values: names, attributes, items, comparisons, arithmetic, a few functions.

No line of the user's code is run and none could be: all there is are snapshots. What was cut off when it was
recorded is never guessed; an expression that needs it fails and says so.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NoReturn

from kairos.errors import TraceError
from kairos.replay.trace.values import Cut, Hidden, Items, Object, Pairs, Scalar, Text, Unbound, Value, render, type_of

_SUPPORTED: Final = "Names, attributes, items, comparisons, `and or not in`, + - * / // %, and the functions {}."
_MAX_TEXT: Final = 10_000
_NAIVE: Final = re.compile(r"datetime\.(date|datetime)\([\d, ]+\)")

_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_COMPUTE: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: Final[dict[type[ast.unaryop], Callable[[Any], Any]]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "abs": abs, "all": all, "any": any, "bool": bool, "float": float, "int": int, "max": max, "min": min,
    "round": round, "sorted": sorted, "str": str, "sum": sum, "Decimal": Decimal, "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
}  # fmt: skip


def parse(text: str) -> ast.expr:
    """The expression in `text`.

    Raises:
        TraceError: it is no expression, or uses what there is not over recorded values.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise TraceError(f"{text.strip()!r} is not an expression") from exc
    if sum(1 for _ in ast.walk(tree)) > 500:
        raise TraceError("this expression is too long")
    return tree


def evaluate(text: str | ast.expr, names: Mapping[str, Value]) -> Value | Any:
    """The value of an expression where `names` are the locals: a recorded value, or what was computed from some.

    Raises:
        TraceError: a name or part that is not there, was cut off or hidden; an operation that does not exist.
    """
    tree = parse(text) if isinstance(text, str) else text
    try:
        return _Evaluation(names).node(tree)
    except TraceError:
        raise
    except RecursionError as exc:
        raise TraceError("this expression is nested too deeply") from exc
    except Exception as exc:
        raise TraceError(f"{type(exc).__name__}: {exc}") from exc


class _Evaluation:
    def __init__(self, names: Mapping[str, Value]) -> None:
        self._names = names

    def node(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name):
                return self._name(name)
            case ast.Attribute(inner, name):
                return _attribute(self.node(inner), name)
            case ast.Subscript(inner, key):
                return _item(self.node(inner), _plain(self.node(key)))
            case ast.Compare(left, ops, comparators):
                return self._compare(left, ops, comparators)
            case ast.BoolOp(op, values):
                return self._bool(op, values)
            case ast.UnaryOp(ast.Not(), operand):
                return not truth(self.node(operand))
            case ast.UnaryOp(op, operand) if type(op) in _UNARY:
                return _UNARY[type(op)](_plain(self.node(operand)))
            case ast.BinOp(left, op, right) if type(op) in _COMPUTE:
                return _compute(op, _plain(self.node(left)), _plain(self.node(right)))
            case ast.IfExp(test, body, orelse):
                return self.node(body if truth(self.node(test)) else orelse)
            case ast.Tuple(items):
                return tuple(self.node(item) for item in items)
            case ast.List(items):
                return [self.node(item) for item in items]
            case ast.Call(ast.Name(name), args, []):
                return _call(name, [self.node(arg) for arg in args])
            case _:
                shown = ast.unparse(node)
                raise TraceError(f"`{shown}` cannot be evaluated over recorded values", hint=_supported())

    def _name(self, name: str) -> Value:
        if name not in self._names:
            raise TraceError(f"there is no local variable {name!r} here", hint=f"There are: {', '.join(self._names)}.")
        return self._names[name]

    def _compare(self, left: ast.expr, ops: list[ast.cmpop], others: list[ast.expr]) -> bool:
        before = self.node(left)
        for op, other in zip(ops, others, strict=True):
            after = self.node(other)
            if isinstance(op, ast.In | ast.NotIn):
                found = _contains(after, _plain(before))
                met = found if isinstance(op, ast.In) else not found
            else:
                met = _COMPARE[type(op)](*_comparable(op, _plain(before), _plain(after)))
            if not met:
                return False
            before = after
        return True

    def _bool(self, op: ast.boolop, values: list[ast.expr]) -> Any:
        result: Any = None
        for value in values:
            result = self.node(value)
            if bool(truth(result)) is isinstance(op, ast.Or):
                break
        return result


def _comparable(op: ast.cmpop, left: Any, right: Any) -> tuple[Any, Any]:
    if isinstance(op, ast.Is | ast.IsNot):
        if left is not None and right is not None and not isinstance(left, bool) and not isinstance(right, bool):
            raise TraceError("`is` is for None, True and False here: recorded values have no identity")
    elif (isinstance(left, Object) and right is not None) or (isinstance(right, Object) and left is not None):
        raise TraceError("what it means to compare these objects is code, which is not run", hint="Compare attributes.")
    return left, right


def _supported() -> str:
    return _SUPPORTED.format(", ".join(["len", "type", *_FUNCTIONS]))


def _missing(value: Any, what: str) -> NoReturn:
    raise TraceError(f"{what} was not recorded: {render(value, 120)}")


def _attribute(value: Any, name: str) -> Value:
    if isinstance(value, Object):
        for field, item in value.fields:
            if field == name:
                return item
        if value.size > len(value.fields):
            _missing(value, f"attribute {name!r}")
        raise TraceError(
            f"{value.kind} has no recorded attribute {name!r}",
            hint=f"Recorded: {', '.join(field for field, _ in value.fields) or 'none'}. "
            "Properties and methods never run.",
        )
    if isinstance(value, Cut | Scalar):
        _missing(value, f"attribute {name!r}")
    if isinstance(value, Hidden):
        _hidden()
    raise TraceError(f"a {type_of(value)} has no recorded attributes", hint="Methods are not run over recorded values.")


def _item(value: Any, key: Any) -> Any:
    match value:
        case Pairs():
            for known, item in value.pairs:
                if type(known) in (str, int, float, bool, type(None), Scalar, Items) and _plain(known) == key:
                    return item
            if value.size > len(value.pairs):
                _missing(value, f"key {key!r}")
            raise TraceError(
                f"there is no key {key!r}", hint=f"Keys: {', '.join(render(k, 40) for k, _ in value.pairs)}."
            )
        case Items(kind, size, items):
            if type(key) is not int or kind in ("set", "frozenset"):
                raise TraceError("only single items can be asked for, by number")
            at = key + size if key < 0 else key
            if not 0 <= at < size:
                raise TraceError(f"there is no item {key}: the {value.kind} has {size:,}")
            return items[at] if at < len(items) else _missing(value, f"item {key} of {size:,}")
        case Text(shown, size):
            at = key + size if key < 0 else key
            return shown[at] if 0 <= at < len(shown) else _missing(value, f"character {key}")
        case _:
            return _plain(value)[key]


def _contains(value: Any, item: Any) -> bool:
    if isinstance(value, Text) and isinstance(item, str):
        return item in value.shown or _missing(value, "the end of the text")
    if isinstance(value, Items | Pairs):
        parts = [key for key, _ in value.pairs] if isinstance(value, Pairs) else value.items
        for part in parts:
            if not isinstance(part, Text | Cut | Hidden | Object | Pairs) and _plain(part) == item:
                return True
        return False if value.size == len(parts) else _missing(value, "the rest")
    return item in _plain(value)


def truth(value: Any) -> bool:
    """Whether a recorded or computed value counts as true.

    Raises:
        TraceError: that depends on what was cut off, or on the user's code.
    """
    if isinstance(value, Items | Pairs | Text):
        return value.size > 0
    if isinstance(value, Cut) and value.size is not None:
        return value.size > 0
    if isinstance(value, Object):
        _missing(value, "whether this is true")
    return bool(_plain(value))


def _compute(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Mult | ast.Mod) and not all(isinstance(v, int | float | Decimal) for v in (left, right)):
        raise TraceError("`*` and `%` are for numbers here")
    if isinstance(left, str | list | tuple) and len(left) > _MAX_TEXT:
        raise TraceError("this text is too long to compute with")
    return _COMPUTE[type(op)](left, right)


def _call(name: str, arguments: list[Any]) -> Any:
    if name == "len" and len(arguments) == 1:
        value = arguments[0]
        if isinstance(value, Items | Pairs | Text | Cut) and value.size is not None:
            return value.size
        return len(_plain(value))
    if name == "type" and len(arguments) == 1:
        return type_of(arguments[0])
    if name not in _FUNCTIONS:
        raise TraceError(f"{name}() cannot be called over recorded values", hint=_supported())
    return _FUNCTIONS[name](*(_plain(argument) for argument in arguments))


def _hidden() -> NoReturn:
    raise TraceError("this value is redacted", hint="A rule of the app, or its name, hides it from every record.")


def _plain(value: Any) -> Any:
    """A Python value of the same meaning, if all of it was recorded."""
    match value:
        case Hidden():
            _hidden()
        case Text() | Cut() | Unbound():
            _missing(value, "all of this value")
        case Items(kind, size, items):
            if size > len(items):
                _missing(value, "all of this value")
            parts = [_plain(item) for item in items]
            return tuple(parts) if kind == "tuple" else set(parts) if kind in ("set", "frozenset") else parts
        case Pairs(_, size, pairs):
            if size > len(pairs):
                _missing(value, "all of this value")
            return {_plain(key): _plain(item) for key, item in pairs}
        case Scalar(kind, shown):
            return _revived(kind, shown)
        case _:
            return value


def _revived(kind: str, shown: str) -> Any:
    """A Decimal, date, bytes or large int from its text; what is of another type is its text."""
    if "…" in shown:
        raise TraceError(f"all of this value was not recorded: {shown[:120]}")
    if kind == "Decimal":
        return Decimal(shown.removeprefix("Decimal('").removesuffix("')"))
    if kind in ("datetime", "date") and _NAIVE.fullmatch(shown):
        return (datetime if kind == "datetime" else date)(*map(int, re.findall(r"\d+", shown)))
    if kind == "bytes" or (kind == "int" and shown.lstrip("-").isdigit()):
        return ast.literal_eval(shown)
    return shown
