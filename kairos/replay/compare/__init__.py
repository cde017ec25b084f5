"""What differs between two values, path by path."""

from __future__ import annotations

from kairos.domain.ignoring import Ignore
from kairos.replay.compare.comparing import MISSING, Difference, Differences, compare, difference_bytes

__all__ = ["MISSING", "Difference", "Differences", "Ignore", "compare", "difference_bytes"]
