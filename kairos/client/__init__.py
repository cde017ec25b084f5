"""What programs use to start runs and look at them: `Client`, `AsyncClient`, `Run`, `AsyncRun`."""

from __future__ import annotations

from kairos.client.aio import AsyncClient, AsyncRun
from kairos.client.blocking import Client, Run

__all__ = ["AsyncClient", "AsyncRun", "Client", "Run"]
