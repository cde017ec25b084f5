"""A run out of a bundle, in the form in which the commands show runs of the database."""

from __future__ import annotations

from pathlib import Path

from kairos.cli.payloads import value_of
from kairos.cli.story import Story
from kairos.cli.waiting import Ending, output_value
from kairos.domain.projection import RunState
from kairos.domain.states import RunStatus
from kairos.errors import HistoryError
from kairos.replay.bundle import open_bundle
from kairos.replay.heads import info_of
from kairos.replay.record import RunRecord
from kairos.store.reader import RunInfo

LEFT_OUT = "(left out of the bundle)"


def open_story(name: str, upto: int | None = None) -> tuple[RunRecord, Story]:
    """The run of a bundle, folded up to event `upto`. Raises BundleError."""
    record = open_bundle(Path(name))
    story = Story(info_of(record), RunState(record.run_id, record.definition.graph))
    story.take(record.history[:upto])
    return record, story


def ending_of(record: RunRecord, info: RunInfo) -> Ending | None:
    """How it ended; None if it had not."""
    if not info.status.is_terminal:
        return None
    steps = record.state.steps
    error = steps[info.failed_steps[0]].error if info.failed_steps else None
    if info.status is not RunStatus.DONE:
        return Ending(info, None, error)
    sinks = {name: steps[name].output for name in info.outputs or {}}
    try:
        raw = {name: record.bytes_of(output) for name, output in sinks.items() if output is not None}
    except HistoryError:
        return Ending(info, LEFT_OUT)
    return Ending(info, output_value(raw))


def input_of(record: RunRecord) -> object:
    """The run's input."""
    try:
        return value_of(record.bytes_of(record.state.input))
    except HistoryError:
        return LEFT_OUT
