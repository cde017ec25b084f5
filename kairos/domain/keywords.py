"""Proposes the nearest valid keyword to who misspells one of a public function.

Signatures stay as they are written, so type checkers and editors know nothing of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from kairos.domain.names import nearest
from kairos.errors import UnknownOption

T = TypeVar("T", bound=Callable[..., Any])


def checks_keywords(target: T) -> T:
    """Decorates a function or a class: an unknown keyword of it raises `UnknownOption`.

    Of a class, that holds for the constructor and the public methods.
    """
    if not isinstance(target, type):
        return cast(T, _checked(target, target.__name__))  # the same signature, see `wraps`
    for name, member in list(vars(target).items()):
        if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
            owner = target.__name__ if name == "__init__" else f"{target.__name__}.{name}"
            setattr(target, name, _checked(member, owner))
    return target


def _checked(function: Callable[..., Any], owner: str) -> Callable[..., Any]:
    parameters = inspect.signature(function).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    valid = frozenset(named) - {"self"}
    if not valid or any(p.kind is p.VAR_KEYWORD for p in parameters):
        return function

    @wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        if given and not given.keys() <= valid:
            raise _unknown(given, valid, owner)
        return function(*args, **given)

    @wraps(function)
    async def call_async(*args: Any, **given: Any) -> Any:
        if given and not given.keys() <= valid:
            raise _unknown(given, valid, owner)
        return await function(*args, **given)

    # A coroutine function stays one for whoever asks `inspect`, such as makers of mocks.
    return call_async if inspect.iscoroutinefunction(function) else call


def _unknown(given: dict[str, Any], valid: frozenset[str], owner: str) -> UnknownOption:
    name = next(name for name in given if name not in valid)
    return UnknownOption(f"{owner}: there is no option {name!r}", hint=nearest(name, valid), option=name)
