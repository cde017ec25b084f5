"""What kill -9, power cuts and broken folders do: nothing that the next open does not mend or explain."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from embedded_servers import alive, kill_all, query, wait_until

from kairos import embedded
from kairos.embedded import locks, logfile, postmaster
from kairos.embedded.paths import Layout
from kairos.errors import EmbeddedPostgresError


def test_the_server_survives_a_kill_of_the_user_who_started_it(data_dir: Path, users: Any) -> None:
    first, second = users(data_dir), None
    first.opened()
    second = users(data_dir)
    dsn = second.opened()["dsn"]
    with psycopg.connect(dsn) as connection:
        first.kill()
        grace_is_over = time.monotonic() + 1
        wait_until(lambda: time.monotonic() > grace_is_over, "the grace time is over")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_next_open_adopts_the_server_of_a_killed_supervisor(data_dir: Path) -> None:
    with embedded.open(data_dir) as cluster, psycopg.connect(cluster.dsn) as connection:
        before = embedded.status(data_dir)
        assert before.supervisor_pid is not None
        os.kill(before.supervisor_pid, signal.SIGKILL)
        wait_until(lambda: embedded.status(data_dir).supervisor_pid is None, "the supervisor is dead")
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with embedded.open(data_dir):
            after = embedded.status(data_dir)
            assert after.postmaster_pid == before.postmaster_pid
            assert after.supervisor_pid not in (None, before.supervisor_pid)
            assert connection.execute("SELECT 2").fetchone() == (2,)
    wait_until(lambda: not embedded.status(data_dir).running, "the adopted server has stopped")


def test_a_killed_server_is_started_again_while_it_has_users(data_dir: Path) -> None:
    with embedded.open(data_dir) as cluster:
        query(cluster.admin_dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        for _ in range(2):
            old = embedded.status(data_dir).postmaster_pid
            assert old is not None
            os.kill(old, signal.SIGKILL)
            wait_until(lambda old=old: embedded.status(data_dir).postmaster_pid not in (None, old), "a new server")
            wait_until(lambda: answers(cluster.admin_dsn), "it accepts connections")
        assert query(cluster.admin_dsn, "SELECT answer FROM kept") == 42
    assert (data_dir / "supervisor.log").read_text().count("THE SERVER DIED") == 2


def answers(dsn: str) -> bool:
    try:
        return query(dsn, "SELECT true")
    except psycopg.OperationalError:
        return False


def test_a_killed_server_whose_supervisor_is_dead_too_comes_back_with_the_next_open(data_dir: Path) -> None:
    with embedded.open(data_dir) as cluster:
        query(cluster.admin_dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        kill_all(data_dir)
        with embedded.open(data_dir) as again:
            assert query(again.admin_dsn, "SELECT answer FROM kept") == 42


def test_a_stale_pid_file_whose_pid_lives_again_as_another_process_does_not_matter(data_dir: Path) -> None:
    with embedded.open(data_dir):
        sockets = embedded.status(data_dir).socket_dir
        assert sockets is not None
        pid_file = data_dir / "cluster" / "pgdata" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        kill_all(data_dir)
    bystander = subprocess.Popen(["sleep", "60"], cwd=data_dir / "cluster" / "pgdata")
    try:
        for file in (pid_file, sockets / ".s.PGSQL.5432.lock"):
            assert file.exists()
            file.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
        assert not embedded.status(data_dir).running
        with embedded.open(data_dir) as cluster:
            assert query(cluster.dsn, "SELECT 1") == 1
        embedded.stop(data_dir)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_half_a_pid_file_does_not_matter(data_dir: Path, layout: Layout) -> None:
    (layout.pgdata / "postmaster.pid").write_text("")
    with embedded.open(data_dir) as cluster:
        assert query(cluster.dsn, "SELECT 1") == 1


def test_a_user_who_comes_while_the_server_is_being_stopped_waits_and_starts_it_again(data_dir: Path) -> None:
    cluster = embedded.open(data_dir)
    old = embedded.status(data_dir).postmaster_pid
    assert old is not None
    os.kill(old, signal.SIGSTOP)
    try:
        cluster.close()
        wait_until(lambda: "stopping" in (data_dir / "supervisor.log").read_text(), "the stop has begun")
        opened: list[embedded.Cluster] = []
        comer = threading.Thread(target=lambda: opened.append(embedded.open(data_dir)))
        comer.start()
        comer.join(0.2)
        assert comer.is_alive(), "the comer waits"
    finally:
        os.kill(old, signal.SIGCONT)
    comer.join(30)
    with opened[0]:
        assert query(opened[0].dsn, "SELECT 1") == 1
        assert embedded.status(data_dir).postmaster_pid != old


def test_a_supervisor_that_is_killed_while_it_stops_the_server_leaves_no_mess(data_dir: Path) -> None:
    cluster = embedded.open(data_dir)
    before = embedded.status(data_dir)
    assert before.postmaster_pid is not None
    assert before.supervisor_pid is not None
    os.kill(before.postmaster_pid, signal.SIGSTOP)
    cluster.close()
    wait_until(lambda: "stopping" in (data_dir / "supervisor.log").read_text(), "the stop has begun")
    os.kill(before.supervisor_pid, signal.SIGKILL)
    threading.Timer(0.3, os.kill, (before.postmaster_pid, signal.SIGCONT)).start()
    with embedded.open(data_dir) as cluster:
        assert query(cluster.dsn, "SELECT 1") == 1
        assert embedded.status(data_dir).postmaster_pid != before.postmaster_pid


def test_an_interrupted_initdb_is_done_again(folder: Path, users: Any) -> None:
    user = users(folder / "data")
    wait_until((folder / "data" / "cluster.new" / "pgdata" / "base").exists, "initdb is at work")
    user.kill()
    assert not (folder / "data" / "cluster").exists()
    with embedded.open(folder / "data") as cluster:
        assert cluster.created
        assert query(cluster.dsn, "SELECT current_user::text") == "kairos"
    assert not (folder / "data" / "cluster.new").exists()


def test_a_supervisor_killed_before_it_started_the_server_is_replaced(data_dir: Path, layout: Layout) -> None:
    killed: list[int] = []
    stop = threading.Event()

    def hunt() -> None:
        while not stop.is_set() and not killed:
            if (pid := embedded.status(data_dir).supervisor_pid) is not None:
                with suppress(ProcessLookupError):  # it may be gone between the look and the shot
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        with embedded.open(data_dir) as cluster:
            assert query(cluster.dsn, "SELECT 1") == 1
    finally:
        stop.set()
        hunter.join()
    assert len(killed) == 1


def test_what_is_left_of_a_killed_server_keeps_a_second_one_out_until_it_has_ended(
    data_dir: Path, layout: Layout
) -> None:
    with embedded.open(data_dir) as cluster, psycopg.connect(cluster.dsn) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        before = kill_all(data_dir)
        assert locks.is_held(layout.server_lock)
        assert postmaster.launch(layout) is None
        assert postmaster.kill_orphans(layout) == [backend]
        wait_until(lambda: not alive(backend), "the orphan is dead")
        with embedded.open(data_dir) as again:
            assert query(again.dsn, "SELECT 1") == 1
            assert embedded.status(data_dir).postmaster_pid != before.postmaster_pid


def test_a_server_that_cannot_start_says_why_and_what_to_do(data_dir: Path, layout: Layout) -> None:
    with (layout.pgdata / "postgresql.conf").open("a") as config:
        config.write("shared_buffers = 'a lot'\n")
    begun = time.monotonic()
    with pytest.raises(EmbeddedPostgresError, match="PostgreSQL did not start") as failed:
        embedded.open(data_dir)
    assert time.monotonic() - begun < 10
    assert "shared_buffers" in failed.value.facts["server_log"]
    assert str(layout.log) in str(failed.value)
    assert embedded.status(data_dir).users == 0


def test_lost_data_is_not_replaced_by_an_empty_database(data_dir: Path, layout: Layout, folder: Path) -> None:
    layout.cluster.rename(folder / "elsewhere")
    layout.cluster.symlink_to(folder / "not mounted")
    with pytest.raises(EmbeddedPostgresError, match="but no database in"):
        embedded.open(data_dir)
    layout.cluster.unlink()
    (folder / "elsewhere").rename(layout.cluster)
    with embedded.open(data_dir) as cluster:
        assert not cluster.created


def test_a_full_disk_is_named_with_what_to_do(folder: Path) -> None:
    said = "LOG: x\nFATAL:  could not write: No space left on device\nFATAL:  the database system is starting up"
    assert logfile.last_complaint(said) == "FATAL:  could not write: No space left on device"
    assert "free some space" in logfile.advice(said, folder)


def test_a_lost_password_file_is_named(data_dir: Path, layout: Layout) -> None:
    layout.password_file("kairos").unlink()
    with pytest.raises(EmbeddedPostgresError, match=r"kairos\.password is missing"):
        embedded.open(data_dir)


def test_a_wrong_password_file_fails_at_once(data_dir: Path, layout: Layout) -> None:
    layout.password_file("kairos").write_text("guess")
    with pytest.raises(EmbeddedPostgresError, match="password authentication failed"):
        embedded.open(data_dir)


def test_a_server_that_does_not_answer_in_time_is_an_error_with_the_logs(data_dir: Path) -> None:
    with embedded.open(data_dir):
        pid = embedded.status(data_dir).postmaster_pid
        assert pid is not None
        (data_dir / "cluster" / "run" / ".s.PGSQL.5432").unlink()
        with pytest.raises(EmbeddedPostgresError, match=r"did not answer within 0\.5 s") as late:
            embedded.open(data_dir, start_timeout=0.5)
        assert "ready to accept connections" in late.value.facts["server_log"]
        assert late.value.hint


def test_a_supervisor_that_cannot_even_start_is_an_error_with_its_log(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "bad").mkdir()
    (folder / "bad" / "sitecustomize.py").write_text("import os; os.write(2, b'broken interpreter\\n'); os._exit(3)")
    monkeypatch.syspath_prepend(folder / "bad")
    with pytest.raises(EmbeddedPostgresError, match="ended without a word") as failed:
        embedded.open(data_dir)
    assert "broken interpreter" in failed.value.facts["supervisor_log"]


def test_removing_the_data_folder_ends_server_and_supervisor(data_dir: Path) -> None:
    with embedded.open(data_dir):
        status = embedded.status(data_dir)
        shutil.rmtree(data_dir)
        for pid in (status.postmaster_pid, status.supervisor_pid):
            assert pid is not None
            wait_until(lambda pid=pid: not alive(pid), f"{pid} has ended")


def test_a_log_beyond_the_limit_is_cut_and_its_past_is_kept_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "LIMIT", 100)
    log = folder / "postgres.log"
    with log.open("a") as server:
        server.write("x" * 101)
        server.flush()
        logfile.shorten(log)
        server.write("after\n")
    assert log.read_text() == "after\n"
    assert (folder / "postgres.log.1").read_text() == "x" * 101
