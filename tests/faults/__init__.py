"""Faults: processes killed and frozen, servers restarted, replies lost; and what must hold afterwards."""

from __future__ import annotations
