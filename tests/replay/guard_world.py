"""The world outside of a guarded process: listeners that count who comes, a folder with a hash, and the process."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from kairos.replay.guard import scrub_environment

HERE = Path(__file__).parent
LIBC = ctypes.CDLL(None)


class Streams:
    """A listener that takes every connection, counts it, and hangs up."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._count = 0
        self._own = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self._count += 1
            conn.close()

    def count(self) -> int:
        """All who came so far. They are served in order: one more of our own shows that none is left in the queue."""
        with socket.socket(self._listener.family) as marker:
            marker.connect(self._listener.getsockname())
            marker.recv(1)
        self._own += 1
        return self._count - self._own

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Datagrams:
    """A receiver that counts what was sent to it."""

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver
        self._receiver.setblocking(False)
        self._count = 0

    def count(self) -> int:
        while True:
            try:
                self._receiver.recv(100)
            except BlockingIOError:
                return self._count
            self._count += 1

    def close(self) -> None:
        self._receiver.close()


class Outside:
    """Listeners on TCP, UDP and unix sockets, and a folder that is made anew for each deed."""

    def __init__(self, folder: Path) -> None:
        tcp, udp = socket.create_server(("127.0.0.1", 0), backlog=100), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        unix, datagrams = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        unix.bind(str(folder / ".s.PGSQL.5432"))
        unix.listen(100)
        datagrams.bind(str(folder / "datagrams"))
        self.facts = {
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": unix.getsockname(),
            "datagrams": datagrams.getsockname(),
        }
        # What others are changed by: a process that only waits, and the key of a semaphore that nobody has.
        self._process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self._processors = os.sched_getaffinity(self._process.pid)
        self.facts |= {"process": self._process.pid, "key": 0x4B000000 | os.getpid() & 0xFFFFFF}
        self._listeners = [Streams(tcp), Streams(unix), Datagrams(udp), Datagrams(datagrams)]
        self.folder = folder / "data"

    def arrivals(self) -> int:
        return sum(listener.count() for listener in self._listeners)

    def fresh_folder(self) -> str:
        """The hash of a new folder with a few things in it, and of the others as they were."""
        os.sched_setaffinity(self._process.pid, self._processors)
        os.sched_setscheduler(self._process.pid, os.SCHED_OTHER, os.sched_param(0))
        if (semaphore := self._semaphore()) >= 0:
            LIBC.semctl(semaphore, 0, 0)  # removes it
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "sub").mkdir(parents=True)
        (self.folder / "old.txt").write_text("old")
        with closing(sqlite3.connect(self.folder / "db.sqlite")) as conn:
            conn.execute("create table t (x)")
            conn.execute("insert into t values (1)")
            conn.commit()
        return self.hash()

    def hash(self) -> str:
        """Over names, modes, contents, attributes, and the times of files; and over the others."""
        pid = self._process.pid
        limits, processors = resource.prlimit(pid, resource.RLIMIT_NOFILE), sorted(os.sched_getaffinity(pid))
        how = os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)
        found = hashlib.sha256(repr((limits, processors, how, self._semaphore() >= 0)).encode())
        for path in sorted((self.folder, *self.folder.rglob("*"))):
            facts = path.lstat() if path.is_symlink() or path.exists() else None
            content = path.read_bytes() if path.is_file() else b""
            times = facts.st_mtime_ns if facts and path.is_file() else 0
            attributes = os.listxattr(path) if path.is_file() else []
            found.update(repr((str(path), facts and facts.st_mode, times, attributes, content)).encode())
        return found.hexdigest()

    def _semaphore(self) -> int:
        return int(LIBC.semget(self.facts["key"], 0, 0))

    def close(self) -> None:
        self.fresh_folder()
        for listener in self._listeners:
            listener.close()
        self._process.communicate(b"\n", timeout=10)


class Child:
    """A process of `guarded_child`."""

    def __init__(self, process: subprocess.Popen[str], answers: Any, outside: Outside) -> None:
        self.process = process
        self._answers = answers
        self._outside = outside
        self.hello: dict[str, Any] = self._read()

    def do(self, deed: str) -> dict[str, Any]:
        """One deed: its result or error and its leaks, who arrived (`arrived`), whether files differ (`changed`)."""
        before, hash_before = self._outside.arrivals(), self._outside.fresh_folder()
        world = {**self._outside.facts, "folder": str(self._outside.folder)}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"deed": deed, "world": world}) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        arrived, changed = self._outside.arrivals() - before, self._outside.hash() != hash_before
        return {**answer, "arrived": arrived, "changed": changed}

    def _read(self) -> dict[str, Any]:
        line = self._answers.readline()
        assert line, f"the child ended with {self.process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def child(outside: Outside, scratch: Path, *, guard: bool = True, **job: Any) -> Iterator[Child]:
    """Start one; `job` goes to `guarded_child`."""
    environ = scrub_environment({**os.environ, "PYTHONPATH": str(HERE)}, scratch=scratch)
    read, write = os.pipe()
    text = json.dumps({"guard": guard, "scratch": str(scratch), "answers": write, **job})
    command = [sys.executable, str(HERE / "guarded_child.py"), text]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environ, pass_fds=[write], text=True)
    os.close(write)
    try:
        with os.fdopen(read) as answers:
            yield Child(process, answers, outside)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()
