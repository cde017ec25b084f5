"""Moves runs forward: claims them, runs their steps, commits what happened.

A worker may die at any line. What each crash window leaves behind, and why that is safe:

- after a claim, before anything is written: the run's task is held by a dead worker. Its lease runs out, the
  task is freed, the next claim raises the epoch, and the log says that nothing had started.
- a body has run, its end is not committed: the log says RUNNING (or not even that). The next owner records
  `lease_lost` and runs the step again: bodies run at least once.
- the flush is sent, the reply is lost: it is sent again, byte for byte. The head has either moved to the very
  hash that was meant (committed), or it has not (it commits now), or it is somebody else's (fenced).
- committed, but no wake-up was sent: everybody polls.
- a thawed worker goes on where it stopped: its epoch is old, so each of its writes is filtered out; its
  heartbeat finds its row buried, and it lets go of everything.
"""
