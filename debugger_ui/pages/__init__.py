"""What each address answers."""

from __future__ import annotations
