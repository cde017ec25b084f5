"""The form with which a run is forked: what was typed, what it means, what would become of each step."""

from __future__ import annotations
