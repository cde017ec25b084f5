"""Checks values that were edited by hand: by the types of the app if it is at hand, else by the pinned schemas."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from kairos.domain import canonical
from kairos.domain.defaults import fill_defaults
from kairos.domain.editing import INPUT
from kairos.domain.fingerprint import Definition
from kairos.domain.payload import Payload
from kairos.errors import PayloadError

if TYPE_CHECKING:
    from kairos.authoring import Workflow

MAX_PROBLEMS: Final = 5


class Checker:
    """Checks values against one definition; `workflow`: the very same version with its types.

    A PayloadError of a value that does not fit its schema has `target` (`input`, or the step) and `problems`, a list
    of (keys that lead to the place, what is wrong there).
    """

    def __init__(self, definition: Definition, workflow: Workflow | None) -> None:
        self._definition, self._workflow = definition, workflow

    def input(self, value: Any) -> Payload:
        """An edited input of the run. Raises PayloadError."""
        if self._workflow is not None:
            return self._workflow.encode_input(value)
        self._refuse_guarded("input")
        schema = self._definition.schemas.get("", {})
        return self._by_schema(fill_defaults(value, schema), schema, "the edited input", INPUT)

    def output(self, step: str, value: Any) -> Payload:
        """An edited output of a step. Raises PayloadError."""
        what = f"the edited output of step {step!r}"
        if self._workflow is not None:
            return self._workflow.steps[step].encode_output(value, what)
        self._refuse_guarded(step)
        return self._by_schema(value, self._definition.schemas.get(step, {}), what, step)

    def _by_schema(self, value: Any, schema: Any, what: str, target: str) -> Payload:
        raw = canonical.encode(value)
        # Takes a tenth of a second to load, and only edits of recorded values need it.
        from jsonschema import Draft202012Validator

        validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        try:
            found = list(islice(validator.iter_errors(canonical.decode(raw)), MAX_PROBLEMS))
        except Exception as exc:  # a pattern that only pydantic's engine knows, a schema of the user's own making
            raise PayloadError(
                f"{what} cannot be checked by the schema of its type: {type(exc).__name__}: {str(exc)[:200]}",
                hint="Fork with the app of that version: its types check it themselves.",
                target=target,
            ) from exc
        problems = [
            f"{error.json_path.removeprefix('$').removeprefix('.') or 'it'}: {error.message[:200]}" for error in found
        ]
        if problems:
            places = [(list(error.absolute_path), error.message[:200]) for error in found]
            text = f"{what} does not have its type: {'; '.join(problems)}"
            raise PayloadError(text, target=target, problems=places)
        return Payload.of(raw)

    def _refuse_guarded(self, what: str) -> None:
        if self._definition.defaults.get("guarded"):
            raise PayloadError(
                f"{what!r} of {self._definition.workflow!r} cannot be edited without its app: the app redacts what is "
                "stored, or its input holds a secret",
                hint="Fork with the app of that version: client.fork(..., workflow=...), or `kairos fork --app ...`.",
                target=what,
            )
