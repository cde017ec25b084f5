"""Who runs the server: root in a namespace, root as another account, an ordinary user as itself."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_servers import ROOT, User, query, wait_until

from kairos import embedded
from kairos.embedded import locate, privileges
from kairos.embedded.privileges import Mode
from kairos.errors import EmbeddedPostgresError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = pwd.getpwnam("nobody")


def owner(path: Path) -> int:
    return path.stat().st_uid


def modes(path: Path) -> dict[Path, tuple[int, int]]:
    return {folder: (stat.S_IMODE(folder.stat().st_mode), folder.stat().st_uid) for folder in (path, *path.parents)}


def uid_of(pid: int | None) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def namespaces_allowed() -> bool:
    return privileges._namespaces_allowed(privileges._ordinary_account())


@pytest.fixture
def no_namespaces(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Path]:
    """A system without user namespaces, whose /var/lib/kairos-embedded is somewhere else."""
    # Not in `folder`, which may lie where no programs can be run.
    base = Path(tempfile.mkdtemp(prefix="kairos-test-"))
    base.chmod(0o755)
    folder.chmod(0o755)
    # The strictest umask: what another account has to pass through must not depend on it.
    before = os.umask(0o077)
    monkeypatch.setenv(privileges.NO_USERNS, "1")
    monkeypatch.setenv(privileges.SYSTEM_DIR, str(base / "system"))
    yield base / "system"
    os.umask(before)
    for data in folder.rglob("users.lock"):
        embedded.stop(data.parent, force=True)
    shutil.rmtree(base)


@as_root
def test_root_runs_the_server_in_a_namespace_where_its_files_stay_its_own(folder: Path) -> None:
    if not namespaces_allowed():
        pytest.skip("no user namespaces here")
    with embedded.open(folder / "data") as cluster:
        status = embedded.status(folder / "data")
        mapped = Path(f"/proc/{status.postmaster_pid}/uid_map").read_text().split()
        assert mapped[0] != "0"
        assert mapped[1:] == ["0", "1"]
        assert query(cluster.dsn, "SELECT 1") == 1
        assert {owner(path) for path in (folder / "data").rglob("*")} == {0}


@as_root
def test_root_without_namespaces_runs_the_server_as_another_account(folder: Path, no_namespaces: Path) -> None:
    (folder / "app").mkdir()
    (folder / "app").chmod(0o755)
    before = modes(folder / "app")
    with embedded.open(folder / "app" / "data") as cluster:
        assert cluster.created
        assert query(cluster.dsn, "SELECT 1") == 1
        pid = embedded.status(folder / "app" / "data").postmaster_pid
        assert uid_of(pid) not in (0, None)
        assert modes(folder / "app") == before
        data = folder / "app" / "data"
        assert stat.S_IMODE(data.stat().st_mode) == 0o711
        assert stat.S_IMODE((data / "cluster" / "pgdata").stat().st_mode) == 0o700
        for secret in (data / "cluster").glob("*.password"):
            assert (owner(secret), stat.S_IMODE(secret.stat().st_mode)) == (0, 0o600)
    assert not no_namespaces.exists(), "the server reaches the folder, so nothing lies elsewhere"
    embedded.stop(data)
    with embedded.open(data) as cluster:
        assert not cluster.created
        assert stat.S_IMODE(data.stat().st_mode) == 0o711


@as_root
def test_data_which_that_account_could_not_reach_lies_in_the_folder_of_the_system(
    folder: Path, no_namespaces: Path
) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    before = modes(private)
    with embedded.open(private / "data") as cluster:
        assert query(cluster.dsn, "SELECT 1") == 1
        assert (private / "data" / "cluster").resolve().parent == no_namespaces
    assert modes(private) == before
    assert stat.S_IMODE((private / "data").stat().st_mode) == 0o700


@as_root
def test_a_cluster_of_that_account_runs_on_when_namespaces_come_back(
    folder: Path, no_namespaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with embedded.open(folder / "data"):
        account = uid_of(embedded.status(folder / "data").postmaster_pid)
    embedded.stop(folder / "data")
    monkeypatch.delenv(privileges.NO_USERNS)
    with embedded.open(folder / "data"):
        assert uid_of(embedded.status(folder / "data").postmaster_pid) == account


@as_root
def test_a_cluster_made_in_a_namespace_is_explained_when_they_are_refused_later(
    data_dir: Path, no_namespaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if owner(data_dir / "cluster" / "pgdata") != 0:
        pytest.skip("no user namespaces here")
    with pytest.raises(EmbeddedPostgresError, match="allows no user namespaces") as refused:
        embedded.open(data_dir)
    assert "KAIROS_DATABASE_URL" in str(refused.value)


@as_root
def test_programs_which_that_account_could_not_reach_are_copied_once(folder: Path, no_namespaces: Path) -> None:
    installed = locate.binaries()
    private = folder / "private"
    private.mkdir(mode=0o700)
    for source in (installed.prefix.parent, installed.libraries):
        (private / source.name).symlink_to(source)
    hidden = locate.Binaries(
        private / installed.prefix.parent.name / installed.prefix.name, private / installed.libraries.name
    )
    identity = privileges.choose(None)
    assert identity.mode is Mode.SWITCH
    copy = privileges.reachable(hidden, identity)
    assert copy.postgres.is_relative_to(no_namespaces)
    assert privileges.reachable(hidden, identity) == copy
    done = subprocess.run(
        [copy.initdb, "--version"], capture_output=True, text=True, check=True, **identity.popen_options()
    )
    assert "PostgreSQL" in done.stdout
    assert not (copy.prefix / "include").exists()


@as_root
def test_the_data_folder_of_another_user_is_refused(folder: Path) -> None:
    (folder / "data").mkdir(mode=0o700)
    os.chown(folder / "data", NOBODY.pw_uid, NOBODY.pw_gid)
    with pytest.raises(EmbeddedPostgresError, match=f"belongs to uid {NOBODY.pw_uid}"):
        embedded.open(folder / "data")


@as_root
def test_the_status_of_a_folder_that_may_not_be_read_is_an_error_with_a_hint(data_dir: Path) -> None:
    os.seteuid(NOBODY.pw_uid)
    try:
        with pytest.raises(EmbeddedPostgresError, match="cannot be read") as refused:
            embedded.status(data_dir)
    finally:
        os.seteuid(0)
    assert "owns the folder" in str(refused.value)


@pytest.fixture
def python_of_nobody() -> str:
    """A Python of our version that the user nobody may run, with the packages of this environment."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        command = [candidate, "-c", "import psycopg, kairos.embedded.cluster"]
        if candidate and _run_as_nobody(command):
            return candidate
    pytest.skip("nobody cannot run this Python")


def _run_as_nobody(command: list[Any]) -> bool:
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, cwd=ROOT, user=NOBODY.pw_uid, group=NOBODY.pw_gid
        )
    except OSError:
        return False
    return done.returncode == 0


@as_root
@pytest.mark.parametrize("uid", [NOBODY.pw_uid, 54321], ids=["nobody", "uid-without-account"])
def test_an_ordinary_user_runs_the_server_as_itself(
    folder: Path, users: Callable[..., User], python_of_nobody: str, uid: int
) -> None:
    if uid != NOBODY.pw_uid and not namespaces_allowed():
        pytest.skip("no user namespaces here")
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, uid, NOBODY.pw_gid)
    folder.chmod(0o711)
    user = users(home / "data", python=python_of_nobody, user=uid, group=NOBODY.pw_gid, extra_groups=[])
    answer = user.opened()
    assert answer["created"]
    assert query(answer["dsn"], "SELECT 1") == 1
    assert uid_of(embedded.status(home / "data").postmaster_pid) == uid
    assert {owner(path) for path in home.rglob("*")} == {uid}
    user.end()
    wait_until(lambda: not embedded.status(home / "data").running, "the server has stopped")


@as_root
def test_root_keeps_its_data_out_of_the_private_folder_of_another_user(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(privileges.SYSTEM_DIR, str(folder / "system"))
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
    folder.chmod(0o711)
    before = modes(home)
    with embedded.open(home / "data") as cluster:
        assert query(cluster.dsn, "SELECT 1") == 1
        assert (home / "data" / "cluster").resolve().parent == folder / "system"
    assert modes(home) == before


@pytest.mark.parametrize(("system", "machine"), [("Windows", "AMD64"), ("Darwin", "x86_64"), ("Linux", "riscv64")])
def test_an_unsupported_system_is_told_to_bring_its_own_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(EmbeddedPostgresError, match=f"does not run on {system} {machine}") as refused:
        embedded.open(folder / "data")
    assert "KAIROS_DATABASE_URL" in str(refused.value)
    assert not (folder / "data").exists()


def test_a_missing_wheel_is_told_how_to_be_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "WHEEL", locate.Wheel("no_such_postgres", "pginstall"))
    with pytest.raises(EmbeddedPostgresError, match="not installed") as missing:
        embedded.open(folder / "data")
    assert "pip install" in str(missing.value)


def test_the_wheel_is_not_imported(data_dir: Path) -> None:
    with embedded.open(data_dir):
        assert locate.WHEEL.package not in sys.modules
