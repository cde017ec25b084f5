"""A moment of a run, as its address says it: which seq, step, attempt, pane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from debugger_ui.histories import History

PANES: Final = ("summary", "input", "output", "error", "effects", "logs", "code", "event", "diff")
MAX_QUERY: Final = 200
MAX_POINTER: Final = 4_000
_FATAL: Final = ("step_dead", "step_expired", "run_expired", "run_cancelled", "run_failed")


@dataclass(frozen=True, slots=True)
class Moment:
    """What the page looks at.

    Attributes:
        at: the playhead: the state is the one after this seq.
        step: the step that the inspector shows; None means the run.
        attempt: None means the last one at that moment.
        mark: the other moment, for the difference.
        view: `timeline` or `graph`.
        line: where in the step's line trace: `billing.py:88~3`, `@38`, or `here` for where one begins.
        value, path: the place in a value that was pointed at: `12.output`, and a JSON pointer into it.
        origin: `back` or `forward`: what is asked about that place.
        q: the text that is searched for in the values of the run.
        notice: what the address asked for and the run does not have.
    """

    at: int
    step: str | None = None
    attempt: int | None = None
    pane: str = "summary"
    mark: int | None = None
    view: str = "timeline"
    opened: str = ""
    value: str = ""
    path: str = ""
    origin: str = ""
    q: str = ""
    follows: bool = False
    notice: str | None = None
    line: str = ""

    def query(self, **changes: object) -> str:
        """The query of the address of this moment, changed; with its question mark."""
        moment = replace(self, **changes)  # type: ignore[arg-type]
        facts: dict[str, object] = {"at": moment.at}
        if moment.step is not None:
            facts["step"] = moment.step
        if moment.attempt is not None:
            facts["attempt"] = moment.attempt
        if moment.pane != "summary":
            facts["pane"] = moment.pane
        if moment.mark is not None:
            facts["mark"] = moment.mark
        if moment.view != "timeline":
            facts["view"] = moment.view
        if moment.opened:
            facts["open"] = moment.opened
        if moment.line and moment.pane == "code" and moment.step == self.step:
            facts["line"] = moment.line
        facts |= {name: text for name in ("value", "path", "origin", "q") if (text := getattr(moment, name))}
        return "?" + urlencode(facts)


def read_moment(history: History, query: Mapping[str, str]) -> Moment:
    """The moment that an address means. What the run does not have becomes a notice, never an error."""
    notices: list[str] = []
    at, follows = _at(history, query, notices)
    step = query.get("step")
    if step is not None and step not in history.definition.graph.steps:
        notices.append(f"This run has no step {step[:80]!r}.")
        step = None
    if step is None and "at" not in query and "t" not in query and "step" not in query:
        step = history.entries[at - 1].step if at and _went_wrong(history) else None
    pane = query.get("pane", "")
    if pane not in PANES:
        pane = _usual_pane(history, step, "at" in query)
    return Moment(
        at,
        step,
        _number(query.get("attempt")),
        pane,
        _within(history, _number(query.get("mark"))),
        "graph" if query.get("view") == "graph" else "timeline",
        query.get("open", "")[:200],
        query.get("value", "")[:300],
        query.get("path", "")[:MAX_POINTER],
        origin if (origin := query.get("origin")) in ("back", "forward") else "",
        query.get("q", "")[:MAX_QUERY],
        follows,
        " ".join(notices) or None,
        query.get("line", "")[:400],
    )


def failure_seq(history: History) -> int | None:
    """Where it went wrong for good: the step that blocked the rest was given up; None if nothing did."""
    return history.first_of(*_FATAL)


def _went_wrong(history: History) -> bool:
    return history.is_over and history.state.status.value != "DONE"


def _usual_pane(history: History, step: str | None, is_asked: bool) -> str:
    return "error" if step is not None and _went_wrong(history) and not is_asked else "summary"


def _at(history: History, query: Mapping[str, str], notices: list[str]) -> tuple[int, bool]:
    given, last = query.get("at", ""), history.seq
    if not given and "t" in query:
        return _at_time(history, query["t"], notices), False
    if given in ("", "fail"):
        failure = failure_seq(history) if history.is_over or given else None
        if failure is not None:
            return failure, False
        if given:
            notices.append("Nothing has failed in this run.")
        return last, history.grows
    if given in ("last", "live"):
        return last, history.grows and (given == "live" or not history.is_over)
    if given == "first":
        return min(1, last), False
    seq = _number(given)
    if seq is None:
        notices.append(f"{given[:40]!r} is not a moment: write a number from 1 to {last:,}.")
        return last, False
    if seq > last:
        notices.append(f"There is no event {seq:,}: the last one is #{last:,}.")
    return max(0, min(seq, last)), False


def _at_time(history: History, text: str, notices: list[str]) -> int:
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))
        return history.seq_at(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except ValueError:
        notices.append(f"{text[:40]!r} is not a time in ISO 8601.")
        return history.seq


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 10 else None


def _within(history: History, seq: int | None) -> int | None:
    return None if seq is None else min(seq, history.seq)
