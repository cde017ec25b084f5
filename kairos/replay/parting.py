"""What a comparison of two runs comes to, in words."""

from __future__ import annotations

import difflib

from kairos.replay.diffing import RunDiff


def headline(found: RunDiff) -> str:
    """Where two runs part, and why, in one sentence; of runs that are the same, that they are."""
    if found.is_same:
        return "the same: input, outputs, errors and effects agree"
    first = found.first
    if first is None:
        return (
            "the runs were given different input; no step differs"
            if found.input
            else "only the ends of the runs differ"
        )
    name = first.name
    if first.old is None or first.new is None:
        return f"{name}, a step that only {'B' if first.old is None else 'A'} has"
    if found.cause == "input":
        return f"the runs were given different input; {name} is the first step that differs"
    if not first.is_given_the_same:
        return f"{name}, which was given something else: a step before it is in one of the runs only"
    outcome = "and ended otherwise" if "status" in first.what else "and answered otherwise"
    if first.what == ("effects",):
        outcome = "and asked or was told something else on its way"
    why = {"code": "its code changed", "definition": "its definition changed, its code did not"}.get(first.code)
    if why is None:
        answered = any(effect.kind == "result" for effect in first.effects)
        why = (
            "the world outside answered otherwise"
            if answered
            else "its code is the same: look for what is not recorded"
        )
    return f"{name}, which was given the same {outcome}: {why}"


def source_changes(found: RunDiff) -> dict[str, str]:
    """Step -> unified diff of its source, of those whose code changed."""
    changes: dict[str, str] = {}
    for step in found.steps:
        if step.code == "code":
            old, new = (r.definition.sources.get(step.name, "").splitlines() for r in (found.old, found.new))
            before = f"{step.name} (A, {found.old.fingerprint[:8]})"
            after = f"{step.name} (B, {found.new.fingerprint[:8]})"
            changes[step.name] = "\n".join(difflib.unified_diff(old, new, before, after, lineterm=""))
    return changes
