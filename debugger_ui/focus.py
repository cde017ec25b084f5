"""Which value a page looks at: a field of an event, and a place inside of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from debugger_ui import values
from debugger_ui.histories import History
from kairos.domain import paths
from kairos.domain.editing import INPUT, written
from kairos.domain.holders import Holder
from kairos.errors import InvalidArgument

Key = str | int


@dataclass(frozen=True, slots=True)
class Focus:
    """A place in a value, as addresses write it: `value=12.output`, `path=/lines/3/sku`.

    Attributes:
        seq, part: the event, and the field that holds the value.
        of: the step, when one event holds the values of many.
        path: a JSON pointer into the value; empty for the value itself.
    """

    seq: int
    part: str
    of: str = ""
    path: str = ""

    @property
    def value(self) -> str:
        """The value as one word: `12.output`, `3.output.reserve`."""
        return f"{self.seq}.{self.part}" + (f".{self.of}" if self.of else "")

    def query(self, **more: object) -> str:
        """As the query of an address."""
        facts: dict[str, object] = {"seq": self.seq, "part": self.part}
        if self.of:
            facts["of"] = self.of
        return "?" + urlencode({**facts, "path": self.path, **more})

    def within(self) -> Focus:
        """The same place, when it was pointed at in an event as a whole: `/output/x` there is `/x` in its output."""
        if self.part != values.EVENT:
            return self
        part, _, rest = self.path[1:].partition("/")
        if part not in values.PARTS:
            return self
        return Focus(self.seq, part, self.of, f"/{rest}" if rest or self.path.count("/") > 1 else "")


def read_value_word(text: str, path: str) -> Focus | None:
    """The inverse of `Focus.value`; None if it is none."""
    seq, _, rest = text.partition(".")
    part, _, of = rest.partition(".")
    if not (seq.isascii() and seq.isdecimal() and len(seq) < 10) or part not in (*values.PARTS, values.EVENT):
        return None
    return Focus(int(seq), part, of, path)


def focus_on(holder: Holder, keys: Sequence[Key] = ()) -> Focus:
    """The focus on a place in a value of the run."""
    of = holder.step or "" if holder.kind == "steps_inherited" else ""
    return Focus(holder.seq, holder.part, of, values.pointer(keys))


def pane_of(holder: Holder) -> str:
    """The pane of the inspector that shows a value."""
    return {"input": "input", "output": "output"}.get(holder.part, "effects")


def owner_of(holder: Holder) -> str:
    """What a value is called: `input`, `charge.output`, `charge: rate #2, result`."""
    if holder.step is None:
        return INPUT
    if holder.effect is None:
        return holder.step
    name, ordinal = holder.effect
    return f"{name}{f' #{ordinal}' if ordinal > 1 else ''}"


def path_of(holder: Holder, keys: Sequence[Key]) -> str:
    """A place as `--set` writes it: `input.amount`, `reserve.lines[3].sku`; inside of an effect, the place alone."""
    if holder.effect is not None:
        return paths.text_of(tuple(keys))
    return written(holder.step or INPUT, keys)


def looked_at(history: History, step: str | None, pane: str, path: str) -> Focus | None:
    """The value that a pane shows first: what `path=` means without `value=`."""
    if pane == "output" and step is not None:
        entry = values.step_output(history, step)
        if entry is not None:
            return Focus(entry.seq, "output", step if entry.kind == "steps_inherited" else "", path)
    if pane == "input" and step is None and history.seq:
        return Focus(1, "input", "", path)
    return None


def must_be(holder: Holder | None, focus: Focus) -> Holder:
    """The value, if there is one. Raises InvalidArgument."""
    if holder is None:
        raise InvalidArgument(f"event {focus.seq:,} holds no {focus.part}")
    return holder
