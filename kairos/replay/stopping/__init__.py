"""Stops a replayed step in the user's own debugger: pdb on the terminal, or an IDE through debugpy.

Reading order: breakpoints (what was asked for), lines (where that is in a function), facts (what the record says of
the step), stops (what the replay's child calls), console (pdb), attaching and vendored (debugpy), ended (failures and
differences, after the fact), vscode (launch.json). Runs no step, reads no record.
"""

from __future__ import annotations
