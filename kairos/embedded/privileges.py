"""Under which identity the server runs, and which folders that identity can reach.

Owns: the answer to "PostgreSQL refuses to be root". In this order: an ordinary user stays what it is;
root enters a user namespace, in which its own files belong to an ordinary user; where the system allows
no namespaces, root switches to the account `postgres` or `nobody`.
Refuses: to create accounts and to change the mode of any folder on the way. What the identity cannot
reach is put, or copied, to a folder of ours which it can.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from kairos.embedded import locate, userns
from kairos.errors import EmbeddedPostgresError

# Internal switches, for tests.
NO_USERNS: Final = "KAIROS_EMBEDDED_NO_USERNS"
SYSTEM_DIR: Final = "KAIROS_EMBEDDED_SYSTEM_DIR"

_PASSED_ON: Final = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Mode(Enum):
    """How a program of PostgreSQL gets an identity that it accepts."""

    SAME = "as the user who runs Kairos"
    NAMESPACE = "in a user namespace"
    SWITCH = "as another account"


@dataclass(frozen=True)
class Identity:
    """Who runs the server: `uid` and `gid` as seen from outside, `inner` as the server itself sees them."""

    mode: Mode
    uid: int
    gid: int
    inner: tuple[int, int]

    def wrap(self, argv: list[str]) -> list[str]:
        """The command that runs `argv` under this identity."""
        if self.mode is not Mode.NAMESPACE:
            return argv
        enter = [sys.executable, "-I", "-S", "-B", userns.__file__]
        return [*enter, str(self.inner[0]), str(self.inner[1]), *argv]

    def popen_options(self) -> dict[str, Any]:
        """What `subprocess.Popen` needs besides the command."""
        # A clean environment: PG* variables of the user are for clients and would mislead the server.
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        options: dict[str, Any] = {"env": {**kept, "LC_ALL": "C"}, "close_fds": True}
        if self.mode is Mode.SWITCH:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def own(self, path: Path) -> None:
        """Hand `path` to the server's account, when that is not ours."""
        if self.mode is Mode.SWITCH:
            os.chown(path, self.uid, self.gid)

    def can_reach(self, path: Path) -> bool:
        """Whether this identity may enter `path` and all folders above it.

        Told by the mode bits, for root in a namespace has no other rights than the owner of its files.
        """
        if self.mode is Mode.SAME:
            return True
        return all(self._may_enter(folder.stat()) for folder in (path, *path.parents))

    def _may_enter(self, facts: os.stat_result) -> bool:
        if facts.st_uid == self.uid:
            return bool(facts.st_mode & stat.S_IXUSR)
        if facts.st_gid == self.gid:
            return bool(facts.st_mode & stat.S_IXGRP)
        return bool(facts.st_mode & stat.S_IXOTH)


def choose(pgdata: Path | None) -> Identity:
    """The identity for a new cluster (None), or for the one in `pgdata`: its files decide."""
    uid, gid = os.geteuid(), os.getegid()
    if pgdata is not None and uid == 0 and (facts := pgdata.stat()).st_uid != 0:
        return Identity(Mode.SWITCH, facts.st_uid, facts.st_gid, (facts.st_uid, facts.st_gid))
    # initdb looks its user up; a container may run under a uid which has no account.
    if uid != 0 and _has_account(uid):
        return Identity(Mode.SAME, uid, gid, (uid, gid))
    account = _ordinary_account()
    if _namespaces_allowed(account):
        return Identity(Mode.NAMESPACE, uid, gid, (account.pw_uid, account.pw_gid))
    if uid == 0 and pgdata is None:
        return Identity(Mode.SWITCH, account.pw_uid, account.pw_gid, (account.pw_uid, account.pw_gid))
    raise EmbeddedPostgresError(
        f"PostgreSQL cannot run as uid {uid} here, and this system allows no user namespaces",
        hint="Run as an ordinary user that has an account, or set KAIROS_DATABASE_URL.",
        pgdata=pgdata,
    )


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _ordinary_account() -> pwd.struct_passwd:
    for name in ("postgres", "_postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root, and there is no account `postgres` or `nobody` to run it",
        hint="Run as an ordinary user, or set KAIROS_DATABASE_URL.",
    )


def _namespaces_allowed(account: pwd.struct_passwd) -> bool:
    if not sys.platform.startswith("linux") or os.environ.get(NO_USERNS):
        return False
    inside = Identity(Mode.NAMESPACE, os.geteuid(), os.getegid(), (account.pw_uid, account.pw_gid))
    probe = inside.wrap([sys.executable, "-I", "-S", "-c", ""])
    # Reaching the interpreter is not the question (126 and the like): only a refusal is.
    return subprocess.run(probe, capture_output=True, check=False).returncode != userns.REFUSED


def system_dir() -> Path:
    """Our folder outside of all users' folders, which every account may pass through (0711)."""
    folder = Path(os.environ.get(SYSTEM_DIR) or "/var/lib/kairos-embedded")
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise EmbeddedPostgresError(
            f"{folder} is not a folder of uid {os.geteuid()}",
            hint="Look who made it; Kairos needs that name, or set KAIROS_DATABASE_URL.",
        )
    folder.chmod(0o711)
    return folder


def reachable(found: locate.Binaries, identity: Identity) -> locate.Binaries:
    """The same programs at a place where `identity` can run them: copied once when they are out of reach."""
    if identity.can_reach(found.postgres) and identity.can_reach(found.prefix / "share"):
        return found
    folder = system_dir() / f"postgresql-{found.version() or 'unknown'}"
    package = found.prefix.parent.name
    copy = locate.Binaries(folder / package / found.prefix.name, folder / found.libraries.name)
    if not folder.exists():
        _copy(found, folder)
    return copy


def _copy(found: locate.Binaries, folder: Path) -> None:
    """Copy what a server needs to a draft, and rename that: an interrupted copy is never used."""
    draft = Path(f"{folder}.{os.getpid()}.new")
    shutil.rmtree(draft, ignore_errors=True)
    skip = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "man", "doc", "__pycache__")
    shutil.copytree(found.prefix.parent, draft / found.prefix.parent.name, ignore=skip)
    if found.libraries.is_dir():
        shutil.copytree(found.libraries, draft / found.libraries.name)
    for path in (draft, *draft.rglob("*")):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o555 if path.is_dir() else 0o444))
    try:
        draft.rename(folder)
    except OSError:
        # Another process was first; its copy is as good.
        shutil.rmtree(draft, ignore_errors=True)
