"""Finds the line of a function at which to stop. Reads compiled code, so it needs no source and no parsing."""

from __future__ import annotations

import dis
import functools
import inspect
import linecache
import os
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kairos.errors import BreakpointError
from kairos.replay.stopping.breakpoints import Breakpoint

_FAR_ENOUGH = 100
"""Wrappers within wrappers; more than that is a cycle."""
_PASSES_ALL = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


@dataclass(frozen=True, slots=True)
class Place:
    """A line that is executed. `note` says so if it is not quite the one that was asked for.

    `code` is the function of the step; `once`: only the first time that the step comes there.
    """

    file: str
    line: int
    code: types.CodeType
    once: bool = False
    note: str | None = None


def find_place(wanted: Breakpoint, fn: Any) -> Place:
    """Where in `fn` to stop.

    A line without code means the next one that has some. A line of another function in the same file is
    taken as it is: the step may call it.

    Raises:
        BreakpointError: `fn` is not written in Python, or the line is nowhere near a function.
    """
    first = first_user_line(fn)
    if wanted.line is None:
        return first
    base = def_line(first.code) if wanted.relative else 0
    return _nearest(wanted, base + wanted.line, first)


def first_user_line(fn: Any) -> Place:
    """The first line that runs inside the function as it was written, below decorators, partials and methods.

    Raises:
        BreakpointError: it is not written in Python.
    """
    code = user_code(fn)
    if code is None:
        raise BreakpointError(
            f"{_name(fn)} is not written in Python: no debugger of Python can stop in it",
            hint="Stop in a step that calls it, or wrap it in a def.",
        )
    line = next(iter(_lines_of(code)), code.co_firstlineno)
    return Place(_file(code), line, code, once=True)


def user_code(fn: Any) -> types.CodeType | None:
    """The code of the innermost function; None if there is none in Python."""
    for _ in range(_FAR_ENOUGH):
        inner = _one_deeper(fn)
        if inner is None:
            break
        fn = inner
    code = getattr(fn, "__code__", None)
    if code is None:
        code = getattr(getattr(type(fn), "__call__", None), "__code__", None)  # noqa: B004
    return code if isinstance(code, types.CodeType) else None


def def_line(code: types.CodeType) -> int:
    """The line of `def`, which is below the decorators (where a code object begins)."""
    start = re.compile(rf"\s*(async\s+)?def\s+{re.escape(code.co_name)}\b")
    lines = linecache.getlines(_file(code))
    last = next(iter(_lines_of(code)), code.co_firstlineno)
    for number in range(code.co_firstlineno, min(last, len(lines)) + 1):
        if start.match(lines[number - 1]):
            return number
    return code.co_firstlineno


def _one_deeper(fn: Any) -> Any:
    if isinstance(fn, functools.partial | functools.partialmethod):
        return fn.func
    if isinstance(fn, types.MethodType | staticmethod | classmethod):
        return fn.__func__
    wrapped = getattr(fn, "__wrapped__", None)
    return wrapped if wrapped is not None else _in_closure(fn)


def _in_closure(fn: Any) -> Any:
    """What a decorator without functools.wraps calls: the one function that a pass-through wrapper encloses."""
    code = getattr(fn, "__code__", None)
    if code is None or code.co_flags & _PASSES_ALL != _PASSES_ALL or code.co_argcount or code.co_kwonlyargcount:
        return None
    held = [cell.cell_contents for cell in fn.__closure__ or () if _is_filled(cell)]
    functions = [value for value in held if isinstance(value, types.FunctionType | types.MethodType)]
    return functions[0] if len(functions) == 1 else None


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _lines_of(code: types.CodeType) -> Iterator[int]:
    """Lines at which the interpreter stops, in the order of the code: what follows RESUME."""
    begun, last = False, None
    for instruction in dis.get_instructions(code):
        line = instruction.positions.lineno if instruction.positions else None
        if begun and line and line != last:
            yield line
            last = line
        begun = begun or instruction.opname == "RESUME"


def _all_lines(code: types.CodeType) -> set[int]:
    """Also of the functions, lambdas and comprehensions inside."""
    found = set(_lines_of(code))
    for inner in _inside(code):
        found |= _all_lines(inner)
    return found


def _inside(code: types.CodeType) -> list[types.CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]


def _end(code: types.CodeType) -> int:
    """The last line of the function."""
    ends = [p.end_lineno for i in dis.get_instructions(code) if (p := i.positions) and p.end_lineno]
    return max([code.co_firstlineno, *ends, *(_end(inner) for inner in _inside(code))])


def _nearest(wanted: Breakpoint, line: int, first: Place) -> Place:
    code, file = first.code, first.file
    lines = _all_lines(code)
    begin, end = code.co_firstlineno, _end(code)
    if line in lines:
        return Place(file, line, code)
    if begin <= line <= end:
        taken = min((n for n in lines if n > line), default=max(lines, default=first.line))
        # Above the body stands what is no loop: there the first line is meant, once.
        once = taken == first.line and line < taken
        return Place(file, taken, code, once, f"line {line} has no code; line {taken} is taken")
    for name, others in _functions_in(file):
        if line in others:
            return Place(file, line, code, note=f"line {line} is in {name}(), outside of {wanted.step}")
    raise BreakpointError(
        f"--break-at {wanted}: line {line} of {os.path.basename(file)} is outside of step {wanted.step!r}, "
        "and no function has code there",
        hint=f"{wanted.step!r} is lines {begin} to {end}; {wanted.step}:+1 is the line below its def.",
    )


def _functions_in(file: str) -> list[tuple[str, set[int]]]:
    """The functions of a source file, with the lines of each."""
    try:
        module = compile("".join(linecache.getlines(file)), file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return []
    found: list[tuple[str, set[int]]] = []
    left = _inside(module)
    while left:
        code = left.pop()
        left += _inside(code)
        if code.co_flags & inspect.CO_NEWLOCALS:
            found.append((code.co_qualname, set(_lines_of(code))))
    return found


def _file(code: types.CodeType) -> str:
    name = code.co_filename
    return name if name.startswith("<") else os.path.abspath(name)


def _name(fn: Any) -> str:
    return str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)
