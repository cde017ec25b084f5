"""A user's side of the server: to open it, wherever it stands, and to hold it up.

Owns: the order of an open (join the users, make the cluster if need be, see to a supervisor, wait for a
connection), and the connection strings.
Refuses: to start or stop the server itself; that is the supervisor's.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from kairos.embedded import files, folders, initdb, locate, locks, logfile, paths, postmaster, spawn, state
from kairos.embedded.paths import Layout
from kairos.errors import EmbeddedPostgresError

_PAUSE: Final = 0.03
# The server is up for these, only not for us at this moment.
_FULL: Final = ("too many clients", "remaining connection slots")
_HOPELESS: Final = (
    "password authentication failed",
    "no pg_hba.conf entry",
    f'database "{initdb.DATABASE}" does not exist',
)


class Cluster:
    """A running embedded server, held up by this process until `close`, or until the process ends.

    A child made by a bare `os.fork` shares the hold: the server then stays until both have closed or
    ended. Programs started by `subprocess` do not.
    """

    def __init__(self, layout: Layout, users_fd: int, *, created: bool) -> None:
        """Made by `kairos.embedded.open` alone."""
        self._layout = layout
        self._fd: int | None = users_fd
        self._created = created
        self._dsn = dsn(layout, initdb.ROLE)
        self._admin_dsn = dsn(layout, initdb.ADMIN)

    @property
    def dsn(self) -> str:
        """The address for the ordinary role `kairos`, with its password."""
        return self._dsn

    @property
    def admin_dsn(self) -> str:
        """The address for the owner and superuser `kairos_admin`, with its password."""
        return self._admin_dsn

    @property
    def hold_fd(self) -> int | None:
        """The descriptor by which this process holds the server up. A process that inherits it shares the hold."""
        return self._fd

    @property
    def data_dir(self) -> Path:
        """The data folder, absolute and free of links."""
        return self._layout.data_dir

    @property
    def created(self) -> bool:
        """Whether this very call made the cluster."""
        return self._created

    def close(self) -> None:
        """Stop holding the server up. It stops some seconds after the last user has closed."""
        if self._fd is not None:
            # Closed, not unlocked: an unlock would also take the hold from a forked process.
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._fd is None else "open"
        return f"Cluster({str(self.data_dir)!r}, {state})"


def dsn(layout: Layout, role: str) -> str:
    """The address for `role`. Holds the password; not for logs."""
    password = files.read_text(layout.password_file(role))
    if not password:
        raise EmbeddedPostgresError(
            f"the password file {layout.password_file(role)} is missing or empty",
            hint="Restore it, or remove the data folder to begin with an empty database.",
            data_dir=layout.data_dir,
        )
    host = quote(str(layout.socket_dir), safe="")
    return f"postgresql://{role}:{quote(password, safe='')}@/{initdb.DATABASE}?host={host}&port={paths.PORT}"


def open_cluster(data_dir: Path, start_timeout: float) -> Cluster:
    """Join the server of `data_dir`, and make and start it first where need be."""
    deadline = time.monotonic() + start_timeout
    locate.check_platform()
    layout = Layout.of(data_dir)
    folders.prepare(layout)
    try:
        return _join(layout, deadline, start_timeout)
    except OSError as error:
        raise EmbeddedPostgresError(
            f"the data folder {layout.data_dir} cannot be used: {error}",
            hint="Free some disk space, or fix the permissions of what it holds.",
            data_dir=layout.data_dir,
        ) from error


def _join(layout: Layout, deadline: float, timeout: float) -> Cluster:
    """Hold the server up first, then see to it that there is one."""
    fd = locks.acquire(layout.users_lock, locks.SHARED, deadline)
    if fd is None:
        raise _late(layout, timeout, "the server is being stopped and has not ended")
    try:
        return Cluster(layout, fd, created=_bring_up(layout, deadline, timeout))
    except BaseException:
        os.close(fd)
        raise


def _bring_up(layout: Layout, deadline: float, timeout: float) -> bool:
    """Return when the server answers; whether the cluster was made on the way."""
    created = False
    problem: str | None = "nothing has answered yet"
    while True:
        supervised = layout.initialised and locks.is_held(layout.supervisor_lock)
        if supervised and (problem := unreachable(layout)) is None:
            return created
        if not supervised and (lock := locks.try_acquire(layout.start_lock, locks.EXCLUSIVE)) is not None:
            try:
                created = _start(layout, lock, deadline) or created
            finally:
                os.close(lock)
        elif time.monotonic() >= deadline:
            raise _late(layout, timeout, problem)
        else:
            time.sleep(_PAUSE)


def _start(layout: Layout, lock: int, deadline: float) -> bool:
    """Under `start.lock`: make the cluster and start a supervisor, each when there is none."""
    created = False
    if not layout.initialised:
        initdb.create(layout, lock)
        created = True
    spawn.supervisor(layout, deadline)
    return created


def unreachable(layout: Layout) -> str | None:
    """Why the server does not answer; None when it does."""
    noted = postmaster.read_pid_file(layout.pgdata)
    if noted is None or not noted.ready:
        # Not to be asked yet: each refusal would be a line in its log.
        return "it is starting" if noted else "it has not been started"
    import psycopg

    try:
        psycopg.connect(dsn(layout, initdb.ROLE), connect_timeout=5, autocommit=True).close()
    except psycopg.OperationalError as error:
        text = str(error).strip()
        if any(words in text for words in _FULL):
            return None
        if any(words in text for words in _HOPELESS):
            raise EmbeddedPostgresError(
                f"the embedded server in {layout.data_dir} does not know us: {text}",
                hint=f"The files in {layout.home} do not belong together; restore or remove them.",
                data_dir=layout.data_dir,
            ) from None
        return text
    return None


def _late(layout: Layout, timeout: float, problem: str | None) -> EmbeddedPostgresError:
    said = files.tail(layout.log)
    return EmbeddedPostgresError(
        f"the embedded server in {layout.data_dir} did not answer within {timeout:g} s: {problem}",
        hint=f"It may be recovering: then wait and try again. Else: {logfile.advice(said, layout.log)}",
        data_dir=layout.data_dir,
        supervisor_pid=state.supervisor_pid(layout),
        server_log=said,
        supervisor_log=files.tail(layout.supervisor_log),
    )
