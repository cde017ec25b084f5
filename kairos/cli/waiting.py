"""Waits for a run from the command line and prints how it ended: output or error, and an exit code."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.documents import error_json
from kairos.cli.failures import failure_lines
from kairos.cli.live import follow_live, follow_lines
from kairos.cli.payloads import print_value
from kairos.cli.terminal import err, is_live, note, out, print_json, safe
from kairos.client import AsyncClient, AsyncRun
from kairos.client.aio import output_of
from kairos.domain.error_info import ErrorInfo
from kairos.domain.states import RunStatus
from kairos.store.reader import RunInfo


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, or that it had not when the time was up."""

    info: RunInfo
    output: Any = None
    error: ErrorInfo | None = None
    is_timed_out: bool = False

    @property
    def exit_code(self) -> int:
        """What the command exits with."""
        return exits.TIMED_OUT if self.is_timed_out else exits.BY_STATUS[self.info.status]
