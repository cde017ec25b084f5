"""Other engines on the same workloads: each in an environment of its own, unmodified, tuned by its documentation.

A peer's module is run there as `python -m bench.peers.NAME TASK`; it imports nothing of Kairos.
"""
