"""Exit codes of the `kairos` command. They are part of its interface: scripts depend on them."""

from __future__ import annotations

from typing import Final

from kairos.domain.states import RunStatus

OK: Final = 0
ERROR: Final = 1
"""Something went wrong, or a check found problems."""
USAGE: Final = 2
NO_SUCH_RUN: Final = 4
"""No run matches, or several do; or a bundle cannot be read."""
FAILED: Final = 10
CANCELLED: Final = 11
EXPIRED: Final = 12
TIMED_OUT: Final = 124
"""`--timeout` ran out while the run went on; the number that `timeout(1)` uses."""
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

BY_STATUS: Final = {
    RunStatus.DONE: OK,
    RunStatus.FAILED: FAILED,
    RunStatus.CANCELLED: CANCELLED,
    RunStatus.EXPIRED: EXPIRED,
}
