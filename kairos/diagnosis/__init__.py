"""Says what is the matter: why a run does not go on (`why`), and what ails the whole system (`doctor`).

Pure: no I/O, no clock. `kairos why` and `kairos doctor` read the facts, this package derives the sentences.
Every answer has a `kind` or `code`, a stable word for programs, beside the sentence for people.
"""

from __future__ import annotations

from kairos.diagnosis.doctor import Finding, SystemFacts, examine
from kairos.diagnosis.facts import Reason, RunFacts, TaskFact, WorkerFact
from kairos.diagnosis.serving import unserved
from kairos.diagnosis.why import explain, explain_steps

__all__ = [
    "Finding",
    "Reason",
    "RunFacts",
    "SystemFacts",
    "TaskFact",
    "WorkerFact",
    "examine",
    "explain",
    "explain_steps",
    "unserved",
]
