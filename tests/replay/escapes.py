"""Ways out of a process, as a step of a user's app might take them. Each does its deed when nothing holds it back.

A function whose name is in NETWORK reaches one of the listeners; one in WRITES changes the folder `world.folder`, which
holds `old.txt`, `sub/` and `db.sqlite`; one in OTHERS changes the process `world.process`, or what belongs to nobody.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import logging
import mmap
import multiprocessing
import os
import readline
import resource
import shelve
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class World:
    tcp: int
    udp: int
    unix: str
    datagrams: str
    folder: str
    process: int
    key: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.tcp}/"

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)


Escape = Callable[[World], object]
NETWORK: dict[str, Escape] = {}
WRITES: dict[str, Escape] = {}
OTHERS: dict[str, Escape] = {}
SILENT: set[str] = set()
"""Of these the step sees no error and Python no event: the kernel stops them, and nobody can tell."""


def network(escape: Escape) -> Escape:
    NETWORK[escape.__name__] = escape
    return escape


def writes(escape: Escape) -> Escape:
    WRITES[escape.__name__] = escape
    return escape


def others(escape: Escape) -> Escape:
    OTHERS[escape.__name__] = escape
    return escape


def silent(escape: Escape) -> Escape:
    SILENT.add(escape.__name__)
    return escape


def ask(world: World) -> list[str]:
    """The command of a program that connects."""
    code = f"import socket; socket.create_connection(('127.0.0.1', {world.tcp}))"
    return [sys.executable, "-I", "-S", "-c", code]


@network
def with_urllib(world: World) -> None:
    urllib.request.urlopen(world.url, timeout=5)


@network
def with_urllib_by_name(world: World) -> None:
    urllib.request.urlopen(f"http://localhost:{world.tcp}/", timeout=5)


@network
def with_requests(world: World) -> None:
    import requests

    requests.get(world.url, timeout=5)


@network
def with_httpx(world: World) -> None:
    import httpx

    httpx.get(world.url, timeout=5)


@network
def with_async_httpx(world: World) -> None:
    import httpx

    async def get() -> None:
        async with httpx.AsyncClient() as client:
            await client.get(world.url, timeout=5)

    asyncio.run(get())


@network
def with_aiohttp(world: World) -> None:
    import aiohttp

    async def get() -> None:
        async with aiohttp.ClientSession() as session, session.get(f"http://localhost:{world.tcp}/"):
            pass

    asyncio.run(get())


@network
def with_streams(world: World) -> None:
    async def get() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", world.tcp)
        writer.close()

    asyncio.run(get())


@network
def with_a_raw_socket(world: World) -> None:
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", world.tcp))


@network
def with_retries_that_swallow(world: World) -> None:
    for _ in range(3):
        try:
            with socket.create_connection(("127.0.0.1", world.tcp)):
                return
        except Exception:
            continue


@network
def with_everything_swallowed(world: World) -> None:
    with contextlib.suppress(BaseException), socket.create_connection(("127.0.0.1", world.tcp)):
        pass


@network
def in_a_thread(world: World) -> None:
    def work() -> None:
        with contextlib.suppress(BaseException):
            with_a_raw_socket(world)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


OLD_THREAD: concurrent.futures.Executor | None = None
"""Started before the guards went up, where the test wants one."""


@network
def in_a_thread_that_ran_before(world: World) -> None:
    if OLD_THREAD is None:
        with_psycopg(world)
    else:
        OLD_THREAD.submit(with_psycopg, world).result()


@network
def in_a_worker_of_asyncio(world: World) -> None:
    asyncio.run(asyncio.to_thread(with_a_raw_socket, world))


@network
def by_udp(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"out", ("127.0.0.1", world.udp))


@network
def by_a_udp_message(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendmsg([b"out"], [], 0, ("127.0.0.1", world.udp))


@network
def by_a_unix_socket(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(world.unix)


@network
def by_half_of_a_pair(world: World) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.sendto(b"out", world.datagrams)


@network
def with_a_subprocess(world: World) -> None:
    subprocess.run(ask(world), check=True, capture_output=True)


@network
def with_os_system(world: World) -> None:
    os.system(" ".join(map(repr, ask(world))))


@network
def with_an_async_subprocess(world: World) -> None:
    async def run() -> None:
        process = await asyncio.create_subprocess_exec(*ask(world))
        await process.wait()

    asyncio.run(run())


@network
def with_fork_and_exec(world: World) -> None:
    command = ask(world)
    child = os.fork()
    if child == 0:
        os.execv(command[0], command)
    os.waitpid(child, 0)


@network
def with_posix_spawn(world: World) -> None:
    command = ask(world)
    os.waitpid(os.posix_spawn(command[0], command, os.environ), 0)


@network
def with_multiprocessing(world: World) -> None:
    process = multiprocessing.get_context("fork").Process(target=with_a_raw_socket, args=(world,))
    process.start()
    process.join()


@network
def with_spawned_multiprocessing(world: World) -> None:
    server = ("127.0.0.1", world.tcp)
    process = multiprocessing.get_context("spawn").Process(target=socket.create_connection, args=(server,))
    process.start()
    process.join()


def native_address(world: World) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", world.tcp) + socket.inet_aton("127.0.0.1") + bytes(8)


@network
def with_ctypes(world: World) -> None:
    libc = ctypes.CDLL(None)
    fd = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    libc.connect(fd, native_address(world), 16)


def find(name: str) -> Callable[..., int]:
    """A function of the C library; without the kernel's help, the guards refuse to find it."""
    try:
        found: Callable[..., int] = getattr(LIBC, name)
    except PermissionError:
        return lambda *_: -1
    return found


LIBC = ctypes.CDLL(None)
NATIVE_SOCKET, NATIVE_CONNECT, NATIVE_SYSTEM = map(find, ("socket", "connect", "system"))
NATIVE_UNLINK, NATIVE_TRUNCATE, NATIVE_LINK = map(find, ("unlink", "truncate", "link"))
NATIVE_FORK, NATIVE_PRLIMIT = map(find, ("fork", "prlimit"))
NATIVE_CHMOD, NATIVE_UTIMES, NATIVE_SETXATTR, NATIVE_SEMGET = map(find, ("chmod", "utimes", "setxattr", "semget"))


@network
@silent
def with_functions_found_at_import(world: World) -> None:
    NATIVE_CONNECT(NATIVE_SOCKET(socket.AF_INET, socket.SOCK_STREAM, 0), native_address(world), 16)


@network
@silent
def with_the_system_function_of_c(world: World) -> None:
    NATIVE_SYSTEM(" ".join(map(repr, ask(world))).encode())


@network
def with_psycopg(world: World) -> None:
    import psycopg

    psycopg.connect(host="127.0.0.1", port=world.tcp, user="x", dbname="x", connect_timeout=5, sslmode="disable")


@network
def with_async_psycopg(world: World) -> None:
    import psycopg

    async def connect() -> None:
        await psycopg.AsyncConnection.connect(host="127.0.0.1", port=world.tcp, user="x", dbname="x", sslmode="disable")

    asyncio.run(connect())


@network
def with_psycopg_by_a_unix_socket(world: World) -> None:
    import psycopg

    folder, name = os.path.split(world.unix)
    psycopg.connect(host=folder, port=int(name.rpartition(".")[2]), user="x", dbname="x", connect_timeout=5)


@writes
def open_for_writing(world: World) -> None:
    with open(world.path("new.txt"), "w") as file:
        file.write("new")


@writes
def open_for_appending(world: World) -> None:
    with open(world.path("old.txt"), "ab") as file:
        file.write(b"more")


@writes
def open_by_number(world: World) -> None:
    os.close(os.open(world.path("new.txt"), os.O_WRONLY | os.O_CREAT))


@writes
def open_to_empty(world: World) -> None:
    os.close(os.open(world.path("old.txt"), os.O_RDONLY | os.O_TRUNC))


@writes
def write_text(world: World) -> None:
    Path(world.folder, "new.txt").write_text("new")


@writes
def write_by_a_relative_path(world: World) -> None:
    before = os.getcwd()
    os.chdir(world.folder)
    try:
        Path("new.txt").write_text("new")
    finally:
        os.chdir(before)


@writes
def write_through_a_link_in_the_scratch_folder(world: World) -> None:
    link = Path(tempfile.mkdtemp(), "link")
    link.symlink_to(world.path("old.txt"))
    link.write_text("new")


@writes
def write_through_a_hard_link_in_the_scratch_folder(world: World) -> None:
    link = os.path.join(tempfile.mkdtemp(), "link")
    os.link(world.path("old.txt"), link)
    Path(link).write_text("new")


@writes
def write_to_mapped_memory(world: World) -> None:
    with open(world.path("old.txt"), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0:1] = b"X"


@writes
def rename(world: World) -> None:
    os.rename(world.path("old.txt"), world.path("renamed.txt"))


@writes
def move_into_the_scratch_folder(world: World) -> None:
    shutil.move(world.path("old.txt"), tempfile.mkdtemp())


@writes
def unlink(world: World) -> None:
    os.unlink(world.path("old.txt"))


@writes
def unlink_in_an_open_folder(world: World) -> None:
    folder = os.open(world.folder, os.O_RDONLY)
    try:
        os.unlink("old.txt", dir_fd=folder)
    finally:
        os.close(folder)


@writes
def truncate(world: World) -> None:
    os.truncate(world.path("old.txt"), 0)


@writes
def make_a_folder(world: World) -> None:
    os.makedirs(world.path("new/folder"), exist_ok=True)


@writes
def remove_a_folder(world: World) -> None:
    os.rmdir(world.path("sub"))


@writes
def remove_a_tree(world: World) -> None:
    shutil.rmtree(world.folder)


@writes
def make_a_link(world: World) -> None:
    os.symlink("/etc", world.path("link"))


@writes
def make_a_pipe(world: World) -> None:
    os.mkfifo(world.path("pipe"))


@writes
def change_the_mode(world: World) -> None:
    os.chmod(world.path("old.txt"), 0o777)


@writes
def change_the_times(world: World) -> None:
    os.utime(world.path("old.txt"), (0, 0))


@writes
def change_the_mode_of_an_open_file(world: World) -> None:
    with open(world.path("old.txt")) as file:
        os.chmod(file.fileno(), 0o777)


@writes
def change_the_mode_of_an_open_folder(world: World) -> None:
    folder = os.open(world.folder, os.O_RDONLY)
    try:
        os.fchmod(folder, 0o700)
    finally:
        os.close(folder)


@writes
def change_the_mode_within_an_open_folder(world: World) -> None:
    folder = os.open(world.folder, os.O_RDONLY)
    try:
        os.chmod("old.txt", 0o777, dir_fd=folder)
    finally:
        os.close(folder)


@writes
def change_the_times_of_an_open_file(world: World) -> None:
    with open(world.path("old.txt")) as file:
        os.utime(file.fileno(), (1, 1))


@writes
def change_the_mode_by_a_path_object(world: World) -> None:
    Path(world.folder, "old.txt").chmod(0o777)


@writes
def copy_the_mode_and_times(world: World) -> None:
    shutil.copystat(__file__, world.path("old.txt"))


@writes
@silent
def change_the_mode_in_c(world: World) -> None:
    NATIVE_CHMOD(world.path("old.txt").encode(), 0o777)


@writes
@silent
def change_the_times_in_c(world: World) -> None:
    NATIVE_UTIMES(world.path("old.txt").encode(), None)


@writes
@silent
def set_an_attribute_in_c(world: World) -> None:
    NATIVE_SETXATTR(world.path("old.txt").encode(), b"user.kairos", b"x", ctypes.c_size_t(1), 0)


@writes
def set_an_attribute(world: World) -> None:
    os.setxattr(world.path("old.txt"), "user.kairos", b"x")


@writes
def set_an_attribute_of_an_open_file(world: World) -> None:
    with open(world.path("old.txt")) as file:
        os.setxattr(file.fileno(), "user.kairos", b"x")


@writes
def write_to_an_attached_database(world: World) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("attach ? as other", [world.path("db.sqlite")])
        conn.execute("insert into other.t values (2)")
        conn.commit()


@writes
def make_an_attached_database(world: World) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("attach ? as other", [world.path("new.sqlite")])
        conn.execute("create table other.t (x)")


@writes
def copy_a_database_by_vacuum(world: World) -> None:
    with contextlib.closing(sqlite3.connect(world.path("db.sqlite"))) as conn:
        conn.execute("vacuum into ?", [world.path("copy.sqlite")])


@writes
def write_a_history(world: World) -> None:
    readline.add_history("x")
    readline.write_history_file(world.path("history"))


@writes
def open_a_file_again_by_its_descriptor(world: World) -> None:
    with open(world.path("old.txt")) as file, open(f"/proc/self/fd/{file.fileno()}", "w") as again:
        again.write("new")


@writes
@silent
def open_a_file_again_by_its_descriptor_in_c(world: World) -> None:
    with open(world.path("old.txt")) as file:
        NATIVE_TRUNCATE(f"/proc/self/fd/{file.fileno()}".encode(), 1)


@writes
def change_the_mode_by_a_descriptors_name(world: World) -> None:
    with open(world.path("old.txt")) as file:
        os.chmod(f"/dev/fd/{file.fileno()}", 0o777)


@writes
def change_the_times_through_a_link(world: World) -> None:
    link = os.path.join(tempfile.mkdtemp(), "link")
    os.symlink(world.path("old.txt"), link)
    os.utime(link, (1, 1))


@writes
@silent
def write_in_a_process_forked_in_c(world: World) -> None:
    child = NATIVE_FORK()
    if child == 0:
        with contextlib.suppress(BaseException):
            Path(world.folder, "new.txt").write_text("new")
        os._exit(0)
    if child > 0:
        os.waitpid(child, 0)


@others
@silent
def limit_another_process_in_c(world: World) -> None:
    soft, hard = resource.prlimit(world.process, resource.RLIMIT_NOFILE)
    limits = (ctypes.c_ulong * 2)(soft - 1, hard)
    NATIVE_PRLIMIT(world.process, resource.RLIMIT_NOFILE, limits, None)


@others
def limit_another_process(world: World) -> None:
    soft, hard = resource.prlimit(world.process, resource.RLIMIT_NOFILE)
    resource.prlimit(world.process, resource.RLIMIT_NOFILE, (soft - 1, hard))


@others
def move_another_process_to_one_processor(world: World) -> None:
    os.sched_setaffinity(world.process, {min(os.sched_getaffinity(world.process))})


@others
def slow_another_process_down(world: World) -> None:
    os.setpriority(os.PRIO_PROCESS, world.process, os.getpriority(os.PRIO_PROCESS, world.process) + 1)


@others
def schedule_another_process(world: World) -> None:
    os.sched_setscheduler(world.process, os.SCHED_BATCH, os.sched_param(0))


@others
@silent
def leave_a_semaphore_behind(world: World) -> None:
    NATIVE_SEMGET(world.key, 1, 0o1600)


@writes
def write_to_sqlite(world: World) -> None:
    with contextlib.closing(sqlite3.connect(world.path("db.sqlite"))) as conn:
        conn.execute("insert into t values (2)")
        conn.commit()


@writes
def make_an_sqlite_database(world: World) -> None:
    with contextlib.closing(sqlite3.connect(world.path("new.sqlite"))) as conn:
        conn.execute("create table t (x)")


@writes
def write_to_a_shelf(world: World) -> None:
    with shelve.open(world.path("shelf")) as shelf:  # noqa: S301
        shelf["x"] = 1


@writes
def log_to_a_file(world: World) -> None:
    logging.FileHandler(world.path("app.log")).close()


@writes
def with_a_program(world: World) -> None:
    subprocess.run(["touch", world.path("new.txt")], check=True)


@writes
@silent
def unlink_in_c(world: World) -> None:
    NATIVE_UNLINK(world.path("old.txt").encode())


@writes
@silent
def truncate_in_c(world: World) -> None:
    NATIVE_TRUNCATE(world.path("old.txt").encode(), 0)


@writes
@silent
def link_and_write_in_c(world: World) -> None:
    link = os.path.join(tempfile.mkdtemp(), "link")
    NATIVE_LINK(world.path("old.txt").encode(), link.encode())
    if os.path.exists(link):
        Path(link).write_text("new")
