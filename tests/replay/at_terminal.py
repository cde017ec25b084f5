"""What a debugger needs of a terminal, under the guards; started by `test_guarded_terminal` with a terminal."""

from __future__ import annotations

import os
import pdb
import readline
import sys
import termios
import tty
from pathlib import Path

from kairos.replay import guard


def step(amount: int) -> int:
    doubled = amount * 2
    return doubled


def main() -> None:
    # Of a new session, the first terminal that is opened becomes its own.
    os.close(os.open(os.ttyname(0), os.O_RDWR))
    print(guard.enter(guard.Policy(Path(sys.argv[1]), strict=True)).line())
    print("terminals", [stream.isatty() for stream in (sys.stdin, sys.stdout)])
    before = termios.tcgetattr(0)
    tty.setcbreak(0)
    termios.tcsetattr(0, termios.TCSADRAIN, before)
    with open("/dev/tty", "w") as terminal:
        terminal.write("written to the terminal\n")
    print("step", pdb.runcall(step, 21))
    print("history", readline.get_current_history_length(), "leaks", guard.leaks())


if __name__ == "__main__":
    main()
