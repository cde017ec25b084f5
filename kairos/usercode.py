"""Tells the user's code from everybody else's: by the file it stands in."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Final

OWN: Final = str(Path(__file__).resolve().parent) + "/"
"""Where Kairos is."""
_LIBRARIES: Final = tuple(
    {f"{Path(sysconfig.get_path(name)).resolve()}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def is_user_file(name: str) -> bool:
    """Whether code in this file belongs to the user: not Python's, an installed library's, or Kairos'."""
    return not name.startswith(_LIBRARIES) and not name.startswith((OWN, "<frozen"))
