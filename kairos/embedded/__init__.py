"""A PostgreSQL server of our own, for when no KAIROS_DATABASE_URL is set.

Owns: the public API: `open` a data folder, ask for its `status`, `stop` its server. The server is real
PostgreSQL with nothing of its durability tuned away; it listens on a unix socket only, is shared by all
processes which open the same folder, and stops some seconds after the last of them has gone.
Refuses: to be a way of running PostgreSQL for anything but Kairos; to listen on TCP; to run on Windows.

    with embedded.open(Path(".kairos")) as cluster:
        psycopg.connect(cluster.dsn)
"""

from __future__ import annotations

from pathlib import Path

from kairos.embedded import state, stopping
from kairos.embedded.cluster import Cluster, open_cluster
from kairos.embedded.paths import Layout
from kairos.embedded.state import Status

__all__ = ["Cluster", "Status", "open", "status", "stop"]


def open(data_dir: Path, *, start_timeout: float = 60.0) -> Cluster:
    """Join the server of `data_dir`, starting it and making its database first where need be.

    Returns when the server accepts connections. Raises `EmbeddedPostgresError` when it does not within
    `start_timeout` seconds, or at once when it never will. The server stops KAIROS_EMBEDDED_GRACE seconds
    (10 when unset) after its last user; what counts is the value in the process that started it.
    """
    return open_cluster(data_dir, start_timeout)


def status(data_dir: Path) -> Status:
    """What is known about the server of `data_dir`. Starts and creates nothing."""
    return state.read(Layout.of(data_dir))


def stop(data_dir: Path, *, force: bool = False) -> bool:
    """Stop the server of `data_dir` and wait until it has ended; False when none was running.

    Raises `EmbeddedPostgresError` when processes use it (the caller's own open `Cluster` counts), unless
    `force` is given: then they lose their connections.
    """
    return stopping.stop(Layout.of(data_dir), force=force)
