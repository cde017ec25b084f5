"""What an open gives: one server for all, closed to everybody else."""

from __future__ import annotations

import itertools
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from embedded_servers import kill_all, query, wait_until

from kairos import embedded
from kairos.embedded.paths import Layout
from kairos.errors import EmbeddedPostgresError


def modes(path: Path) -> dict[Path, int]:
    return {folder: stat.S_IMODE(folder.stat().st_mode) for folder in (path, *path.parents)}


def test_the_first_open_creates_and_the_second_joins_the_same_server(folder: Path) -> None:
    with embedded.open(folder / "data") as first, embedded.open(folder / "data") as second:
        assert first.created
        assert not second.created
        assert first.data_dir == folder / "data"
        assert query(first.dsn, "SELECT pg_postmaster_start_time()") == query(
            second.dsn, "SELECT pg_postmaster_start_time()"
        )


def test_processes_that_open_a_fresh_folder_at_once_share_one_database(folder: Path, users: Any) -> None:
    started = [users(folder / "data") for _ in range(4)]
    answers = [user.opened() for user in started]
    assert sum(answer["created"] for answer in answers) == 1
    assert len({answer["dsn"] for answer in answers}) == 1
    assert len({query(answer["dsn"], "SELECT pg_postmaster_start_time()") for answer in answers}) == 1
    assert embedded.status(folder / "data").users == 4
    log = (folder / "data" / "supervisor.log").read_text()
    assert log.count("launched the server") == 1


def test_the_server_stops_when_the_last_user_has_left_and_the_data_stays(data_dir: Path, users: Any) -> None:
    other = users(data_dir)
    other.opened()
    with embedded.open(data_dir) as cluster:
        query(cluster.admin_dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        pid = embedded.status(data_dir).postmaster_pid
    other.end()
    wait_until(lambda: not embedded.status(data_dir).running, "the server has stopped")
    wait_until(lambda: embedded.status(data_dir).supervisor_pid is None, "the supervisor has left")
    with embedded.open(data_dir) as cluster:
        assert query(cluster.admin_dsn, "SELECT answer FROM kept") == 42
        assert embedded.status(data_dir).postmaster_pid != pid
    assert "database system was shut down" in (data_dir / "postgres.log").read_text()


def test_closing_twice_is_fine_and_the_text_of_a_cluster_shows_no_password(data_dir: Path) -> None:
    cluster = embedded.open(data_dir)
    password = (data_dir / "cluster" / "kairos.password").read_text()
    assert password in cluster.dsn
    assert password not in repr(cluster)
    cluster.close()
    cluster.close()
    assert "closed" in repr(cluster)


def test_a_user_who_does_not_close_but_ends_counts_no_more(data_dir: Path, users: Any) -> None:
    user = users(data_dir)
    user.opened()
    user.kill()
    wait_until(lambda: not embedded.status(data_dir).running, "the server has stopped")


def test_the_two_roles_have_the_rights_that_their_names_say(data_dir: Path) -> None:
    with embedded.open(data_dir) as cluster:
        rights = "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
        assert query(cluster.dsn, "SELECT current_user || '@' || current_database()") == "kairos@kairos"
        assert query(cluster.dsn, rights) is False
        assert query(cluster.admin_dsn, "SELECT current_user::text") == "kairos_admin"
        assert query(cluster.admin_dsn, rights) is True


def test_nothing_of_the_durability_is_tuned_away(data_dir: Path) -> None:
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "max_connections": "200",
        "password_encryption": "scram-sha-256",
        "listen_addresses": "",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "jit": "off",
    }
    with embedded.open(data_dir) as cluster, psycopg.connect(cluster.dsn) as connection:
        found = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in expected}  # type: ignore[index]
        (locale,) = connection.execute(  # type: ignore[misc]
            "SELECT datlocale FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    assert found == expected
    assert locale == "C.UTF-8"


def test_nobody_gets_in_without_the_password(data_dir: Path) -> None:
    with embedded.open(data_dir):
        host = embedded.status(data_dir).socket_dir
        for role, password in itertools.product(("kairos", "kairos_admin"), ("", "guess")):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(host=str(host), user=role, password=password, dbname="kairos")


def test_no_file_is_open_to_other_users_and_the_folders_above_are_left_alone(folder: Path) -> None:
    base = folder / "a" / "b"
    base.mkdir(parents=True)
    base.chmod(0o750)
    before = modes(base)
    with embedded.open(base / "data"):
        assert modes(base) == before
        assert stat.S_IMODE((base / "data").stat().st_mode) == 0o700
        secrets = list((base / "data" / "cluster").glob("*.password"))
        assert len(secrets) == 2
        for secret in secrets:
            assert stat.S_IMODE(secret.stat().st_mode) == 0o600
            assert secret.read_text() not in (base / "data" / "postgres.log").read_text()
        sockets = embedded.status(base / "data").socket_dir
        assert sockets is not None
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["long-" + "x" * 120, 'it\'s "a" folder', "one,two"], ids=["long", "quotes", "comma"])
def test_any_path_will_do_for_a_data_folder(folder: Path, data_dir: Path, name: str) -> None:
    moved = data_dir.rename(folder / name)
    with embedded.open(moved) as cluster:
        assert query(cluster.dsn, "SELECT 1") == 1
        sockets = embedded.status(moved).socket_dir
        assert sockets is not None
        assert len(str(sockets / ".s.PGSQL.5432")) < 104
    embedded.stop(moved)
    assert sockets.exists() == (sockets.parent == moved / "cluster")


def test_a_socket_folder_which_another_made_is_refused(folder: Path, data_dir: Path) -> None:
    moved = data_dir.rename(folder / ("x" * 120))
    sockets = Layout.of(moved).socket_dir
    sockets.mkdir(mode=0o777)
    sockets.chmod(0o777)
    try:
        with pytest.raises(EmbeddedPostgresError, match="socket folder"):
            embedded.open(moved)
    finally:
        sockets.rmdir()


def test_an_open_folder_full_of_other_things_is_refused(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data").chmod(0o777)
    (folder / "data" / "thesis.txt").touch()
    with pytest.raises(EmbeddedPostgresError, match="holds other files"):
        embedded.open(folder / "data")
    assert sorted(os.listdir(folder / "data")) == ["thesis.txt"]


def test_an_empty_folder_is_closed_to_others_and_used(folder: Path, data_dir: Path) -> None:
    data_dir.chmod(0o755)
    with embedded.open(data_dir):
        assert not stat.S_IMODE(data_dir.stat().st_mode) & 0o066


def test_the_server_holds_none_of_the_locks_that_users_and_supervisors_hold(data_dir: Path) -> None:
    with embedded.open(data_dir):
        pid = embedded.status(data_dir).postmaster_pid
        held = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    locks = {Path(name).name for name in held if name.endswith(".lock")}
    assert locks == {"server.lock"}


def test_a_program_that_a_user_starts_does_not_hold_the_server_up(data_dir: Path) -> None:
    cluster = embedded.open(data_dir)
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        cluster.close()
        wait_until(lambda: not embedded.status(data_dir).running, "the server has stopped")
    finally:
        child.kill()
        child.wait()


def test_status_starts_and_creates_nothing(folder: Path) -> None:
    status = embedded.status(folder / "nothing" / "here")
    assert (status.running, status.postmaster_pid, status.supervisor_pid) == (False, None, None)
    assert (status.users, status.version, status.socket_dir) == (0, None, None)
    assert not any(folder.iterdir())


def test_status_tells_the_facts_of_a_running_server(data_dir: Path) -> None:
    with embedded.open(data_dir):
        status = embedded.status(data_dir)
    assert status.running
    assert status.users == 1
    assert (status.version or "").startswith("18.")
    assert status.log_path == data_dir / "postgres.log"
    assert status.data_dir == data_dir


def test_stop_is_refused_while_others_use_the_server_unless_forced(data_dir: Path, users: Any) -> None:
    assert embedded.stop(data_dir) is False
    user = users(data_dir)
    user.opened()
    with pytest.raises(EmbeddedPostgresError, match="in use") as refused:
        embedded.stop(data_dir)
    assert refused.value.facts["users"] == 1
    assert embedded.status(data_dir).running
    assert embedded.stop(data_dir, force=True) is True
    assert not embedded.status(data_dir).running


def test_stop_also_ends_a_server_whose_supervisor_is_dead(data_dir: Path) -> None:
    with embedded.open(data_dir):
        pid = embedded.status(data_dir).supervisor_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: embedded.status(data_dir).supervisor_pid is None, "the supervisor is dead")
    assert embedded.status(data_dir).running
    assert embedded.stop(data_dir) is True
    assert not embedded.status(data_dir).running


def test_stop_of_a_crashed_folder_says_that_there_was_nothing(data_dir: Path) -> None:
    with embedded.open(data_dir):
        kill_all(data_dir)
    assert embedded.stop(data_dir) is False
    # The next server also clears the shared memory of the dead one away.
    with embedded.open(data_dir) as cluster:
        assert query(cluster.dsn, "SELECT 1") == 1
