"""The outline of a line trace: how deep the stack is where, and where exceptions are."""

from __future__ import annotations

from typing import Final

from kairos.replay.trace.history import Trace
from kairos.replay.trace.layout import Kind

BINS: Final = 200
MAX_MARKS: Final = 400


def shape_of(trace: Trace) -> tuple[str, list[int]]:
    """The depth of the stack over the trace as the path of an area, 1,000 wide and 20 high; and where it raises."""
    count = min(BINS, len(trace))
    depths = [len(trace.stack(i * len(trace) // count)) for i in range(count)]
    most = max(max(depths), 2)
    wide = 1_000 / count
    steps = "".join(f"V{20 - 18 * depth / most:.1f}H{(i + 1) * wide:.1f}" for i, depth in enumerate(depths))
    raised = (at for at, kind in enumerate(trace.file.kinds) if kind == Kind.EXCEPTION)
    marks = dict.fromkeys(at * 1_000 // len(trace) for at in raised)
    return f"M0 20{steps}V20Z", list(marks)[:MAX_MARKS]
