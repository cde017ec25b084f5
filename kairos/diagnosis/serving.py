"""Which workers could take a piece of work, and why none does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kairos.diagnosis.facts import Reason, WorkerFact
from kairos.diagnosis.phrases import listed


def unserved(
    workers: Iterable[WorkerFact], queue: str, fingerprint: str, workflow: str, versions: Mapping[str, str]
) -> Reason | None:
    """Why no live worker takes work of this queue and version; None if one does."""
    live = [w for w in workers if w.is_live]
    if not live:
        return Reason("no_worker", "No worker is running.", hint="Start one with `kairos worker` or `kairos dev`.")
    if any(w.serves(queue, fingerprint) for w in live):
        return None
    if not any(queue in w.queues for w in live):
        served = sorted({q for w in live for q in w.queues})
        return Reason(
            "no_queue",
            f"No live worker serves queue {queue!r}; they serve {listed(served, most=6)}.",
            hint=f"Start one with `kairos worker --queues {queue}`.",
        )
    if not any(fingerprint in w.fingerprints for w in live):
        others = sorted({f for w in live for f in w.fingerprints if versions.get(f) == workflow})
        has = f"they have {listed([f[:8] for f in others])}" if others else f"they do not have {workflow!r} at all"
        hint = "Start a worker with the code that the run was started with; or cancel it and start it anew."
        if not others:
            hint = f"Start one with the app that has {workflow!r}: `kairos worker --app ...`."
        return Reason("no_version", f"No live worker has version {fingerprint[:8]} of {workflow!r}; {has}.", hint=hint)
    return Reason(
        "no_queue_and_version",
        f"No live worker both serves queue {queue!r} and has version {fingerprint[:8]} of {workflow!r}.",
        hint=f"Start a worker with that code and `--queues {queue}`.",
    )
