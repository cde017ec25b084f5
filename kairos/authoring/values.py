"""The typed codec of everything that crosses a boundary: run inputs and step outputs.

A value is checked against its annotation, made plain JSON, and encoded canonically; decoding gives back a
value of that type. Every failure is a `PayloadError` with one text, whoever runs the step. Builtin types
are strict (`-> int` does not take "3"); inside a model, dataclass or TypedDict its own rules hold.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic.json_schema import JsonSchemaMode

from kairos.authoring.display import clean
from kairos.authoring.encoders import Encoder, Loader, build_adapter, coders, json_schema
from kairos.authoring.problems import describe_problems, type_label
from kairos.authoring.redaction import PLACEHOLDER, Redactor
from kairos.authoring.shapes import readable, written
from kairos.domain import canonical
from kairos.domain.payload import NULL, Payload
from kairos.domain.subtrees import BLANKED_HINT
from kairos.errors import DefinitionError, PayloadError

_NO_RULES = Redactor()


class ValueType:
    """What an annotation means at a boundary. Build one for each annotation: it takes time.

    Raises:
        DefinitionError: values of this type cannot be stored, or the type is not complete yet.
    """

    __slots__ = ("_adapter", "_encode_json", "_load", "_schemas", "annotation", "label")

    def __init__(self, annotation: Any, *, names: dict[str, Any] | None = None) -> None:
        self.annotation = annotation
        self.label = type_label(annotation)
        self._schemas: dict[str, Any] = {}
        if annotation is Any or annotation is object:
            self._adapter: TypeAdapter[Any] | None = None
            self._encode_json: Encoder = canonical.encode
            self._load: Loader = canonical.decode
            return
        try:
            self._adapter = build_adapter(annotation, self.label, names)
        except DefinitionError:
            raise
        except PydanticUndefinedAnnotation as exc:
            raise DefinitionError(
                f"{self.label} refers to {exc.name!r}, which is not defined here",
                hint=f"Define {exc.name!r} above the line that uses it, at run time (not under TYPE_CHECKING).",
            ) from None
        except Exception as exc:  # what is no type at all confuses pydantic in many ways
            raise DefinitionError(f"{self.label} is not a type of values: {_brief(exc)}") from exc
        self._encode_json, self._load = coders(annotation, self._adapter)

    def encode(self, value: Any, what: str = "the value", redactor: Redactor = _NO_RULES) -> Payload:
        """Check, encode, redact. `what` begins the text of an error: "step 'a' returned a value that".

        Raises:
            PayloadError: not of this type, or not to be stored as JSON.
        """
        if value is None and (self._adapter is None or self.annotation is None):
            return NULL
        try:
            raw = self._encode_json(value)
        except ValidationError as exc:
            raise self._mismatch(exc, what, redactor) from None
        except PayloadError as exc:
            text = f"{what} cannot be stored: {exc.message}"
            raise PayloadError(text, hint=exc.hint, **exc.facts) from None
        except Exception as exc:
            # Validators and serialisers are code of the user's, or pydantic refusing an unknown type.
            text = f"{what} cannot be stored as {self.label}: {_brief(exc)}"
            raise PayloadError(text, hint="Use types that pydantic can write as JSON and read back.") from exc
        if redactor.is_active:
            raw = redactor.raw(raw)
        return Payload.of(raw)

    def encode_loosely(self, value: Any, what: str = "the value", redactor: Redactor = _NO_RULES) -> Payload:
        """`encode`, or failing that, take the value for the JSON form of one: "2024-05-01" for a date."""
        try:
            return self.encode(value, what, redactor)
        except PayloadError as refused:
            try:
                parsed = self._load(canonical.encode(value))
            except Exception:
                raise refused from None
            return self.encode(parsed, what, redactor)

    def decode(self, raw: bytes, what: str = "the value", redactor: Redactor = _NO_RULES) -> Any:
        """The value that canonical bytes stand for.

        Raises:
            PayloadError: they do not hold a value of this type.
        """
        try:
            return self._load(raw)
        except ValidationError as exc:
            error = self._mismatch(exc, what, redactor)
            if PLACEHOLDER.encode() in raw:
                error.hint = BLANKED_HINT
            raise error from None
        except Exception as exc:
            raise PayloadError(f"{what} cannot be read as {self.label}: {_brief(exc)}") from exc

    def never_reads(self, other: ValueType) -> bool:
        """Whether it is certain that no value stored as `other` can be read as this type; False if in doubt."""
        if self._adapter is None or other._adapter is None:
            return False
        return written(other._adapter.core_schema).isdisjoint(readable(self._adapter.core_schema))

    def schema(self, mode: JsonSchemaMode = "serialization") -> dict[str, Any]:
        """JSON schema; `{}` for any value, and for types that have none."""
        if self._adapter is None:
            return {}
        if mode not in self._schemas:
            self._schemas[mode] = json_schema(self._adapter, mode)
        schema: dict[str, Any] = self._schemas[mode]
        return schema

    def _mismatch(self, error: ValidationError, what: str, redactor: Redactor) -> PayloadError:
        return PayloadError(f"{what} is not {self.label}: {describe_problems(error, redactor)}")

    def __repr__(self) -> str:
        return f"ValueType({self.label})"


def _brief(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception:
        text = ""
    return clean(f"{type(exc).__name__}: {text}" if text else type(exc).__name__, 300)
