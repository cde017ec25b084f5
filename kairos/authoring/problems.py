"""Turns what pydantic says about a wrong value into one readable text.

One problem stays on the line; several become a list. Inputs are shown bounded, without running their own
code, and not at all under a name that is sensitive.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import ValidationError

from kairos.authoring.display import clean, show
from kairos.authoring.redaction import PLACEHOLDER, Redactor
from kairos.authoring.secrets import NOT_A_REFERENCE

MAX_PROBLEMS = 20
_SHOWN = 80
_MODULES = re.compile(r"(?:[A-Za-z_]\w*\.|<locals>\.)+(?=[A-Za-z_])")


def describe_problems(error: ValidationError, redactor: Redactor) -> str:
    """`amount_cents: Input should be a valid integer (got 'abc')`, one line for each problem if several."""
    found = error.errors(include_url=False, include_context=False)
    lines = [_line(problem, redactor) for problem in found[:MAX_PROBLEMS]]
    if len(found) > MAX_PROBLEMS:
        lines.append(f"and {len(found) - MAX_PROBLEMS} more problems")
    return lines[0] if len(lines) == 1 else "".join(f"\n  - {line}" for line in lines)


def type_label(annotation: Any) -> str:
    """An annotation as its author wrote it, without module names."""
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    return clean(_MODULES.sub("", inspect.formatannotation(annotation)), 120)


def _line(problem: Any, redactor: Redactor) -> str:
    location = problem["loc"]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    text = f"{path}: {problem['msg']}" if path else problem["msg"]
    if problem["type"] == "missing":
        return clean(text, 500)
    hidden = problem["type"] == NOT_A_REFERENCE or any(isinstance(p, str) and redactor.hides(p) for p in location)
    got = PLACEHOLDER if hidden else show(problem["input"], _SHOWN, redactor)
    return clean(f"{text} (got {got})", 500)
