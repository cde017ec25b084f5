"""One run in one file: written by `kairos export`, proved and read without a database."""

from __future__ import annotations

from kairos.replay.bundle.layout import CAPS, SUFFIX, Caps
from kairos.replay.bundle.opening import BundleReport, open_bundle, read_bundle, verify_bundle
from kairos.replay.bundle.writing import Written, export_bundle, write_bundle

__all__ = [
    "CAPS",
    "SUFFIX",
    "BundleReport",
    "Caps",
    "Written",
    "export_bundle",
    "open_bundle",
    "read_bundle",
    "verify_bundle",
    "write_bundle",
]
