"""What the JSON API offers, as an OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from kairos import __version__

_RUN: Final = {
    "name": "run",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "A run's id, a unique part of its beginning or end, or `last`.",
}


_TRACE: Final = {
    "name": "trace",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The key of an open trace: see /api/v1/files.",
}


def document() -> dict[str, Any]:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Kairos", "version": __version__, "description": "Runs of durable workflows."},
        "paths": {
            "/api/v1/dashboard": _get(
                "How things stand: counts, failures by fingerprint, slow steps, queues, workers.",
                _query("span", "1h, 24h or 7d; default 24h."),
            ),
            "/api/v1/workflows": _get("Every workflow with its versions, and how its newest runs went."),
            "/api/v1/workflows/{name}": _get(
                "One workflow: graph, versions, step times, and the difference between two versions.",
                {**_RUN, "name": "name", "description": "Its name."},
                _query("version", "The beginning of a fingerprint; default: the version registered last."),
                _query("against", "The version to compare with."),
            ),
            "/api/v1/runs": _get(
                "A page of runs, newest first.",
                _query("status", "One or several statuses, separated by commas."),
                _query("workflow", "Only runs of this workflow."),
                _query("key", "Only the runs with this idempotency key."),
                _query("label", "NAME=VALUE."),
                _query("queue", "Only runs of this queue."),
                _query("version", "Only runs of this version: the whole fingerprint."),
                _query("step", "Only runs that failed at this step."),
                _query("error", "Part of the error that ended the run, in any letter case."),
                _query("group", "The error's fingerprint: workflow|step|type."),
                _query("unrepaired", "yes: only runs that ended badly and of which no fork is done."),
                _query("input", "customer=42, order.lines[0].sku=A7, or a text. Reads the newest 5,000 runs at most."),
                _query("q", "A part of an id, a key, or what `input` takes."),
                _query("since", "Created at or after: 2h (ago), or ISO 8601."),
                _query("until", "Created before."),
                _query("before", "The `next` of a page: older runs."),
                _query("after", "The `previous` of a page: newer runs."),
                _query("limit", "Runs per page, 1 to 1000; default 50.", "integer"),
            ),
            "/api/v1/runs/{run}": _get("One run as it is now.", _RUN),
            "/api/v1/runs/{run}/events": _get(
                "Events of a run, oldest first.",
                _RUN,
                _query("after", "Only events with a greater seq.", "integer"),
                _query("limit", "Events per page, 1 to 1000; default 500.", "integer"),
            ),
            "/api/v1/runs/{run}/state": _get(
                "The state of a run after event `at`.", _RUN, _query("at", "Default: the last event.", "integer")
            ),
            "/api/v1/runs/{run}/trace/{step}/{attempt}": _get(
                "Events of the line trace of an attempt, if one is open; as of /traces/{trace}/events.",
                _RUN,
                _path("step", "The step."),
                _path("attempt", "The number of the attempt."),
                *_BLOCK,
            ),
            "/api/v1/files": _get(
                "Bundles and line traces that are open: what they are, what was redacted, addresses."
            ),
            "/api/v1/traces/{trace}": _get(
                "A line trace: of which step, its files and functions, where it failed.", _TRACE
            ),
            "/api/v1/traces/{trace}/events": _get(
                "A block of its events, with the locals that each changed.", _TRACE, *_BLOCK
            ),
            "/api/v1/traces/{trace}/moment": _get(
                "One position: line, stack, locals, what was returned or raised.",
                _TRACE,
                _query("line", "FILE:LINE~HIT, or @EVENT. Default: where the function failed, or its last line."),
                _query("at", "The number of an event, instead of `line`.", "integer"),
                _query("move", "A step from there: back, step, previous, next, rout, out, first, last, fail."),
                _query("times", "How often; default 1.", "integer"),
                _query("write", "Back to the line that gave this name its value, instead of `move`."),
                _query("level", "The frame of the stack, 0 the innermost.", "integer"),
            ),
            "/api/v1/runs/{run}/lineage": _get("The tree of forks that a run belongs to, parents first.", _RUN),
            "/api/v1/runs/{run}/fork": _post(
                "Start a new run that goes on from a step of this one; with `dry_run`, only say what it would be.",
                {"201": "Started: the run, its plan, and the same as a command.", "200": "The plan alone."},
                ["from_step"],
                _RUN,
                {**_header("Idempotency-Key", "As `key`."), "required": False},
                from_step={"type": "string", "description": "Where to go on: it and what follows it run again."},
                set={"type": "object", "description": "Path -> new value, such as input.amount."},
                output={"type": "object", "description": "Step -> an output for it; it does not run."},
                version={"type": "string", "description": "latest (default), pinned, or a fingerprint's beginning."},
                reason={"type": "string"},
                key={"type": ["string", "null"], "description": "The same fork with the same key is one run."},
                dry_run={"type": "boolean"},
            ),
            "/api/v1/runs/{run}/cancel": _post(
                "Ask a run to stop. Asking twice changes nothing.",
                {"200": "Its status afterwards."},
                [],
                _RUN,
                reason={"type": "string"},
            ),
            "/api/v1/compare": _get(
                "Two runs aligned by step, and the step at which they part.",
                _query("a", "RUN, RUN@SEQ, or last-good: the last good run before b."),
                _query("b", "RUN, RUN@SEQ, or last-good."),
            ),
            "/api/v1/runs/{run}/value": _get(
                "A value that an event holds.",
                _RUN,
                _query("seq", "The event.", "integer"),
                _query("part", "input, output, arguments or result."),
                _query("path", "A JSON pointer into the value."),
            ),
            "/api/v1/runs/{run}/origin": _get(
                "Where a value came from, or who went on with it.",
                _RUN,
                _query("seq", "The event that holds the value.", "integer"),
                _query("part", "input, output, arguments or result."),
                _query("of", "The step, of an event that holds the outputs of many."),
                _query("path", "A JSON pointer into the value."),
                _query("dir", "back (default) or forward."),
                _query("at", "The playhead: what lies behind it is marked as later. Default: the last event."),
            ),
            "/api/v1/runs/{run}/search": _get(
                "Keys and values of a run that hold a text: inputs, outputs, effects, errors, logs.",
                _RUN,
                _query("q", "The text; upper and lower case are equal."),
                _query("after", "Only events with a greater seq.", "integer"),
                _query("offset", "The `next` of the page before.", "integer"),
                _query("limit", "Hits per page, 1 to 1000; default 100.", "integer"),
                _query("at", "The playhead: hits behind it are marked as later. Default: the last event."),
            ),
        },
        "components": {
            "schemas": {
                "Problem": {
                    "type": "object",
                    "properties": {
                        "status": {"type": "integer"},
                        "title": {"type": "string"},
                        "detail": {"type": "string"},
                        "hint": {"type": ["string", "null"]},
                        "path": {"type": "string", "description": "The edit or field that it is about."},
                        "target": {"type": "string", "description": "The value that does not fit: input, or a step."},
                        "errors": {
                            "type": "array",
                            "description": "Places of that value, and what is wrong there.",
                            "items": {
                                "type": "object",
                                "properties": {"keys": {"type": "array"}, "message": {"type": "string"}},
                            },
                        },
                    },
                }
            }
        },
    }


def _get(summary: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "get": {
            "summary": summary,
            "parameters": list(parameters),
            "responses": {
                "200": {"description": "Found.", "content": {"application/json": {"schema": {"type": "object"}}}},
                "default": {"description": "What went wrong, and what to do.", "content": problem},
            },
        }
    }


def _post(
    summary: str, answers: dict[str, str], required: list[str], *parameters: dict[str, Any], **fields: dict[str, Any]
) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    body = {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
    found = {"application/json": {"schema": {"type": "object"}}}
    return {
        "post": {
            "summary": summary,
            "parameters": list(parameters),
            "requestBody": {"required": bool(required), "content": {"application/json": {"schema": body}}},
            "responses": {
                **{status: {"description": text, "content": found} for status, text in answers.items()},
                "403": {"description": "Another site asks, or this debugger only looks.", "content": problem},
                "409": {"description": "The key is held by another run.", "content": problem},
                "422": {"description": "What was asked does not fit.", "content": problem},
                "default": {"description": "What went wrong, and what to do.", "content": problem},
            },
        }
    }


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


def _query(name: str, description: str, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind}}


def _path(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


_BLOCK: Final = (
    _query("from", "The first event, from 1.", "integer"),
    _query("n", "Events, 1 to 1024; default 512.", "integer"),
)
