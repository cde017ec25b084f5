"""The server process: to find, launch, watch and stop it.

Owns: the command line of `postgres`, its pid file, and `server.lock`. The server inherits that lock when
it is launched and every child of it does so in turn, so the kernel itself says whether anything of a
server is left; a pid file only says who it may be.
Refuses: to launch a second server into a folder where anything of a first is alive, and to signal a
process which is not certainly that server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kairos.embedded import files, folders, locate, locks, paths, privileges, process
from kairos.embedded.paths import Layout
from kairos.errors import EmbeddedPostgresError

_FAST_SHUTDOWN: Final = 60.0
_IMMEDIATE_SHUTDOWN: Final = 15.0


@dataclass
class Postmaster:
    """A server process: one of our own children, or one found running."""

    pid: int
    birth: str | None
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def alive(self) -> bool:
        """Whether the process still runs. Collects it when it was our child."""
        if self.child is not None:
            return self.child.poll() is None
        return self.birth is not None and process.birth(self.pid) == self.birth

    def ready(self, layout: Layout) -> bool:
        """Whether it says of itself that it accepts connections."""
        found = read_pid_file(layout.pgdata)
        return found is not None and found.pid == self.pid and found.ready

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process is still the same."""
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


@dataclass(frozen=True)
class PidFile:
    """What `postmaster.pid` says."""

    pid: int
    ready: bool


def read_pid_file(pgdata: Path) -> PidFile | None:
    """The pid file of the server in `pgdata`; None when there is none, or only half of one."""
    lines = (files.read_text(pgdata / "postmaster.pid") or "").splitlines()
    try:
        pid = int(lines[0])
    except (IndexError, ValueError):
        return None
    return PidFile(abs(pid), len(lines) > 7 and lines[7].strip() == "ready")


def find(layout: Layout) -> Postmaster | None:
    """The running server of `layout`, whoever launched it."""
    noted = read_pid_file(layout.pgdata)
    if noted is None or not process.is_server_of(noted.pid, layout.pgdata):
        return None
    return Postmaster(noted.pid, process.birth(noted.pid))


def launch(layout: Layout) -> Postmaster | None:
    """Launch the server and return at once; None when something of an earlier one is still alive."""
    lock = locks.try_acquire(layout.server_lock, locks.EXCLUSIVE)
    if lock is None:
        return None
    try:
        if find(layout) is not None:
            return None
        return _launch(layout, lock)
    finally:
        # Only close: the server now holds the lock through the descriptor it inherited, and an explicit
        # unlock would take it from there too.
        os.close(lock)


def _launch(layout: Layout, lock: int) -> Postmaster:
    identity = privileges.choose(layout.pgdata)
    programs = privileges.reachable(locate.binaries(), identity)
    sockets = folders.make_socket_dir(layout, identity.uid, identity.gid)
    _clear_stale(layout, sockets)
    log = os.open(layout.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            identity.wrap([str(programs.postgres), *_arguments(layout, sockets)]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            umask=0o077,
            pass_fds=(lock,),
            start_new_session=True,
            **identity.popen_options(),
        )
    except OSError as error:
        raise EmbeddedPostgresError(
            f"{programs.postgres} cannot be run: {error.strerror}",
            hint="Reinstall the package with the PostgreSQL programs, or set KAIROS_DATABASE_URL.",
        ) from error
    finally:
        os.close(log)
    return Postmaster(child.pid, process.birth(child.pid), child)


def _arguments(layout: Layout, sockets: Path) -> list[str]:
    """What must hold whatever the configuration files say."""
    quoted = str(sockets).replace('"', '""')
    fixed = {
        "listen_addresses": "",
        "port": str(paths.PORT),
        "unix_socket_directories": f'"{quoted}"',
        "unix_socket_permissions": "0700",
        # All output goes to the one file that the supervisor keeps short.
        "logging_collector": "off",
        "log_destination": "stderr",
    }
    options = [part for name, value in fixed.items() for part in ("-c", f"{name}={value}")]
    return ["-D", str(layout.pgdata), *options]


def _clear_stale(layout: Layout, sockets: Path) -> None:
    """Remove what a killed server left. PostgreSQL would take a reused pid in there for a live server.

    Safe, for we hold `server.lock` and no PostgreSQL works in the folder: nobody is left to own these.
    """
    socket = sockets / f".s.PGSQL.{paths.PORT}"
    for leftover in (layout.pgdata / "postmaster.pid", socket, Path(f"{socket}.lock")):
        leftover.unlink(missing_ok=True)


def shut_down(server: Postmaster, layout: Layout) -> bool:
    """Stop the server and wait for its end: fast first (a checkpoint, no recovery later), then at once.

    Whether it has ended. A server whose data was removed has nothing to check-point.
    """
    stages = ((signal.SIGINT, _FAST_SHUTDOWN), (signal.SIGQUIT, _IMMEDIATE_SHUTDOWN))
    for number, patience in stages if layout.initialised else stages[1:]:
        server.send(number)
        deadline = time.monotonic() + patience
        while server.alive():
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return True
    return False


def kill_orphans(layout: Layout) -> list[int]:
    """Kill what is left of a server whose postmaster is dead, and return the pids.

    Such a process can no longer commit anything that counts, yet no new server may start beside it.
    """
    if find(layout) is not None:
        return []
    orphans = list(process.servers_of(layout.pgdata))
    for pid in orphans:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return orphans
