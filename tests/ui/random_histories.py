"""Histories as the dice have it, with the graph they belong to: by the generator that tests the rules themselves."""

from __future__ import annotations

from random import Random
from typing import Any

from run_stories import NOON, RUN_ID, SECOND, Story, graph_of, scheduled
from run_world import TTLS, World, roll_graph

from debugger_ui.histories import History
from kairos.domain.events import EffectRecorded, RunForked, StepOverridden, StepsInherited
from kairos.domain.fingerprint import Definition
from kairos.domain.graph import Graph
from kairos.domain.payload import Payload

__all__ = ["NOON", "RUN_ID", "SECOND", "Story", "forked", "graph_of", "history_of", "rolled", "scheduled"]


def history_of(graph: Graph, rows: Any) -> History:
    """These rows as the debugger holds them."""
    history = History(RUN_ID, "f" * 32, Definition(graph, {}, {}, {}))
    for row in rows:
        history.take(row)
    return history


def rolled(seed: int, turns: int = 60) -> History:
    """A life by the dice."""
    dice = Random(seed)
    world = World(roll_graph(dice), dice.choice(TTLS))
    world.live(dice, turns)
    return history_of(world.graph, world.rows)


def forked() -> History:
    """A fork: two steps taken over, one given, the rest run, with effects."""
    graph = graph_of(a="", b="", c="a b", d="c", e="c d")
    story = Story(graph)
    parent = "01890a5d-ac96-774b-bcce-000000000001"
    story._record(
        [
            RunForked(parent=parent, root=parent, parent_seq=9, from_step="d", author="ada", reason="wrong price"),
            StepsInherited(run=parent, outputs={"a": (4, 11, "ab" * 32, False), "b": (6, 4000, "cd" * 32, True)}),
            StepOverridden(step="c", output=Payload.of(b'{"price":2}')),
        ]
    )
    story.claim().start("d")
    attempt, token = story.attempt("d")
    story._record(
        [
            EffectRecorded(
                step="d", attempt=attempt, token=token, name="rate", ordinal=1, via="call", result=Payload.of(b"7")
            )
        ]
    )
    story.wait(SECOND).fail("d").wait(SECOND * 20)
    story.start("d").finish("d").start("e").finish("e")
    return history_of(graph, story.rows)
