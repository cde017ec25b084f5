"""What is known of the step at which a debugger stops: its inputs, and what the record holds to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pprint import pformat
from typing import TYPE_CHECKING, Any

from kairos.authoring.display import show
from kairos.authoring.redaction import PLACEHOLDER, Redactor
from kairos.domain import canonical
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import EffectRecorded

if TYPE_CHECKING:
    from kairos.authoring.context import StepContext
    from kairos.authoring.step import Step

MAX_SHOWN = 4_000
"""Characters of a recorded value, unless all of it is asked for."""
_MAX_ARGUMENT = 160


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One attempt of one step, as replayed.

    Attributes:
        arguments: what the function is called with, by parameter.
        inputs: the recorded values of those parameters that have one, as plain JSON values.
        output: the recorded output, as canonical JSON; None if there is none.
        error: the recorded error; None if the attempt did not fail.
        effects: what the world answered then, in order.
        plain: makes a value of the step's output type the plain JSON value that would be recorded.
        ignore: rules for differences that do not count.
        bytes_of: the bytes of a recorded payload.
    """

    run: str
    workflow: str
    step: str
    attempt: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, bytes] = field(default_factory=dict)
    output: bytes | None = None
    error: ErrorInfo | None = None
    effects: Sequence[EffectRecorded] = ()
    plain: Callable[[Any], Any] = lambda value: value
    ignore: Sequence[str] = ()
    bytes_of: Callable[[Any], bytes] = lambda payload: payload.data or b"null"
    redactor: Redactor = field(default_factory=Redactor)

    @property
    def title(self) -> str:
        """`charge, attempt 2 of run 0190...`."""
        return f"{self.step}, attempt {self.attempt}, of run {self.run} ({self.workflow})"


def facts_of(
    step: Step[..., Any],
    ctx: StepContext,
    run_input: bytes,
    upstream: Mapping[str, bytes],
    arguments: Mapping[str, Any],
    *,
    output: bytes | None = None,
    error: ErrorInfo | None = None,
    effects: Sequence[EffectRecorded] = (),
    ignore: Sequence[str] = (),
    bytes_of: Callable[[Any], bytes] | None = None,
) -> Facts:
    """The facts of one attempt, from what an executor has at hand; `arguments` is what `Step.bind` made."""

    def plain(value: Any) -> Any:
        return canonical.decode(step.output_adapter.encode(value, step.returned, ctx.redactor).data or b"null")

    inputs = {s.parameter: run_input if s.step is None else upstream.get(s.step, b"null") for s in step.plan.sources}
    if step.plan.model is not None:
        inputs |= {"input": run_input}
    more = {} if bytes_of is None else {"bytes_of": bytes_of}
    return Facts(
        run=ctx.run_id,
        workflow=ctx.workflow,
        step=step.name,
        attempt=ctx.attempt,
        arguments=arguments,
        inputs=inputs,
        output=output,
        error=error,
        effects=effects,
        plain=plain,
        ignore=ignore,
        redactor=ctx.redactor,
        **more,
    )


def argument_lines(facts: Facts) -> Iterator[str]:
    """`  order = Order(...)`, a line for each argument: bounded, without secrets, without running their `__repr__`."""
    width = max((len(name) for name in facts.arguments), default=0)
    for name, value in facts.arguments.items():
        hidden = facts.redactor.hides(name)
        yield f"  {name:{width}} = {PLACEHOLDER if hidden else show(value, _MAX_ARGUMENT, facts.redactor)}"


def recorded_lines(facts: Facts, *, everything: bool = False) -> Iterator[str]:
    """What the attempt gave when it was recorded."""
    if facts.error is not None:
        yield from error_lines(facts.error)
    elif facts.output is not None:
        yield from value_lines(facts.output, everything=everything)
    else:
        yield "nothing: this attempt had not finished"


def value_lines(raw: bytes, *, everything: bool = False) -> Iterator[str]:
    """A recorded value, laid out."""
    text = pformat(canonical.decode(raw), width=100, sort_dicts=False)
    cut = len(text) - MAX_SHOWN
    yield from (text if everything or cut <= 0 else text[:MAX_SHOWN]).split("\n")
    if cut > 0 and not everything:
        yield f"... {cut:,} more characters; say `all` after the command"


def error_lines(error: ErrorInfo) -> Iterator[str]:
    """A recorded error as it was: frames, message, notes, and the locals of the user's frame."""
    for frame in error.frames:
        if not frame.line:
            yield f"  {frame.function}"
            continue
        yield f'  File "{frame.file}", line {frame.line}, in {frame.function}'
        if frame.code:
            yield f"    {frame.code}"
    yield f"{error.type.removeprefix('builtins.')}: {error.message}"
    yield from (f"  {note}" for note in error.notes)
    if error.locals:
        yield "its locals, as recorded:"
        yield from (f"  {name} = {text}" for name, text in error.locals.items())


def effect_lines(facts: Facts) -> Iterator[str]:
    """The recorded effects: `1  call  rate#1  -> 1.07  (12.3 ms)`."""
    if not facts.effects:
        yield "no effects were recorded in this attempt"
    for number, effect in enumerate(facts.effects, 1):
        if effect.error is not None:
            answer = f"raised {effect.error.summary}"
        else:
            raw = b"null" if effect.result is None else facts.bytes_of(effect.result)
            answer = f"-> {show(canonical.decode(raw), _MAX_ARGUMENT, facts.redactor)}"
        took = f"{effect.duration_us / 1000:.1f} ms"
        yield f"{number:3}  {effect.via:6}  {effect.name}#{effect.ordinal}  {answer}  ({took})"


def difference_lines(facts: Facts, value: Any) -> list[str]:
    """How `value` differs from the recorded output; empty if it does not.

    Raises:
        PayloadError: the step could not return such a value.
    """
    return compared(facts, facts.plain(value))


def compared(facts: Facts, plain: Any) -> list[str]:
    """As `difference_lines`, of a plain JSON value."""
    from kairos.replay.compare import MISSING, compare  # only where somebody asks

    found = compare(canonical.decode(facts.output or b"null"), plain, facts.ignore)

    def text(value: Any) -> str:
        return "nothing" if value is MISSING else show(value, _MAX_ARGUMENT, facts.redactor)

    lines = [f"{item.path or '(all)'}  {item.kind}  {text(item.old)} -> {text(item.new)}" for item in found]
    return [*lines, *([f"and {found.rest} more"] if found.rest else [])]
