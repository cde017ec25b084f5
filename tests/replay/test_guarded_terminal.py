"""pdb on a real terminal under the guards."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from kairos.replay.guard import scrub_environment


def read(terminal: int, until: str | None = None) -> str:
    """What the process writes, until this text or its end."""
    seen = ""
    while until is None or until not in seen:
        try:
            seen += os.read(terminal, 4096).decode()
        except OSError:  # nobody has the other end open any more
            break
    return seen


def test_pdb_works_on_a_terminal_and_leaves_no_history(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, str(Path(__file__).with_name("at_terminal.py")), str(scratch)]
    terminal, end = pty.openpty()
    environ = scrub_environment(os.environ, scratch=scratch)
    with subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=environ, start_new_session=True) as process:
        os.close(end)
        seen = ""
        for line in ("p amount * 1000", "n", "import socket; socket.create_connection(('127.0.0.1', 1))", "c"):
            seen += read(terminal, "(Pdb) ")
            os.write(terminal, f"{line}\n".encode())
        seen += read(terminal)
        os.close(terminal)
    assert "terminals [True, True]" in seen
    assert "written to the terminal" in seen
    assert "21000" in seen
    assert "the guards stopped what was typed here: reaches for 127.0.0.1:1; it does not count for the step" in seen
    assert "leaks []" in seen
    assert "step 42" in seen
    assert process.returncode == 0
    assert list(scratch.iterdir()) == []
