"""Which variables of this environment an error in the child asks for; they were not passed on. Names, no values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MISSING_FIELD: Final = re.compile(r"^(\w+)\n +Field required", re.MULTILINE)
_SHORTEST: Final = 3


def asked_for(error: str, withheld: Iterable[str]) -> list[str]:
    """Those of `withheld` that the text of an error names, as `KeyError: 'SHOP_REGION'` or as a missing setting.

    A settings class (pydantic-settings) names its field: `region` stands for REGION, or for SHOP_REGION with a prefix.
    """
    words = set(_WORD.findall(error))
    fields = {field.upper() for field in _MISSING_FIELD.findall(error)}
    return sorted(
        name
        for name in withheld
        if len(name) >= _SHORTEST
        and (name in words or any(name.upper() == field or name.upper().endswith(f"_{field}") for field in fields))
    )


def hint_of(error: str, withheld: Iterable[str]) -> str:
    """What to do about it; empty if the error names none of them."""
    names = asked_for(error, withheld)[:4]
    if not names:
        return ""
    given = " ".join(f"--env {name}" for name in names)
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {verb} set here, but a replay passes no variables on unless they are named: {given}."
