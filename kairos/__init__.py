"""Kairos: event-sourced durable workflows on Postgres, with a time-travel debugger.

import kairos

app = kairos.App("shop")
fulfil = app.workflow("fulfil-order", input=Order)

@fulfil.step
def reserve(order: Order) -> Reservation: ...

with kairos.Client() as client:
    run = client.start(fulfil, Order(...))
    print(run.wait(timeout=30).output)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from kairos.domain.states import RunStatus, StepStatus
from kairos.errors import (
    AmbiguousRun,
    ConfigError,
    DatabaseUnavailable,
    DefinitionError,
    EffectMismatch,
    EmbeddedPostgresError,
    HistoryError,
    InvalidArgument,
    InvalidTransition,
    KairosError,
    KeyConflict,
    MigrationError,
    PayloadError,
    Refused,
    RunCancelled,
    RunExpired,
    RunFailed,
    RunNotFound,
    SecretError,
    StaleWrite,
    StepTimeout,
    UnknownOption,
    WaitTimeout,
    WorkflowNotFound,
)

if TYPE_CHECKING:
    from kairos.authoring import App, Job, Redaction, Retry, Secret, Step, StepCancelled, StepContext, Workflow
    from kairos.client import AsyncClient, AsyncRun, Client, Run
    from kairos.database import Database
    from kairos.engine.worker import Worker

# Loaded when first needed: `run_inline` does without the database driver, and commands such as
# `kairos --help` do without pydantic and networkx too.
_LAZY = {
    "App": "kairos.authoring",
    "Job": "kairos.authoring",
    "Redaction": "kairos.authoring",
    "Retry": "kairos.authoring",
    "Secret": "kairos.authoring",
    "Step": "kairos.authoring",
    "StepCancelled": "kairos.authoring",
    "StepContext": "kairos.authoring",
    "Workflow": "kairos.authoring",
    "AsyncClient": "kairos.client",
    "AsyncRun": "kairos.client",
    "Client": "kairos.client",
    "Database": "kairos.database",
    "Run": "kairos.client",
    "Worker": "kairos.engine.worker",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        found = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return found
    raise AttributeError(f"module 'kairos' has no attribute {name!r}")


__all__ = [
    "AmbiguousRun",
    "App",
    "AsyncClient",
    "AsyncRun",
    "Client",
    "ConfigError",
    "Database",
    "DatabaseUnavailable",
    "DefinitionError",
    "EffectMismatch",
    "EmbeddedPostgresError",
    "HistoryError",
    "InvalidArgument",
    "InvalidTransition",
    "Job",
    "KairosError",
    "KeyConflict",
    "MigrationError",
    "PayloadError",
    "Redaction",
    "Refused",
    "Retry",
    "Run",
    "RunCancelled",
    "RunExpired",
    "RunFailed",
    "RunNotFound",
    "RunStatus",
    "Secret",
    "SecretError",
    "StaleWrite",
    "Step",
    "StepCancelled",
    "StepContext",
    "StepStatus",
    "StepTimeout",
    "UnknownOption",
    "WaitTimeout",
    "Worker",
    "Workflow",
    "WorkflowNotFound",
    "__version__",
]
