"""What may be a name, and the nearest valid name for a wrong one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from kairos.errors import DefinitionError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,119}")


def check_name(name: object, what: str) -> str:
    """Return `name` if it may name a workflow, step, job, queue or app.

    ASCII letters, digits, `_`, `.`, `-`; starts with a letter or `_`; at most 120 characters.

    Raises:
        DefinitionError: otherwise; `what` says what was being named.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = ascii(name)
        raise DefinitionError(
            f"{what} name {shown[:80]} is not valid",
            hint="Use ASCII letters (a-z, A-Z), digits, '_', '-' and '.', starting with a letter or '_'; at most 120.",
            value=name,
        )
    return name


def nearest(name: str, valid: Iterable[str]) -> str:
    """A sentence that proposes the nearest valid name, or lists what there is."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.55)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Valid here: {', '.join(sorted(names)[:12])}." if names else "There is nothing to name here yet."
