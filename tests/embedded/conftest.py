"""Real servers in throw-away folders. Whatever a test starts is stopped at its end."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_servers import ROOT, User, wait_until

from kairos import embedded
from kairos.embedded.paths import Layout


def base_folder() -> Path:
    """A new short folder, in memory where there is plenty: forty megabytes a test are slow on some disks."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    return Path(tempfile.mkdtemp(prefix="kairos-test-", dir=memory if roomy else None))


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of these tests go half a second after their last user."""
    monkeypatch.setenv("KAIROS_EMBEDDED_GRACE", "0.3")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short folder, in which every server is stopped at the end."""
    base = base_folder()
    yield base
    for cluster in [path.parent for path in base.rglob("users.lock")]:
        embedded.stop(cluster, force=True)
        status = embedded.status(cluster)
        assert not status.running
        wait_until(lambda cluster=cluster: not embedded.status(cluster).supervisor_pid, "no supervisor is left")
    shutil.rmtree(base)


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """A stopped, initialised data folder, so that not each test has to run initdb."""
    base = base_folder()
    embedded.open(base / "data").close()
    embedded.stop(base / "data")
    yield base / "data"
    shutil.rmtree(base)


@pytest.fixture
def data_dir(folder: Path, template: Path) -> Path:
    """An initialised data folder with no server running."""
    shutil.copytree(template, folder / "data", symlinks=True, ignore=shutil.ignore_patterns("*.log"))
    return folder / "data"


@pytest.fixture
def users() -> Iterator[Callable[..., User]]:
    """Starts processes which use a data folder."""
    started: list[User] = []

    def start(data_dir: Path, **options: Any) -> User:
        started.append(User(data_dir, **options))
        return started[-1]

    yield start
    for user in started:
        user.end()


@pytest.fixture
def layout(data_dir: Path) -> Layout:
    """The files of `data_dir`."""
    return Layout.of(data_dir)
