"""What an error of the database means for whoever typed a command: an error of ours, with a hint."""

from __future__ import annotations

import psycopg

from kairos.errors import DatabaseUnavailable, KairosError, MigrationError
from kairos.store.connect import unavailable

_HINTS = {
    "42501": "This role lacks rights: as the owner run `kairos migrate --grant-to ROLE` for it.",
    "42704": "Make the role first: create role NAME login password '...'.",
    "42P01": "Run `kairos migrate`: the schema is not there, or not whole.",
    "3F000": "Run `kairos migrate`: the schema is not there.",
    "57014": "The statement took too long; ask for less at once, or look at the load of the server.",
    "25006": "The server takes no writes now: it is a standby, or was set read-only.",
}


def translate(error: psycopg.Error) -> KairosError:
    """The error of ours that says the same. Chain it with `from`."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return unavailable(error)
    kind = MigrationError if error.sqlstate in ("42P01", "3F000", "42704") else DatabaseUnavailable
    hint = _HINTS.get(error.sqlstate or "")
    return kind(f"Postgres refused: {text}", hint=hint, sqlstate=error.sqlstate)
