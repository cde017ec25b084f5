"""Which local names each line of a function reads or writes, from its bytecode: only those need a new look."""

from __future__ import annotations

import dis
from dataclasses import dataclass
from types import CodeType
from typing import Final

_READS: Final = ("LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF", "LOAD_NAME", "LOAD_CLOSURE")
_WRITES: Final = ("STORE_FAST", "STORE_DEREF", "STORE_NAME", "DELETE_FAST", "DELETE_DEREF", "DELETE_NAME")


@dataclass(frozen=True, slots=True)
class Touched:
    """Names of locals.

    Attributes:
        names: those that the line reads or writes, and those that may change at any line.
        both: those that it reads and writes: the object that was there before may have been changed, too.
    """

    names: tuple[str, ...]
    both: frozenset[str]


def touched(code: CodeType) -> dict[int, Touched]:
    """What each line of `code` touches.

    At any line may change: variables shared with inner functions, and those that some line deletes (the name
    behind `except ... as` is deleted by instructions that belong to no line of their own).
    """
    reads: dict[int, set[str]] = {}
    writes: dict[int, set[str]] = {}
    anywhere = {*code.co_cellvars, *code.co_freevars}
    line = code.co_firstlineno
    for step in dis.get_instructions(code):
        line = (step.positions.lineno if step.positions else None) or line
        pair = isinstance(step.argval, tuple)
        names = {name for name in (step.argval if pair else (step.argval,)) if type(name) is str}
        reads.setdefault(line, set())
        writes.setdefault(line, set())
        is_write = step.opname.startswith(_WRITES)
        # One instruction for two names may read one and write the other: taken as both.
        if step.opname.startswith(_READS) or (pair and is_write):
            reads[line] |= names
        if is_write:
            writes[line] |= names
        if step.opname.startswith("DELETE_"):
            anywhere |= names
    return {
        at: Touched(tuple(sorted(reads[at] | writes[at] | anywhere)), frozenset(reads[at] & writes[at])) for at in reads
    }
