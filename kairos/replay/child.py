"""The child process of a replay: has the user's code and the record, and neither a database nor a way out.

    python -m kairos.replay.child READ_FD WRITE_FD PARENT_PID

In this order: libraries are loaded, a debugger attaches, the guards go on, the app is imported. Then it replays what it
is asked to, one run after the other, and says what came of each step. It judges nothing: the parent does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from kairos.authoring import secrets
from kairos.authoring.loading import load_app
from kairos.domain import canonical
from kairos.engine.lifeline import die_with_parent
from kairos.errors import KairosError
from kairos.replay import messages as m
from kairos.replay.channel import Channel
from kairos.replay.fencing import Fence
from kairos.replay.performing import Stage
from kairos.replay.playing import Player
from kairos.replay.speaking import Turns, flush, speak_in_turn
from kairos.replay.stopping.stops import Stops

if TYPE_CHECKING:
    from kairos.authoring.app import App

PRELOADED = ("httpx", "requests", "asyncio.subprocess", "encodings.idna", "concurrent.futures.thread", "traceback")
"""Loaded before the guards, if installed: some of these look around on the disk and the network when imported."""
NO_APP = 2
"""Exit code when the app cannot be had."""


def main() -> None:
    """Serve the parent until it has nothing more to ask."""
    read_fd, write_fd, parent = map(int, sys.argv[1:4])
    del sys.argv[1:]
    die_with_parent(parent, signal.SIGKILL)
    channel = Channel(read_fd, write_fd)
    setup = channel.receive()
    if not isinstance(setup, m.Setup):
        sys.exit(NO_APP)
    _preload()
    stand_ins = StandIns(channel)
    secrets.on_absent(stand_ins)
    stage = Stage(setup.timeout, lambda: channel.is_busy)
    fence = Fence(setup.guards)
    turns = Turns(channel)
    if setup.paced:
        speak_in_turn(turns)  # before anybody keeps the streams
    stops = Stops.from_json(setup.debugger)
    try:
        stops.attach()
        stage.observers.append(stops.observe)
        channel.send(fence.close())
        app = _load(setup.app, fence, channel)
    except KairosError as exc:
        channel.send(m.CannotLoad(kind=type(exc).__name__, message=exc.message, hint=exc.hint, leaks=fence.new()))
        app = None
    if app is None:
        _leave(NO_APP)
    channel.send(m.Loaded(app=app.name, workflows=tuple(app.workflows), leaks=fence.new()))
    _serve(app, channel, Player(app, setup, channel, turns, stage, fence, stops), stand_ins)
    _leave(0)


def _serve(app: App, channel: Channel, player: Player, stand_ins: StandIns) -> None:
    while True:
        request = channel.receive()
        match request:
            case m.Describe():
                channel.send(_describe(app, request.workflow))
            case m.Check():
                channel.send(_check(app, request))
            case m.Replay():
                stand_ins.known = request.secrets
                _hear_interrupts()
                channel.send(m.Finished(player.play(request)))
            case None:
                return
            case _:
                pass


def _hear_interrupts() -> None:
    """SIGINT was blocked until now by the parent, who ends all at once before anything runs."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # one that waits is forgotten
    signal.signal(signal.SIGINT, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _load(spec: str, fence: Fence, channel: Channel) -> App | None:
    """Import the user's code. What it raises is the user's, and shown as a traceback."""
    try:
        return load_app(spec)
    except KairosError:
        raise
    except BaseException as exc:
        fence.explain(exc)
        text = "".join(traceback.format_exception(exc.with_traceback(_own_part(exc))))
        kind = type(exc).__name__
        channel.send(m.CannotLoad(kind=kind, message=str(exc), trace=text, leaks=fence.new()))
        return None


def _own_part(exc: BaseException) -> TracebackType | None:
    """The traceback from where the app's code begins."""
    own = str(Path(__file__).resolve().parent.parent) + os.sep
    tb = exc.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith((own, "<frozen importlib")):
        tb = tb.tb_next
    return tb or exc.__traceback__


def _describe(app: App, name: str) -> m.Described:
    workflow = app.workflows.get(name)
    if workflow is None:
        return m.Described(definition=None)
    return m.Described(
        definition=workflow.definition.to_json(),
        fingerprint=workflow.fingerprint,
        ignore=tuple(workflow.replay_ignore),
    )


def _check(app: App, request: m.Check) -> m.Checked:
    workflow = app.workflows[request.workflow]
    try:
        given = request.input
        value = None if given is None else workflow.encode_input(canonical.decode(given)).data
        outputs = {
            name: workflow.steps[name].encode_output(canonical.decode(raw), f"the given output of step {name!r}").data
            for name, raw in request.outputs.items()
        }
        return m.Checked(input=value, outputs={name: raw or b"null" for name, raw in outputs.items()})
    except KairosError as exc:
        return m.Checked(problem=exc.message, hint=exc.hint)


class StandIns:
    """What `Secret.reveal` gives where this process has no value: the developer's own, or something to stand for it.

    Attributes:
        known: reference -> value, of the run that is replayed.
    """

    def __init__(self, channel: Channel) -> None:
        self.known: Mapping[str, str] = {}
        self._channel = channel
        self._told: set[str] = set()

    def __call__(self, reference: str) -> str:
        known = self.known.get(reference)
        if known is not None:
            return known
        if reference not in self._told:
            self._told.add(reference)
            text = f"the secret {reference!r} is not on this machine; a placeholder stands for it"
            self._channel.send(m.Noted(text))
        return f"kairos-replay-placeholder-for-{reference.partition(':')[2]}"


def _preload() -> None:
    for name in PRELOADED:
        with contextlib.suppress(Exception):
            if find_spec(name.partition(".")[0]) is not None:
                __import__(name)


def _leave(code: int) -> NoReturn:
    """End now: what a step has left running must not keep the process."""
    flush()
    os._exit(code)


if __name__ == "__main__":
    main()
