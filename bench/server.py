"""The embedded server of a bench run: fresh databases, and facts about the machine."""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import kairos
from kairos import embedded
from kairos.store.migrate import allow_own_tables, migrate

_COUNT = itertools.count(1)
_TEMPLATE = "bench_template"


@dataclass(frozen=True)
class Place:
    """One fresh database: `dsn` is for workers and clients, `admin` is the superuser's."""

    dsn: str
    admin: str
    postmaster: int

    @property
    def url(self) -> str:
        """The superuser's address as a URL, which every driver understands."""
        parts = conninfo_to_dict(self.admin)
        user, password = quote(str(parts["user"]), safe=""), quote(str(parts.get("password") or ""), safe="")
        host, port = quote(str(parts["host"]), safe=""), parts.get("port") or 5432
        return f"postgresql://{user}:{password}@/{parts['dbname']}?host={host}&port={port}"

    @contextmanager
    def watch(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection for counters and for looking; autocommit."""
        with psycopg.connect(self.admin, autocommit=True) as conn:
            yield conn


@dataclass(frozen=True)
class Server:
    """A Postgres on which databases can be made. `postmaster`: its pid, 0 if unknown."""

    dsn: str
    admin: str
    postmaster: int

    @contextmanager
    def fresh(self, *, with_schema: bool = True) -> Iterator[Place]:
        """A new database, dropped afterwards; `with_schema`: cloned from a migrated one. A checkpoint comes before."""
        name = f"bench_{os.getpid()}_{next(_COUNT)}"
        with psycopg.connect(self.admin, autocommit=True) as conn:
            if with_schema:
                self._make_template(conn)
            base = _TEMPLATE if with_schema else "template0"
            made = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(base))
            conn.execute(made)
            conn.execute("checkpoint")
        try:
            yield Place(make_conninfo(self.dsn, dbname=name), make_conninfo(self.admin, dbname=name), self.postmaster)
        finally:
            with psycopg.connect(self.admin, autocommit=True) as conn:
                conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def _make_template(self, conn: psycopg.Connection[Any]) -> None:
        if conn.execute("select from pg_database where datname = %s", (_TEMPLATE,)).fetchone() is None:
            conn.execute(sql.SQL("create database {}").format(sql.Identifier(_TEMPLATE)))
            admin = make_conninfo(self.admin, dbname=_TEMPLATE)
            migrate(admin, grant_to=None if self.admin == self.dsn else "kairos")
            if self.admin != self.dsn:
                allow_own_tables(admin, "kairos")

    def facts(self) -> dict[str, Any]:
        """What the numbers depend on, for the head of the report."""
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
        with psycopg.connect(self.admin, autocommit=True) as conn:
            values = [conn.execute("select current_setting(%s)", (n,)).fetchone() for n in names]
            folder = Path((conn.execute("show data_directory").fetchone() or ("/",))[0])
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "kairos": kairos.__version__,
            "commit": _commit(),
            "python": platform.python_version(),
            "postgres": {name: value[0] for name, value in zip(names, values, strict=True) if value},
            "cpus": os.cpu_count(),
            "cpu": _cpu_model(),
            "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
            "system": f"{platform.system()} {platform.release()}",
            "fdatasync_us": round(_sync_time(folder.parent.parent)),
        }


@contextmanager
def embedded_server() -> Iterator[Server]:
    """A server of our own in a throw-away folder (TMPDIR says where: a disk, not memory), stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="kairos-bench-"))
    data = folder / "data"
    try:
        with embedded.open(data) as cluster:
            yield Server(cluster.dsn, cluster.admin_dsn, embedded.status(data).postmaster_pid or 0)
    finally:
        embedded.stop(data, force=True)
        shutil.rmtree(folder, ignore_errors=True)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    head = Path(__file__).resolve().parents[1] / ".git"
    if not head.exists():
        return ""
    import subprocess

    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=head.parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _sync_time(folder: Path) -> float:
    """Median microseconds of one fdatasync of 8 kB in this folder: the price of a commit here."""
    path = folder / f"sync-{os.getpid()}"
    times = []
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            for _ in range(200):
                began = time.perf_counter()
                os.pwrite(fd, b"x" * 8192, 0)
                os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
                times.append((time.perf_counter() - began) * 1e6)
        finally:
            os.close(fd)
    finally:
        path.unlink(missing_ok=True)
    return statistics.median(times)
