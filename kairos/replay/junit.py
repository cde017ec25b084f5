"""A tally as JUnit XML, as continuous integration reads it: one test case per run.

Holds names, places and numbers of production data, but no values.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree as ET

from kairos.replay.tally import RunLine, Tally
from kairos.replay.verdicts import Verdict

# What XML 1.0 cannot hold, even escaped.
_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(tally: Tally, began: datetime, seconds: float) -> bytes:
    """The document, in UTF-8. `seconds`: how long all of it took."""
    counts = {
        "tests": len(tally.runs),
        "failures": sum(1 for run in tally.differing if not _is_blocked(run)),
        "errors": sum(1 for run in tally.differing if _is_blocked(run)) + len(tally.unreadable),
        "skipped": 0,
    }
    numbers = {name: str(count) for name, count in counts.items()} | {"time": f"{seconds:.3f}"}
    root = ET.Element("testsuites", {"name": "kairos backtest", **numbers})
    stamp = began.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    suite = ET.SubElement(root, "testsuite", {"name": _text(tally.workflow), **numbers, "timestamp": stamp})
    for run in tally.runs:
        _case(suite, tally.workflow, run)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _case(suite: ET.Element, workflow: str, run: RunLine) -> None:
    names = {"classname": f"kairos.{_text(workflow)}", "name": run.run_id, "time": f"{run.seconds:.3f}"}
    case = ET.SubElement(suite, "testcase", names)
    if run.problem:
        ET.SubElement(case, "error", {"type": "unreadable", "message": _text(run.problem)})
        return
    if run.is_same:
        return
    steps = ", ".join(run.ways) or "the import of the app"
    found = ET.SubElement(
        case,
        "error" if _is_blocked(run) else "failure",
        {"type": "blocked" if _is_blocked(run) else "diverged", "message": _text(f"not as recorded: {steps}")},
    )
    lines = [f"{step}: {way.kind} {way.what or '(all)'}" for step, ways in run.ways.items() for way in ways]
    lines.append(f"kairos replay {run.run_id}")
    found.text = _text("\n".join(lines))


def _is_blocked(run: RunLine) -> bool:
    return Verdict.BLOCKED in run.verdicts


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
