"""What users write: apps, workflows, steps, jobs; and the one way to run an attempt of a step.

Reading order: app, workflow, wiring (what each parameter receives), values (types at the boundaries),
context (what a step may ask for), executor (one attempt), inline (a whole run without a database).
"""

from __future__ import annotations

from kairos.authoring.app import App
from kairos.authoring.context import StepCancelled, StepContext
from kairos.authoring.job import Job
from kairos.authoring.redaction import Redaction
from kairos.authoring.secrets import Secret
from kairos.authoring.step import Step
from kairos.authoring.workflow import Workflow
from kairos.domain.retry import Retry

__all__ = ["App", "Job", "Redaction", "Retry", "Secret", "Step", "StepCancelled", "StepContext", "Workflow"]
