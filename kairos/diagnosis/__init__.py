"""Says what is the matter: why a run does not go on (`why`), and what ails the whole system (`doctor`).

Pure: no I/O, no clock. `kairos why` and `kairos doctor` read the facts, this package derives the sentences.
Every answer has a `kind` or `code`, a stable word for programs, beside the sentence for people.
"""

from __future__ import annotations

from kairos.diagnosis.doctor import check_connection, examine
from kairos.diagnosis.facts import Reason, RunFacts, TaskFact, WorkerFact
from kairos.diagnosis.serving import unserved
from kairos.diagnosis.system import Finding, PoolerFacts, ServerFacts, Severity, SystemFacts, Waiting, WorkerHealth
from kairos.diagnosis.why import explain, explain_steps

__all__ = [
    "Finding",
    "PoolerFacts",
    "Reason",
    "RunFacts",
    "ServerFacts",
    "Severity",
    "SystemFacts",
    "TaskFact",
    "Waiting",
    "WorkerFact",
    "WorkerHealth",
    "check_connection",
    "examine",
    "explain",
    "explain_steps",
    "unserved",
]
