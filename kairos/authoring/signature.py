"""Reads a step function: its parameters, their types, what it returns, its source.

Refuses, on the line of the decorator, whatever cannot be a step. Knows nothing of other steps.
"""

from __future__ import annotations

import functools
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from kairos.authoring.display import clean
from kairos.domain.fingerprint import hash_source
from kairos.errors import DefinitionError

MISSING: Any = inspect.Parameter.empty
_OWN_PACKAGE = __name__.rpartition(".")[0]
_FAR_ENOUGH = 50


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; `annotation` and `default` are MISSING if it has none."""

    name: str
    annotation: Any
    default: Any

    @property
    def has_default(self) -> bool:
        """Whether it may be left out."""
        return self.default is not MISSING


@dataclass(frozen=True, slots=True)
class Signature:
    """What is known of a step function. `returns` is Any if it does not say. `names`: for forward references."""

    parameters: tuple[Parameter, ...]
    returns: Any
    is_async: bool
    source: str
    code_hash: str
    names: Mapping[str, Any]


def function_name(fn: Any, given: str | None) -> str:
    """The name given, or the function's own.

    Raises:
        DefinitionError: there is none that would do.
    """
    if given is not None:
        return given
    name = getattr(fn, "__name__", None)
    if isinstance(fn, type) or not callable(fn):
        raise DefinitionError(f"{_shown(fn)} is not a function", hint="Decorate a def or async def.")
    if name == "<lambda>":
        raise DefinitionError("a lambda cannot be a step: it has no name and no types", hint="Write a def.")
    if not isinstance(name, str):
        raise DefinitionError(f"{_shown(fn)} has no name", hint='Give one: name="...".')
    return name


def read_signature(fn: Any, owner: str) -> Signature:
    """Inspect `fn`. `owner` begins the text of errors, e.g. "step 'charge'"."""
    _refuse_kind(fn, owner)
    try:
        raw = inspect.signature(fn)
    except (TypeError, ValueError) as exc:
        raise DefinitionError(f"{owner}: {_shown(fn)} has no signature that Python can read", hint=_WRAP) from exc
    for parameter in raw.parameters.values():
        _refuse_parameter(parameter, owner)
    names = _names_in_sight(fn)
    hints = _resolve(fn, names, owner)
    parameters = tuple(Parameter(p.name, hints.get(p.name, p.annotation), p.default) for p in raw.parameters.values())
    source = _source(fn)
    return Signature(
        parameters=parameters,
        returns=hints.get("return", Any),
        is_async=_is_async(fn),
        source=source,
        code_hash=hash_source(source) if source else _hash_code(fn),
        names=names,
    )


_WRAP = "Wrap it in a def with annotated parameters."


def _refuse_kind(fn: Any, owner: str) -> None:
    if isinstance(fn, type):
        raise DefinitionError(f"{owner}: {fn.__name__} is a class, not a function", hint=_WRAP)
    if not callable(fn):
        raise DefinitionError(f"{owner}: {_shown(fn)} is not a function", hint=_WRAP)
    body = _function(fn)
    if getattr(body, "__name__", "") == "<lambda>":
        raise DefinitionError(f"{owner}: a lambda cannot be a step: it has no types", hint="Write a def.")
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise DefinitionError(
            f"{owner}: it is a generator (it has a yield), and a step returns one value",
            hint="Collect the items and return a list.",
        )


def _refuse_parameter(parameter: inspect.Parameter, owner: str) -> None:
    kind = parameter.kind
    if kind is inspect.Parameter.VAR_POSITIONAL or kind is inspect.Parameter.VAR_KEYWORD:
        raise DefinitionError(
            f"{owner}: parameter {parameter} takes anything, so Kairos cannot tell what to pass",
            hint="Name each parameter. If a decorator hides them, it should use functools.wraps.",
        )
    if kind is inspect.Parameter.POSITIONAL_ONLY:
        raise DefinitionError(
            f"{owner}: parameter {parameter.name!r} is positional-only, and steps are called by name",
            hint="Remove the '/' from the signature.",
        )


def _function(fn: Any) -> Any:
    """The function at the bottom of partials, decorators, methods and callable objects."""
    for _ in range(_FAR_ENOUGH):
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, types.MethodType):
            fn = fn.__func__
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        else:
            break
    is_plain = isinstance(fn, types.FunctionType | types.BuiltinFunctionType)
    return fn if is_plain else getattr(type(fn), "__call__", fn)  # noqa: B004


def _is_async(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004


def _names_in_sight(fn: Any) -> dict[str, Any]:
    """Local names of the functions that enclose the decorator line, nearest first to win.

    With `from __future__ import annotations` a type defined inside a test function is only a text in the
    signature, and such a type can be found nowhere else.
    """
    module = getattr(_function(fn), "__globals__", None)
    frames: list[Mapping[str, Any]] = []
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and len(frames) < _FAR_ENOUGH:
        if frame.f_globals is module and frame.f_locals is not frame.f_globals:
            frames.append(frame.f_locals)
        frame = frame.f_back
    names: dict[str, Any] = {}
    for local_names in reversed(frames):
        names.update(local_names)
    return names


def _resolve(fn: Any, names: dict[str, Any], owner: str) -> dict[str, Any]:
    body = _function(fn)
    try:
        return typing.get_type_hints(body, localns=names, include_extras=True)
    except Exception as exc:
        culprit, why = _find_unresolved(body, names, exc)
        raise DefinitionError(
            f"{owner}: the annotation {culprit} cannot be resolved: {why}",
            hint="Import or define the type above the step, at run time (not under TYPE_CHECKING).",
        ) from exc


def _find_unresolved(body: Any, names: dict[str, Any], first: Exception) -> tuple[str, str]:
    try:
        annotations = dict(body.__annotations__)
    except Exception:
        annotations = {}
    for name, annotation in annotations.items():
        one = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            typing.get_type_hints(one, getattr(body, "__globals__", {}), names)
        except Exception as exc:
            where = "of the return value" if name == "return" else f"of parameter {name!r}"
            return f"{clean(str(annotation), 120)!r} {where}", clean(str(exc), 200)
    return "of a parameter", clean(str(first), 200)


def _source(fn: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(_function(fn)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return ""


def _hash_code(fn: Any) -> str:
    code = getattr(_function(fn), "__code__", None)
    return sha256(repr(_describe_code(code)).encode("utf-8", "backslashreplace")).hexdigest()


def _describe_code(code: Any) -> Any:
    # Constants may hold code objects (inner functions), whose repr is an address.
    if not isinstance(code, types.CodeType):
        return repr(code)
    return (code.co_code.hex(), code.co_names, code.co_varnames, [_describe_code(c) for c in code.co_consts])


def _shown(fn: Any) -> str:
    try:
        return clean(repr(fn), 80)
    except Exception:
        return f"<{type(fn).__name__}>"
