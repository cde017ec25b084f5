"""Runs a recorded run again, on the machine of whoever wants to understand it. Never writes to the log."""

from __future__ import annotations
