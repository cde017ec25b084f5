"""How worker processes write their log: one line per record to standard error, as text or as JSON.

User code decides what stands in a message, so control characters are written as escapes: a log line can
neither move the cursor of a terminal nor pretend to be two lines.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import Final, Literal, TextIO

LogFormat = Literal["text", "json"]

_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_COLOURS: Final = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31;1", "DEBUG": "2"}


def configure(form: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Send the log of this process to `stream` (default: standard error)."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    is_coloured = target.isatty() and not os.environ.get("NO_COLOR")
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(is_coloured))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Their chatter at INFO and DEBUG is about sockets and selectors, not about runs.
    for noisy in ("asyncio", "psycopg", "watchfiles"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def escape_prints() -> None:
    """From now on, what user code prints is escaped as the log is (whose handler, once configured, keeps its colours).

    The streams say of themselves that they are no terminal, so that libraries do not colour what would only be
    escaped. What is written past `sys.stdout` and `sys.stderr` (by a subprocess, say) is not seen.
    """
    sys.stdout, sys.stderr = _Escaping(sys.stdout), _Escaping(sys.stderr)


class _Escaping(io.TextIOWrapper):
    def __init__(self, stream: TextIO) -> None:
        # Line by line, so that prints and log lines stay in order.
        super().__init__(stream.buffer, "utf-8", "backslashreplace", line_buffering=True)

    def write(self, text: str) -> int:
        super().write(escape(text))
        return len(text)

    def isatty(self) -> bool:
        return False


class TextFormatter(logging.Formatter):
    """`12:03:27.120 warning  worker_given_up worker=...`, tracebacks below."""

    def __init__(self, is_coloured: bool) -> None:
        super().__init__()
        self._is_coloured = is_coloured

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        level = f"{record.levelname.lower():8}"
        colour = _COLOURS.get(record.levelname)
        if self._is_coloured and colour:
            level = f"\x1b[{colour}m{level}\x1b[0m"
        # A message is one line; only a traceback may be several.
        text = f"{at} {level} {escape(record.getMessage()).replace(chr(10), ' | ')}"
        if record.exc_info:
            text += "\n" + escape(self.formatException(record.exc_info))
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object per line: at, level, logger, pid, message, and error when there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON."""
        data: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            data["error"] = self.formatException(record.exc_info)
        return json.dumps(data)


def escape(text: str) -> str:
    """Write control characters (except newline and tab) and those that reorder text as `\\x1b`, `\\u202e`."""
    return _UNSAFE.sub(lambda m: m[0].encode("unicode_escape").decode(), text)
