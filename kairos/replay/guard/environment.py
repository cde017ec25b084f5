"""The environment of the child: what a program needs to run, and nothing that opens a door.

Owns: which variables pass. A list of what is let through, not of what is held back: a password may have any name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

MARK: Final = "KAIROS_REPLAY"
"""Set to 1 in the child, so that an app can tell that it is replayed."""

_PASSED_ON: Final = frozenset({
    "PATH", "LANG", "LANGUAGE", "TZ", "TZDIR", "USER", "LOGNAME", "SHELL", "TERM", "COLORTERM", "TERMINFO",
    "TERMINFO_DIRS", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "VIRTUAL_ENV",
    "CONDA_PREFIX", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONPATH",
    "PYTHONHOME", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONWARNINGS", "PYTHONUNBUFFERED",
    "PYTHONBREAKPOINT", "PYTHONASYNCIODEBUG", "PYTHONFAULTHANDLER", "PYTHONDEVMODE", "PYTHONOPTIMIZE",
    "PYTHONSAFEPATH", "PYTHON_COLORS", "PYTHON_GIL", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
})  # fmt: skip
_SECRET_NAME: Final = re.compile(r"TOKEN|KEY|SECRET|PASSW|CREDENTIAL|DSN|DATABASE|^PG|^AWS_|PROXY", re.IGNORECASE)
_SECRET_VALUE: Final = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def scrub_environment(environ: Mapping[str, str], keep: Iterable[str] = (), *, scratch: Path) -> dict[str, str]:
    """The variables of `environ` that a replay passes on, and those named in `keep`.

    HOME and TMPDIR become `scratch`, an absolute folder: settings, caches and credentials of the home folder are out
    of sight, and what libraries write there is thrown away.
    """
    wanted = set(keep)
    kept = {
        name: value for name, value in environ.items() if name in wanted or name in _PASSED_ON or name.startswith("LC_")
    }
    ours = {"HOME": str(scratch), "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1", "PYTHON_HISTORY": "/dev/null"}
    return {**ours, **kept, MARK: "1"}


def left_over(environ: Mapping[str, str], keep: Iterable[str] = ()) -> list[str]:
    """Variables that look like secrets and that nobody asked for, by name."""
    wanted = set(keep)
    return sorted(
        name
        for name, value in environ.items()
        if name not in wanted and name not in _PASSED_ON and (_SECRET_NAME.search(name) or _SECRET_VALUE.search(value))
    )
