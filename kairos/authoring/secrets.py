"""A reference to a secret. What travels and is stored is where the value is, never the value itself.

The value is read in the process that runs the step, at the moment of `reveal()`, and from then on it is
blanked in whatever that attempt writes: outputs, errors, locals, logs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from kairos.authoring.redaction import ATTEMPT, Redactor, reveal_outside
from kairos.errors import SecretError

NOT_A_REFERENCE = "not_a_secret_reference"
"""The pydantic error type for it. The input it carries may be the secret itself: never show it."""
_HINT = 'Write "env:NAME" for an environment variable of the worker, or "file:PATH" for a file that it can read.'


class Secret:
    """Names a secret: `Secret("env:STRIPE_KEY")` or `Secret("file:/run/secrets/stripe")`.

    It may be a field of a model or a parameter of a job; it is stored as `{"$secret": "env:STRIPE_KEY"}`.

    Raises:
        SecretError: the reference is neither `env:` nor `file:`, or names nothing.
    """

    __slots__ = ("_redactor", "reference")

    reference: Final[str]

    def __init__(self, reference: str) -> None:
        if not isinstance(reference, str) or not _is_reference(reference):
            # Not shown: who passes the secret itself by mistake must not find it in a log.
            raise SecretError("what kairos.Secret was given is not a reference to a secret", hint=_HINT)
        self.reference = reference
        # A thread that the step starts by itself has no context; then this one knows whom to tell.
        self._redactor: Redactor | None = ATTEMPT.get()

    def reveal(self) -> str:
        """Read the value, here and now; one newline at the end of a file is left out.

        Raises:
            SecretError: the variable is not set, or the file cannot be read.
        """
        kind, _, name = self.reference.partition(":")
        try:
            value = self._from_env(name) if kind == "env" else self._from_file(name)
        except SecretError:
            if _absent is None:
                raise
            value = _absent(self.reference)
        redactors = {r for r in (self._redactor, ATTEMPT.get()) if r is not None}
        for redactor in redactors:
            redactor.reveal(value)
        if not redactors:
            reveal_outside(value)
        return value

    def _from_env(self, name: str) -> str:
        value = os.environ.get(name)
        if value is None:
            raise SecretError(
                f"the secret {self.reference!r} is not there: the environment has no {name}",
                hint=f"Set {name} in the environment of the process that runs the step (the worker).",
                reference=self.reference,
            )
        return value

    def _from_file(self, name: str) -> str:
        try:
            return Path(name).read_text("utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) and exc.strerror else "it is not UTF-8 text"
            raise SecretError(
                f"the secret {self.reference!r} cannot be read: {why}",
                hint="The file must be readable by the process that runs the step (the worker).",
                reference=self.reference,
            ) from None

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reference == self.reference

    def __hash__(self) -> int:
        return hash((Secret, self.reference))

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (self.reference,)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _parse,
            serialization=core_schema.plain_serializer_function_ser_schema(_dump, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "type": "object",
            "title": "Secret",
            "properties": {"$secret": {"type": "string", "pattern": "^(env|file):."}},
            "required": ["$secret"],
            "additionalProperties": False,
        }


Absent = Callable[[str], str]
"""Reference -> what is given for a secret that is not there."""
_absent: Absent | None = None


def on_absent(give: Absent | None) -> None:
    """In this process, give this where a secret is not there, instead of raising. For replays on other machines."""
    global _absent
    _absent = give


def _is_reference(text: str) -> bool:
    kind, _, name = text.partition(":")
    if not name.strip() or "\0" in name:
        return False
    return kind == "file" or (kind == "env" and "=" not in name)


def _parse(value: Any) -> Secret:
    if isinstance(value, Secret):
        return value
    if isinstance(value, dict) and value.keys() == {"$secret"}:
        value = value["$secret"]
    if not isinstance(value, str) or not _is_reference(value):
        raise PydanticCustomError(
            NOT_A_REFERENCE, 'Input should be a reference to a secret: "env:NAME" or "file:PATH", not the secret itself'
        )
    return Secret(value)


def _dump(secret: Secret) -> dict[str, str]:
    return {"$secret": secret.reference}
