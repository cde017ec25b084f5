"""What the parts of one worker share: who it is, what it can run, its slots, sessions and clock."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from kairos.authoring import App, Workflow
from kairos.authoring.threads import Threads
from kairos.settings import WorkerOptions
from kairos.store.clock import DatabaseClock
from kairos.store.connect import Session
from kairos.store.history import Definitions, History

log = logging.getLogger("kairos.worker")


@dataclass(frozen=True, slots=True)
class Identity:
    """One incarnation of a worker. A worker that was declared dead goes on only as a new one."""

    id: UUID
    name: str

    @classmethod
    def new(cls) -> Identity:
        """A fresh id; the name is for people: host, process and a part of the id."""
        fresh = uuid4()
        return cls(fresh, f"{socket.gethostname()[:40]}-{os.getpid()}-{fresh.hex[:4]}")


class Slots:
    """How many bodies may run at once."""

    __slots__ = ("freed", "taken", "total")

    def __init__(self, total: int) -> None:
        self.total, self.taken = total, 0
        self.freed = asyncio.Event()

    @property
    def free(self) -> int:
        """Slots that nothing uses."""
        return self.total - self.taken

    def take(self) -> None:
        """Use one."""
        self.taken += 1

    def give(self, count: int = 1) -> None:
        """Give some back."""
        self.taken -= count
        if count:
            self.freed.set()


@dataclass(slots=True)
class Office:
    """The common ground of a worker's parts."""

    app: App
    dsn: str
    options: WorkerOptions
    identity: Identity
    registry: Mapping[str, Workflow]
    slots: Slots
    clock: DatabaseClock
    flusher: Session
    work: Session
    history: History
    threads: Threads
    peers: int = 0
    stale_writes: int = 0
    stopping: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def definitions(self) -> Definitions:
        """Pinned definitions, by fingerprint."""
        return self.history.definitions

    @property
    def queues(self) -> list[str]:
        """The queues that this worker serves."""
        return list(self.options.queues)

    def claim_params(self, take: int) -> dict[str, object]:
        """Parameters of the claim queries."""
        return {
            "queues": self.queues,
            "fingerprints": list(self.registry),
            "take": take,
            "worker": self.identity.id,
        }
