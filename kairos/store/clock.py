"""The worker's estimate of the database's clock. Every flush and every claim sets it right."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class DatabaseClock:
    """`now()` is the database's time as last heard, plus what has passed since on the monotonic clock."""

    def __init__(self) -> None:
        self._heard = datetime.now(UTC)
        self._at = time.monotonic()

    def hear(self, now: datetime) -> None:
        """Take in a time that the database has just told."""
        self._heard, self._at = now, time.monotonic()

    def now(self) -> datetime:
        """The database's time, as well as it is known."""
        return self._heard + timedelta(seconds=time.monotonic() - self._at)
