"""Which events of a run hold values, and who was given them: the declared wiring, as it came to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kairos.domain.events import (
    EffectRecorded,
    Event,
    Recorded,
    RunDone,
    RunForked,
    RunScheduled,
    StepDone,
    StepOverridden,
    StepsInherited,
    StepStarted,
    output_in,
)
from kairos.domain.graph import Graph
from kairos.domain.payload import Payload


@dataclass(frozen=True, slots=True, eq=False)
class Holder:
    """One value in the log: field `part` of event `seq`.

    Attributes:
        part: `input`, `output`, `arguments` or `result`.
        step: whose value it is; None for the input of the run.
        kind: of the event.
        effect: (name, ordinal) of a recorded effect.
        run: the run in which an inherited output was really made, and there the seq of its event.
    """

    seq: int
    part: str
    step: str | None
    kind: str
    payload: Payload
    attempt: int | None = None
    effect: tuple[str, int] | None = None
    run: tuple[str, int] | None = None

    @property
    def is_output(self) -> bool:
        """Whether it is what a step handed on."""
        return self.part == "output"


@dataclass
class Ledger:
    """All values of a run, in order of the log. Grows by `take`.

    Attributes:
        outputs: step -> its output, the latest.
        began: step -> seq of its first attempt's start.
        returned: steps whose outputs are the output of the run -> seq of the event that says so.
    """

    graph: Graph
    holders: list[Holder] = field(default_factory=list)
    outputs: dict[str, Holder] = field(default_factory=dict)
    effects: dict[str, list[Holder]] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    returned: dict[str, int] = field(default_factory=dict)
    forked: RunForked | None = None
    input: Holder | None = None
    consumers: dict[str, list[str]] = field(default_factory=dict)
    upto: int = 0

    def __post_init__(self) -> None:
        for name, spec in self.graph.steps.items():
            for giver in dict.fromkeys(spec.needs.values()):
                self.consumers.setdefault(giver, []).append(name)

    def take(self, seq: int, recorded: Recorded | None) -> None:
        """Add the next event; None for one that cannot be read."""
        self.upto = seq
        if recorded is None:
            return
        for holder in held_by(seq, recorded.event):
            self.holders.append(holder)
            if holder.is_output and holder.step is not None:
                self.outputs[holder.step] = holder
            elif holder.effect is not None and holder.step is not None:
                self.effects.setdefault(holder.step, []).append(holder)
            else:
                self.input = holder
        match recorded.event:
            case StepStarted(step=step):
                self.began.setdefault(step, seq)
            case RunDone(outputs=outputs):
                self.returned = dict.fromkeys(outputs, seq)
            case RunForked():
                self.forked = recorded.event
            case _:
                pass

    def holder(self, seq: int, part: str, step: str | None = None) -> Holder | None:
        """The value in a field of an event; `step` tells the many apart that one event may hold."""
        low, high = 0, len(self.holders)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.holders[middle].seq < seq else (low, middle)
        while low < len(self.holders) and self.holders[low].seq == seq:
            found = self.holders[low]
            if found.part == part and (found.kind != "steps_inherited" or found.step == step):
                return found
            low += 1
        return None

    def given(self, holder: Holder) -> list[Holder]:
        """What the code that made this value had been given, nearest first: by its parameters, the run, its effects.

        Of an effect's result: what was asked with. Of the input of the run, and of what a fork gave or took over:
        nothing.
        """
        if holder.kind not in ("step_done", "effect_recorded") or holder.step is None:
            return []
        if holder.part == "result":
            asked = self.holder(holder.seq, "arguments")
            return [] if asked is None else [asked]
        effects = {h.effect: h for h in self.effects.get(holder.step, ()) if h.part == "result" and h.seq < holder.seq}
        near = [*self._needed(holder.step, holder.seq), *effects.values()]
        near.sort(key=lambda h: -h.seq)
        return near if self.input is None else [*near, self.input]

    def earlier(self, holder: Holder) -> list[Holder]:
        """The values of all steps before this one that it was not given, the latest first."""
        if holder.step is None or holder.kind not in ("step_done", "effect_recorded"):
            return []
        near = set(self.given(holder))
        found = []
        for step in self._around(holder.step, up=True):
            found += [h for h in self._of(step) if h.seq < holder.seq and h not in near]
        return sorted(found, key=lambda h: -h.seq)

    def before(self, holder: Holder) -> list[Holder]:
        """Every value that may have gone into this one, the nearest first."""
        if holder.step is None or holder.kind not in ("step_done", "effect_recorded"):
            return []
        found = []
        for step in (holder.step, *self._around(holder.step, up=True)):
            found += [h for h in self._of(step) if h.seq <= holder.seq and h is not holder]
        return found if self.input is None else [*found, self.input]

    def after(self, holder: Holder) -> list[Holder]:
        """Every value that this one may have gone into, the nearest first."""
        steps = self.graph.steps if holder.step is None else (holder.step, *self._around(holder.step, up=False))
        return [h for step in steps for h in self._of(step) if h.seq >= holder.seq and h is not holder]

    def _of(self, step: str) -> list[Holder]:
        output = self.outputs.get(step)
        return [*self.effects.get(step, ()), *([] if output is None else [output])]

    def taken(self, holder: Holder) -> list[tuple[str, list[Holder]]]:
        """Who was given this value: steps, each with the values that it made afterwards, oldest first."""
        if holder.part == "arguments":
            return [(holder.step or "", list(filter(None, [self.holder(holder.seq, "result")])))]
        if holder.part == "result":
            steps = [holder.step or ""]
        else:
            steps = list(self.graph.steps) if holder.step is None else self.consumers.get(holder.step, [])
        return [(step, list(self._made(step, holder.seq))) for step in steps]

    def _needed(self, step: str, before: int) -> list[Holder]:
        givers = dict.fromkeys(self.graph.steps[step].needs.values()) if step in self.graph.steps else ()
        return [h for name in givers if (h := self.outputs.get(name)) is not None and h.seq < before]

    def _made(self, step: str, after: int) -> Iterator[Holder]:
        for holder in self.effects.get(step, ()):
            if holder.part == "arguments" and holder.seq > after:
                yield holder
        output = self.outputs.get(step)
        if output is not None and output.kind == "step_done" and output.seq > after:
            yield output

    def _around(self, step: str, *, up: bool) -> list[str]:
        """Every step that was before this one, or comes after it, the nearest first."""
        seen = {step: None}
        queue = [step]
        for name in queue:
            spec = self.graph.steps.get(name)
            if spec is None:
                continue
            for other in spec.upstream if up else self.graph.downstream[name]:
                if other not in seen:
                    seen[other] = None
                    queue.append(other)
        return queue[1:]


def held_by(seq: int, event: Event) -> Iterator[Holder]:
    """The values that an event holds."""
    kind = event.kind
    match event:
        case RunScheduled():
            yield Holder(seq, "input", None, kind, event.input)
        case StepDone():
            yield Holder(seq, "output", event.step, kind, event.output, event.attempt)
        case StepOverridden():
            yield Holder(seq, "output", event.step, kind, event.output)
        case StepsInherited():
            for step, (origin, *_) in event.outputs.items():
                payload = output_in(event, step)
                if payload is not None:
                    yield Holder(seq, "output", step, kind, payload, run=(event.run, origin))
        case EffectRecorded():
            effect = (event.name, event.ordinal)
            for part, payload in (("arguments", event.arguments), ("result", event.result)):
                if payload is not None:
                    yield Holder(seq, part, event.step, kind, payload, event.attempt, effect)
        case _:
            pass
