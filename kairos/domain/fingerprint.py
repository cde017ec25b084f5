"""Names a definition by its content: graph, source of each step, schemas of inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from kairos.domain import canonical
from kairos.domain.graph import Graph


@dataclass(frozen=True, slots=True)
class Definition:
    """All that is pinned to a run: enough to fold its log, and to say what code it was written for.

    Attributes:
        sources: step -> source text of its function (empty when Python cannot tell).
        code: step -> sha256 of that source, or of its bytecode when there is no source.
        schemas: step -> JSON schema of its output, and "" -> JSON schema of the run's input.
        defaults: what a start by name takes over: `queue`, `priority`, `ttl_us`; and `guarded`, true when
            inputs must pass through the app (it has redaction rules, or the input holds a secret).
    """

    graph: Graph
    sources: Mapping[str, str]
    code: Mapping[str, str]
    schemas: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self.graph.workflow

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; what the fingerprint is taken of, sources included for readers."""
        return {
            "graph": self.graph.to_json(),
            "code": dict(self.code),
            "schemas": dict(self.schemas),
            "sources": dict(self.sources),
            "defaults": dict(self.defaults),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Definition:
        """The inverse of `to_json`."""
        return cls(
            Graph.from_json(data["graph"]), data["sources"], data["code"], data["schemas"], data.get("defaults", {})
        )


def fingerprint(definition: Definition) -> str:
    """32 hex digits (half of a sha256) over the canonical graph, code hashes and schemas.

    The source text itself is covered through `code`, and defaults are written into each run. A definition
    read back from the database has the same fingerprint as the one that was registered.
    """
    body = definition.to_json()
    del body["sources"], body["defaults"]
    return sha256(canonical.encode_trusted(body)).hexdigest()[:32]


def hash_source(source: str) -> str:
    """What stands for the source of a step in `code`."""
    return sha256(source.encode("utf-8", "backslashreplace")).hexdigest()


def forged_sources(definition: Definition) -> list[str]:
    """The steps whose source text is not the one that the definition is fingerprinted with. Empty: all are genuine.

    A text that is left out is no forgery: of some functions there is none.
    """
    known = definition.code
    return [name for name, text in definition.sources.items() if text and hash_source(text) != known.get(name)]


def step_fingerprints(definition: Definition) -> dict[str, str]:
    """step -> hash of that step alone (node, code, output schema): tells which step changed."""
    return {
        name: sha256(
            canonical.encode_trusted([spec.to_json(), definition.code.get(name), definition.schemas.get(name)])
        ).hexdigest()[:32]
        for name, spec in definition.graph.steps.items()
    }
