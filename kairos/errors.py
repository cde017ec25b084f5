"""Every error Kairos raises on purpose. Each carries its facts and a hint: what to do next.

The tree:

    KairosError
      DefinitionError        a workflow, step or job is written wrongly
        UnknownOption        a keyword that the function does not have; also a TypeError
      InvalidArgument        a client was asked with a value that means nothing; also a ValueError
      ConfigError            a setting or environment value is malformed
      PayloadError           a value cannot be stored as JSON, or does not have the declared type
      InvalidTransition      a state machine was asked for a move that its table does not hold
      Refused                the rules refuse a command (stale token, wrong state, ...)
        StaleWrite           the writer's fence is older than the one recorded
      KeyConflict            one idempotency key, two different inputs
      RunNotFound / AmbiguousRun / WorkflowNotFound
      RunFailed / RunCancelled / RunExpired      what `Run.output` raises when a run ended badly
      WaitTimeout            `Run.wait(timeout=...)` ran out; the run goes on
      StepTimeout            an attempt took longer than its `timeout`
      EffectMismatch         a retried step asks for other effects than it has recorded
      SecretError            a secret reference could not be resolved
      HistoryError           a log cannot be read: gap, unknown kind, broken chain
        BundleError          a bundle file cannot be written, read or imported
      MigrationError         the schema is newer, older, or was changed by hand
      ReplayError            a replay cannot go on
        AppUnavailable       the app cannot be imported for it
      TraceError             a `.ktrace` file cannot be read, or a question about it means nothing
      RetentionError         old runs cannot be removed: no right to, or the log is in use
      GuardUnavailable       a replay cannot be isolated as strictly as was asked for
      DatabaseUnavailable    Postgres cannot be reached
        EmbeddedPostgresError
      BreakpointError        a replay cannot stop where, when or in what it was asked to
"""

from __future__ import annotations

from typing import Any


class KairosError(Exception):
    """Base of all errors of Kairos: a message, a `hint` (the next action) and `facts` as attributes."""

    hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        if hint is not None:
            self.hint = hint
        for name, value in facts.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class DefinitionError(KairosError):
    """A workflow, step or job is written wrongly. Raised on the line that defines it."""


class UnknownOption(DefinitionError, TypeError):
    """A public function was called with a keyword that it does not have. The hint names the nearest."""


class InvalidArgument(KairosError, ValueError):
    """A client was asked with a value that means nothing: an unknown status, a page of no rows."""


class ConfigError(KairosError):
    """A setting or an environment value is malformed."""

    hint = "`kairos config` lists every setting with its value, default and source."


class PayloadError(KairosError):
    """A value cannot be stored as JSON, or does not have the type that was declared for it."""


class InvalidTransition(KairosError):
    """A state machine was asked for a move that is not in its table."""


class Refused(KairosError):
    """The rules refuse a command; nothing was written."""


class StaleWrite(Refused):
    """A worker reported on an attempt that is no longer its own."""

    hint = "The recorded result stands. If steps are slow, raise KAIROS_LEASE or look for a frozen worker."


class KeyConflict(KairosError):
    """An idempotency key was used again with another input."""

    hint = "Use another key, or start with the very same input to get the existing run."


class RunNotFound(KairosError):
    """No run has this id."""

    hint = "`kairos runs` lists runs; a run is named by any unique prefix or suffix of its id, or `last`."


class AmbiguousRun(KairosError):
    """Several runs match what was given."""


class WorkflowNotFound(KairosError):
    """No workflow or job has this name."""


class RunFailed(KairosError):
    """The run ended FAILED: a step exhausted its attempts."""


class RunCancelled(KairosError):
    """The run was cancelled."""


class RunExpired(KairosError):
    """The run's time to live closed before a worker took it."""


class WaitTimeout(KairosError, TimeoutError):
    """The run did not end in time. It goes on; waiting again is fine."""


class StepTimeout(KairosError, TimeoutError):
    """An attempt took longer than the step's timeout."""


class EffectMismatch(KairosError):
    """A step asks for an effect with other arguments than the one recorded in its place. Not tried again.

    Attributes: `effect` (its name), `ordinal`, `old` and `new` (what is recorded, what is asked for), as text.
    """

    hint = (
        "Between two effects a step must do the same each time: take the time, ids and random numbers from ctx.now(), "
        "ctx.uuid() and ctx.random(). Where effects run side by side, give each a name of its own."
    )


class SecretError(KairosError):
    """A secret reference could not be resolved in this process."""


class HistoryError(KairosError):
    """A run's log cannot be read: a gap, an unknown kind, a broken hash chain."""


class BundleError(HistoryError):
    """A bundle file cannot be written, read or imported. `code` says why in one word."""

    hint = "`kairos verify FILE` says what is wrong with it; `kairos export RUN` writes it anew."


class MigrationError(KairosError):
    """The database schema is not what this version of Kairos needs."""


class ReplayError(KairosError):
    """A replay cannot go on."""


class AppUnavailable(ReplayError):
    """The app cannot be imported for a replay. `trace`: the traceback of its own error; `leaks`: what was stopped."""


class TraceError(KairosError):
    """A `.ktrace` file is damaged, cut short or too new, or a question about it means nothing."""


class RetentionError(KairosError):
    """Old runs cannot be removed now."""


class GuardUnavailable(KairosError):
    """A replay cannot be isolated as strictly as was asked for. `missing` names the layers that this system lacks."""


class DatabaseUnavailable(KairosError):
    """Postgres cannot be reached."""


class EmbeddedPostgresError(DatabaseUnavailable):
    """The embedded Postgres could not be started, joined or stopped."""


class BreakpointError(KairosError):
    """A replay cannot stop where, when or in what it was asked to."""
