"""What was typed makes no sense: an error of its own, because scripts tell it by its exit code."""

from __future__ import annotations

from kairos.errors import KairosError


class UsageError(KairosError):
    """An option or an argument is malformed, or does not go with the others. Exit code 2."""
