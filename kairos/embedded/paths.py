"""The files of one embedded cluster: what they are called, and where the sockets go.

Owns: the layout of a data folder.
Refuses: to create or change any of it.

    DATA_DIR/                 0700 (0711 when the server runs as another account)
      .gitignore              `*`
      instance                a random name, so that a folder made anew is another instance
      start.lock              held while somebody initialises or starts
      users.lock              held, shared, by each process which uses the server
      supervisor.lock         held by the supervisor; holds its pid
      postgres.log            the server's log, postgres.log.1 the one before
      supervisor.log
      cluster/                made whole elsewhere and renamed to here; or a link to the like
        pgdata/               the database itself
        run/                  the sockets, when their path is short enough
        server.lock           held by the server and by all of its children
        admin.password        0600
        kairos.password       0600
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kairos.embedded.files import read_text

PORT: Final = 5432
"""Only the name of the socket file: no TCP port is ever opened."""

# macOS has the shorter limit (104 bytes with the final zero); one limit keeps both alike.
_SOCKET_PATH_LIMIT: Final = 103


@dataclass(frozen=True)
class Layout:
    """The paths within one data folder, which is absolute and free of links."""

    data_dir: Path

    @classmethod
    def of(cls, data_dir: Path) -> Layout:
        """The layout of `data_dir`, which need not exist."""
        return cls(Path(os.path.realpath(data_dir.expanduser())))

    @property
    def start_lock(self) -> Path:
        """Held by the one who initialises or starts."""
        return self.data_dir / "start.lock"

    @property
    def users_lock(self) -> Path:
        """Held, shared, by each user."""
        return self.data_dir / "users.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor."""
        return self.data_dir / "supervisor.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the server; lies beside the data, so that two links to it still share one lock."""
        return self.home / "server.lock"

    @property
    def log(self) -> Path:
        """The log of the server."""
        return self.data_dir / "postgres.log"

    @property
    def supervisor_log(self) -> Path:
        """The log of the supervisor."""
        return self.data_dir / "supervisor.log"

    @property
    def cluster(self) -> Path:
        """The finished cluster, or a link to it. It appears in one step, so to exist is to be whole."""
        return self.data_dir / "cluster"

    @property
    def home(self) -> Path:
        """Where the cluster really is."""
        return Path(os.path.realpath(self.cluster))

    @property
    def pgdata(self) -> Path:
        """The folder that PostgreSQL itself owns."""
        return self.home / "pgdata"

    @property
    def initialised(self) -> bool:
        """Whether the cluster has been made."""
        return (self.pgdata / "PG_VERSION").is_file()

    def password_file(self, role: str) -> Path:
        """The file with the password of `role`."""
        return self.home / password_name(role)

    @property
    def name(self) -> str:
        """A short name of this very folder, for what has to lie outside of it."""
        identity = f"{read_text(self.data_dir / 'instance')}\0{self.data_dir}"
        return hashlib.sha256(os.fsencode(identity)).hexdigest()[:16]

    @property
    def socket_dir(self) -> Path:
        """The folder of the sockets: within the cluster, or under /tmp when that path does not fit."""
        inside = self.home / "run"
        return inside if _fits(inside) else Path("/tmp") / f"kairos-{self.name}"


def password_name(role: str) -> str:
    """The name of the file with the password of `role`: `admin.password`, `kairos.password`."""
    return f"{role.removeprefix('kairos_')}.password"


def _fits(folder: Path) -> bool:
    """Whether libpq and the kernel both take `folder` for sockets. (A comma separates hosts in libpq.)"""
    length = len(os.fsencode(folder / f".s.PGSQL.{PORT}"))
    return length <= _SOCKET_PATH_LIMIT and "," not in str(folder) and str(folder).isprintable()
