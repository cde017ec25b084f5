"""What steps do without leaving the process: all of it must work under the guards as it does without."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib
import json
import logging
import os
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
