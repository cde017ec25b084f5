"""What steps do without leaving the process: all of it must work under the guards as it does without."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib
import json
import logging
import os
import resource
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

try:
    from escapes import World
except ImportError:  # in the tests themselves
    from tests.replay.escapes import World

Deed = Callable[[World], object]
HARMLESS: dict[str, Deed] = {}


def harmless(deed: Deed) -> Deed:
    HARMLESS[deed.__name__] = deed
    return deed


@harmless
def run_an_event_loop(_: World) -> object:
    async def work() -> int:
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(lambda: None)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.to_thread(int, text)) for text in "12"]
        return sum(task.result() for task in tasks)

    return asyncio.run(work())


@harmless
def use_threads(_: World) -> object:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(str, range(3)))


@harmless
def talk_over_a_pair(_: World) -> object:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"hello")
        return right.recv(10).decode()


ESTABLISHED: tuple[socket.socket, socket.socket] | None = None
"""Both ends of a connection that was there before the guards."""


@harmless
def use_an_old_connection(_: World) -> object:
    assert ESTABLISHED is not None
    one, other = ESTABLISHED
    one.sendall(b"hello")
    other.sendmsg([b"and ", b"back"])
    return other.recv(10).decode(), one.recv(10).decode()


@harmless
def use_temporary_files(_: World) -> object:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "x.txt").write_text("x")
        (folder / "a" / "x.txt").rename(folder / "a" / "b" / "y.txt")
        os.symlink("y.txt", folder / "a" / "b" / "link")
        os.link(folder / "a" / "b" / "y.txt", folder / "hard")
        os.truncate(folder / "hard", 0)
        shutil.copytree(folder / "a", folder / "copy", symlinks=True)
        os.chmod(folder / "hard", 0o600)
        os.utime(folder / "hard", (1, 1))
        return sorted(path.name for path in folder.rglob("*"))


@harmless
def use_the_home_folder(_: World) -> object:
    Path.home().joinpath(".cache").mkdir(exist_ok=True)
    return Path.home().joinpath(".cache").is_dir()


@harmless
def use_a_named_temporary_file(_: World) -> object:
    with tempfile.NamedTemporaryFile("w+", suffix=".json") as file:
        json.dump([1], file)
        file.seek(0)
        return json.load(file)


@harmless
def use_an_unnamed_temporary_file(_: World) -> object:
    with tempfile.TemporaryFile() as file:
        return file.write(b"x")


@harmless
def read_files(world: World) -> object:
    return Path(world.path("old.txt")).read_text(), sorted(os.listdir(world.folder))


@harmless
def ask_for_a_folder_that_is_there(world: World) -> object:
    os.makedirs(world.path("sub"), exist_ok=True)
    Path(world.path("sub")).mkdir(exist_ok=True)
    return "same"


@harmless
def read_sqlite(world: World) -> object:
    with contextlib.closing(sqlite3.connect(world.path("db.sqlite"))) as conn:
        return conn.execute("select x from t").fetchall()


@harmless
def use_sqlite_in_memory_and_in_the_scratch_folder(_: World) -> object:
    for name in (":memory:", os.path.join(tempfile.mkdtemp(), "db")):
        with contextlib.closing(sqlite3.connect(name)) as conn:
            conn.execute("create table t (x)")
            conn.commit()
    return "made"


@harmless
def import_modules(_: World) -> object:
    for name in ("colorsys", "chunk", "wave", "xml.dom.minidom"):
        with contextlib.suppress(ImportError):  # some are gone in later versions
            importlib.import_module(name)
    return importlib.import_module("xml.dom.minidom").__name__


@harmless
def import_a_library_that_tries_for_ipv6(_: World) -> object:
    for name in [name for name in sys.modules if name.partition(".")[0] == "urllib3"]:
        del sys.modules[name]
    return importlib.import_module("urllib3.util.connection").__name__


@harmless
def write_nowhere(_: World) -> object:
    with open(os.devnull, "w") as file:
        file.write("x")
    return "written"


@harmless
def log_to_stderr(_: World) -> object:
    logging.getLogger("step").warning("hello")
    print("hello", file=sys.stderr)
    return "logged"


@harmless
def signal_itself(_: World) -> object:
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    return len(got)


@harmless
def ask_whether_another_process_lives(_: World) -> object:
    return os.kill(os.getppid(), 0)


@harmless
def change_modes_and_times_in_the_scratch_folder(world: World) -> object:
    with tempfile.TemporaryDirectory() as name:
        first, copy = Path(name, "first"), Path(name, "second né")
        first.write_text("x")
        first.chmod(0o640)
        os.utime(first, (1.25, 2.75))
        shutil.copy2(first, copy)
        seen: list[object] = [oct(copy.stat().st_mode), copy.stat().st_mtime_ns]
        with copy.open() as file:
            os.chmod(file.fileno(), 0o600)
            os.fchmod(file.fileno(), 0o604)
            os.utime(file.fileno(), ns=(-1_500_000_000, 7))
            os.fchown(file.fileno(), os.getuid(), os.getgid())
            os.setxattr(file.fileno(), "user.one", b"a\0b")
        seen += [oct(copy.stat().st_mode), copy.stat().st_atime_ns, copy.stat().st_mtime_ns]
        os.setxattr(copy, b"user.two", b"")
        os.removexattr(copy, "user.two")
        seen += [os.listxattr(copy), repr(os.getxattr(copy, "user.one"))]
        os.chown(copy, -1, -1)
        os.symlink(copy, Path(name, "link"))
        os.utime(Path(name, "link"), (5, 5), follow_symlinks=False)
        os.lchown(Path(name, "link"), -1, -1)
        folder = os.open(name, os.O_RDONLY)
        os.chmod("first", 0o777, dir_fd=folder)
        os.utime("first", dir_fd=folder)
        os.close(folder)
        seen += [oct(first.stat().st_mode), os.lstat(Path(name, "link")).st_mtime]
        for wrong in (
            lambda: os.chmod(Path(name, "none"), 0),
            lambda: os.utime(99_999),
            lambda: os.utime(copy, [1, 2]),
        ):
            try:
                wrong()
            except Exception as exc:
                seen.append([type(exc).__name__, getattr(exc, "errno", None), str(exc).partition(name)[0]])
        return [*seen, os.chmod in os.supports_dir_fd, os.utime in os.supports_fd, os.chmod.__name__]


@harmless
def change_its_own_share(_: World) -> object:
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    os.sched_setaffinity(os.getpid(), os.sched_getaffinity(0))
    os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
    resource.prlimit(os.getpid(), resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))
    return len(resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE))
