"""The drawing of a graph: layers, order, coordinates, SVG. Pure Python, deterministic, no dependency."""

from __future__ import annotations
