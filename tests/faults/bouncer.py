"""A pgbouncer of one's own in front of a test database."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.faults.processes import until
from tests.faults.proxy import ChaosProxy

PROGRAM = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Bouncer:
    """Runs until `close`. It reaches the server through a proxy: as root it must be another user, who may not enter
    the folder of the server's socket."""

    def __init__(self, dsn: str, folder: Path, mode: str, *, pool_size: int) -> None:
        assert PROGRAM is not None
        self._behind = ChaosProxy(dsn).__enter__()
        upstream, given = conninfo_to_dict(self._behind.dsn), conninfo_to_dict(dsn)
        port = _free_port()
        config = folder / f"pgbouncer_{mode}.ini"
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={upstream['port']} user={given['user']} "
            f"password={given['password']}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {mode}\ndefault_pool_size = {pool_size}\nmax_client_conn = 200\n"
        )
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable")
        config.chmod(0o644)
        with (folder / f"pgbouncer_{mode}.log").open("wb") as log, config.open("rb") as stdin:
            self._process = subprocess.Popen(
                [PROGRAM, "/dev/stdin"], stdin=stdin, stdout=log, stderr=log, **_another_user()
            )
        until(lambda: self._process.poll() is not None or _listens(port), "pgbouncer listens")
        assert self._process.poll() is None, (folder / f"pgbouncer_{mode}.log").read_text()

    def close(self) -> None:
        """End it, and the proxy."""
        self._process.terminate()
        self._process.wait(10)
        self._behind.__exit__(None, None, None)


def _another_user() -> dict[str, Any]:
    return {"user": "nobody"} if os.geteuid() == 0 else {}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
