"""What a worker keeps of a run that it owns."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from msgspec import Struct, field

from kairos.domain.commands import Command, RecordEffect
from kairos.domain.events import EffectRecorded, StepStarted
from kairos.store.codec import Row
from kairos.store.drive import OpenRun

if TYPE_CHECKING:
    from kairos.authoring.context import StepContext
    from kairos.authoring.workflow import Workflow
    from kairos.engine.bodies import Sink
    from kairos.engine.journal import Journal


class Body(Struct, eq=False):
    """One attempt that runs in this process (or in a child of it)."""

    step: str
    attempt: int
    token: int
    ctx: StepContext
    sink: Sink
    task: asyncio.Task[None] | None = None


class HeldRun(Struct, eq=False):
    """A run under this worker's epoch.

    Attributes:
        open: the run in memory; ahead of the database by `rows`.
        expected: last seq that is known to be committed.
        name: the run's id as text.
        inbox: commands not yet decided.
        taken: commands decided into `rows`, kept so that they can be decided again if a flush is refused.
        starting: attempts whose start is in `rows`; their bodies begin when it is committed.
        effects: effects that are in `rows`; their steps go on when they are committed.
        begun: (step, attempt, token) of bodies that began before their start was committed.
        bodies: attempts under way, by step.
        retries: step -> when its next attempt is due.
        suspects: steps that must run alone in a child process, beyond those the log names.
        offered: steps that are out as tasks for any worker; while there are any, all appends of this run
            take the slow path.
        timer: wakes the run when its next retry or expiry is due.
        is_served: every step of it may run here, as far as queues go.
        in_flight: `rows` have been sent and not been answered yet.
        look_again: something happened meanwhile; whoever brings the answer has the run looked at.
        resend: what became of `rows` is not known; they are sent again before anything is added to them.
        dropped: why the run is not ours any more.
    """

    open: OpenRun
    workflow: Workflow
    expected: int
    name: str
    inbox: list[Command] = field(default_factory=list)
    taken: list[Command] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    starting: list[StepStarted] = field(default_factory=list)
    effects: list[EffectRecorded] = field(default_factory=list)
    begun: set[tuple[str, int, int]] = field(default_factory=set)
    bodies: dict[str, Body] = field(default_factory=dict)
    retries: dict[str, datetime] = field(default_factory=dict)
    suspects: set[str] = field(default_factory=set)
    offered: set[str] = field(default_factory=set)
    to_offer: list[str] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    cancel_timer: asyncio.TimerHandle | None = None
    has_ttl: bool = False
    has_priority: bool = False
    is_served: bool = False
    is_queued: bool = False
    is_slow: bool = False
    in_flight: bool = False
    look_again: bool = False
    resend: bool = False
    dropped: str | None = None

    @property
    def run_id(self) -> UUID:
        """The run's id."""
        return self.open.state.run_id

    def journal_of(self, effect: RecordEffect | EffectRecorded) -> Journal | None:
        """The journal that an effect came from, if its attempt is still under way."""
        body = self.bodies.get(effect.step)
        return body.sink.opened if body is not None and body.token == effect.token else None

    def stop_timers(self) -> None:
        """Cancel what would wake this run later."""
        for timer in (self.timer, self.cancel_timer):
            if timer is not None:
                timer.cancel()
        self.timer = self.cancel_timer = None
