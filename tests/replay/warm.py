"""Runs `kairos` commands in forks of a process that has loaded what they need.

A command spends most of a second on imports, and these tests call some two hundred. Each is a process of its own
all the same: it has its own folder, environment and streams, and its children are started as for a user. How a command
starts from nothing is tested in `tests/cli/test_entry.py` and on terminals in `tests/replay/stopping`.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Warm:
    """One such process; not for concurrent use."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.replay.warm"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.close)

    def run(
        self, arguments: tuple[str, ...], place: Path, env: Mapping[str, str], stdin: str = "", timeout: float = 60
    ) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of one command."""
        with tempfile.TemporaryDirectory() as folder:
            streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
            for stream, text in zip(streams, (stdin, "", ""), strict=True):
                stream.write_text(text)
            code = self._ask(
                {
                    "arguments": arguments, "place": str(place), "env": dict(env), "timeout": int(timeout),
                    "streams": list(map(str, streams)),
                }
            )  # fmt: skip
            return code, streams[1].read_text(), streams[2].read_text()

    def _ask(self, request: Mapping[str, object]) -> int:
        asks, hears = self._process.stdin, self._process.stdout
        assert asks is not None
        assert hears is not None
        asks.write(json.dumps(request) + "\n")
        asks.flush()
        return int(hears.readline())

    def close(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait(10)


def _serve() -> None:
    import kairos.cli.backtesting
    import kairos.cli.pinning
    import kairos.cli.replay_session
    import kairos.cli.replaying  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(request)
        signal.signal(signal.SIGALRM, lambda *_, pid=pid: os.kill(pid, signal.SIGKILL))
        signal.alarm(request["timeout"])
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        signal.alarm(0)
        print(code, flush=True)


def _become(request: Mapping[str, Any]) -> None:
    from kairos.cli import main

    for number, name in enumerate(request["streams"]):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY), number)
    os.chdir(request["place"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv[:] = ["kairos", *request["arguments"]]
    code: object = 1
    try:
        main()
    except SystemExit as exc:
        code = exc.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    _serve()
