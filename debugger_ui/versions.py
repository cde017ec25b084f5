"""Two versions of a workflow held against each other: which steps came, went or changed, and their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import unified_diff
from functools import cached_property
from typing import Any, Final

from kairos.domain.fingerprint import Definition, step_fingerprints
from kairos.domain.graph import Graph, StepSpec

CONTEXT: Final = 3
MAX_LINES: Final = 2_000
"""Lines of one step's source up to which it is compared."""
_OPTIONS: Final = ("retry", "timeout_us", "queue", "priority", "ttl_us", "crash_limit", "transactional")


@dataclass(frozen=True)
class StepChange:
    """One step in both versions; None where it is missing.

    `kind`: `added`, `removed`, `changed` or `same`.
    """

    name: str
    kind: str
    old: StepSpec | None
    new: StepSpec | None
    old_source: str
    new_source: str
    what: tuple[str, ...] = ()
    """What has changed: `code`, `output type`, `inputs`, `order` or the name of an option."""

    @cached_property
    def lines(self) -> list[tuple[str, str]]:
        """The source as (`+`, `-`, ` ` or `@`, text); empty if it is the same."""
        if self.old_source == self.new_source:
            return []
        old, new = self.old_source.splitlines(), self.new_source.splitlines()
        if max(len(old), len(new)) > MAX_LINES:
            return [("@", f"longer than {MAX_LINES:,} lines: not compared")]
        found = list(unified_diff(old, new, lineterm="", n=CONTEXT))[2:]
        return [("@", line) if line.startswith("@@") else (line[:1] or " ", line[1:]) for line in found]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "step": self.name,
            "kind": self.kind,
            "what": list(self.what),
            "diff": [kind + text for kind, text in self.lines],
        }


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference between two versions.

    Attributes:
        steps: all of both, in order of the newer one; those that went come last.
        input_changed: whether the type of the run's input is another one.
    """

    steps: list[StepChange]
    input_changed: bool

    @property
    def kinds(self) -> Mapping[str, str]:
        """step -> `added`, `removed`, `changed` or `same`."""
        return {step.name: step.kind for step in self.steps}

    @property
    def found(self) -> list[StepChange]:
        """The steps that are not the same."""
        return [step for step in self.steps if step.kind != "same"]

    def count(self, kind: str) -> int:
        """How many steps are of this kind."""
        return sum(step.kind == kind for step in self.steps)


def compare_versions(old: Definition, new: Definition) -> Changes:
    """What leads from one to the other."""
    before, after = step_fingerprints(old), step_fingerprints(new)
    steps: list[StepChange] = []
    for name in [*new.graph.steps, *(name for name in old.graph.steps if name not in new.graph.steps)]:
        kind = "removed" if name not in after else "added" if name not in before else "changed"
        if before.get(name) == after.get(name):
            kind = "same"
        specs = old.graph.steps.get(name), new.graph.steps.get(name)
        what = _what(name, old, new) if kind == "changed" else ()
        steps.append(StepChange(name, kind, *specs, old.sources.get(name, ""), new.sources.get(name, ""), what))
    return Changes(steps, old.schemas.get("") != new.schemas.get(""))


def both(old: Definition, new: Definition) -> Graph:
    """The newer graph with the steps that went, where they were. They lead to nothing that is left."""
    gone = {name: spec for name, spec in old.graph.steps.items() if name not in new.graph.steps}
    return Graph(new.workflow, {**new.graph.steps, **gone})


def _what(name: str, old: Definition, new: Definition) -> tuple[str, ...]:
    before, after = old.graph.steps[name].to_json(), new.graph.steps[name].to_json()
    found = ["code"] if old.code.get(name) != new.code.get(name) else []
    found += ["output type"] if old.schemas.get(name) != new.schemas.get(name) else []
    found += ["inputs"] if before["needs"] != after["needs"] else []
    found += ["order"] if before["after"] != after["after"] else []
    return (*found, *(option.removesuffix("_us") for option in _OPTIONS if before[option] != after[option]))
