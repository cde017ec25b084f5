"""Which workers could take a piece of work, and why none does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kairos.diagnosis.facts import Reason, WorkerFact
from kairos.diagnosis.phrases import listed


def unserved(
    workers: Iterable[WorkerFact], queue: str, fingerprint: str, workflow: str, versions: Mapping[str, str]
) -> Reason | None:
    """Why no live worker takes work of this queue and version; None if one does.

    The sentence is a part of one: it goes on after "... waits for a worker: ".
    """
    live = [w for w in workers if w.is_live]
    if not live:
        return Reason("no_worker", "none is running", hint="Start one with `kairos worker` or `kairos dev`.")
    if any(w.serves(queue, fingerprint) for w in live):
        return None
    if not any(queue in w.queues for w in live):
        served = listed(sorted({q for w in live for q in w.queues}), most=6)
        sentence = f"no live one serves queue {queue!r} (they serve {served})"
        return Reason("no_queue", sentence, hint=f"Start one with `kairos worker --queues {queue}`.")
    version = f"version {fingerprint[:8]} of {workflow!r}"
    if not any(fingerprint in w.fingerprints for w in live):
        others = sorted({f for w in live for f in w.fingerprints if versions.get(f) == workflow})
        if not others:
            hint = f"Start one with the app that has {workflow!r}: `kairos worker --app ...`."
            return Reason("no_version", f"no live one has {workflow!r} at all", hint=hint)
        sentence = f"no live one has {version} (they have {listed([f[:8] for f in others])})"
        hint = "Start one with the code that the run was started with; or cancel it and start it anew."
        return Reason("no_version", sentence, hint=hint)
    sentence = f"no live one both serves queue {queue!r} and has {version}"
    return Reason("no_queue_and_version", sentence, hint=f"Start one with that code and `--queues {queue}`.")
