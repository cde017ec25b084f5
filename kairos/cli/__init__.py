"""The `kairos` command.

Owns: the shape of every command, what it prints, and its exit code. Each command is declared in a module of
`commands` (its arguments and help, nothing else, so that `kairos --help` is quick) and done in a module
beside this one. Refuses: to decide anything about runs; it asks the client and the store.
"""

from __future__ import annotations

from kairos.cli.entry import main

__all__ = ["main"]
