"""The guards as the child of a replay uses them: on before the user's code is imported, asked after each step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kairos.replay import guard
from kairos.replay import messages as m
from kairos.replay.performing import StepCall

OFF = "off: effects really happen"


class Fence:
    """Around everything that the user's code does in this process. With `rules` None it holds nothing back."""

    def __init__(self, rules: m.Guards | None) -> None:
        self._rules = rules
        self._told: set[int] = set()

    def close(self) -> m.Hello:
        """Put the guards up, for good, and say what came of it. Raises GuardUnavailable."""
        if self._rules is None:
            return m.Hello(isolation=OFF, pid=os.getpid())
        rules = self._rules
        policy = guard.Policy(
            scratch=Path(rules.scratch),
            allow_network=rules.network,
            allow_writes=tuple(map(Path, rules.writes)),
            strict=rules.strict,
            keep_environment=rules.environment,
        )
        isolation = guard.enter(policy)
        layers = {layer.name: f"{layer.state}: {layer.detail}".removesuffix(": ") for layer in isolation.layers}
        return m.Hello(isolation=isolation.line(), layers=layers, pid=os.getpid())

    def begin(self, call: StepCall) -> None:
        """From now on what leaks belongs to this call."""
        guard.begin_step(_key(call), call.step.fn)

    def explain(self, exc: BaseException) -> None:
        """Look whether an error is the answer to a leak that only the kernel saw."""
        if self._rules is not None:
            guard.explain_error(exc)

    def of(self, call: StepCall) -> tuple[m.Leak, ...]:
        """What leaked in this step."""
        key = _key(call)
        return self._take(leak for leak in guard.leaks() if leak.step == key)

    def late(self, call: StepCall | None) -> list[m.Late]:
        """What leaked since the last look in threads that other steps have left running, by step."""
        current = None if call is None else _key(call)
        found: dict[str, list[guard.Leak]] = {}
        for leak in guard.leaks():
            if leak.step and leak.step != current and id(leak) not in self._told:
                found.setdefault(leak.step, []).append(leak)
        return [_late(key, self._take(iter(leaks))) for key, leaks in found.items()]

    def new(self) -> tuple[m.Leak, ...]:
        """What leaked outside of any step, and was not told yet."""
        return self._take(leak for leak in guard.leaks() if not leak.step)

    def _take(self, leaks: Iterator[guard.Leak]) -> tuple[m.Leak, ...]:
        fresh = [leak for leak in leaks if id(leak) not in self._told]
        self._told.update(map(id, fresh))
        return tuple(map(_message, fresh))


def _key(call: StepCall) -> str:
    # Of this very call: the guards tell each leak once, and one child replays many runs.
    return f"{call.ctx.run_id} {call.step.name} {id(call)}"


def _late(key: str, leaks: tuple[m.Leak, ...]) -> m.Late:
    run, _, rest = key.partition(" ")
    return m.Late(run=run, step=rest.rpartition(" ")[0], leaks=leaks)


def _message(leak: guard.Leak) -> m.Leak:
    return m.Leak(
        kind=leak.kind, what=leak.what, target=leak.target, file=leak.file, line=leak.line, function=leak.function,
        hint=leak.hint, at_import=leak.at_import,
    )  # fmt: skip
