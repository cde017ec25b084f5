"""The fold of the browser and the fold of the engine agree, on random histories, after every single event."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest

from debugger_ui.timeline import columns, machine, skeleton
from tests.ui.random_histories import forked, rolled

FOLD = """
async ({url, whole, machine, graph, parts, order}) => {
    const { Timeline } = await import(url);
    const one = new Timeline(machine, graph), many = new Timeline(machine, graph);
    one.append(whole);
    for (const part of parts) if (!many.append(part)) throw new Error("a part was refused");
    const told = (timeline, seq) => {
        const state = timeline.stateAt(seq);
        return [machine.runs[state.run], state.cancelling,
                [...state.status].map((s) => machine.steps[s]), [...state.attempt], [...state.waiting]];
    };
    if (one.append(whole)) throw new Error("what is there already was taken again");
    return order.map((seq) => [told(one, seq), told(many, seq)]);
}
"""


def truth(history: Any, seq: int) -> list[Any]:
    state = history.state_at(seq)
    names = list(history.definition.graph.steps)
    upstream = history.definition.graph.upstream_count
    return [
        state.status.value,
        state.cancel_requested is not None,
        [state.steps[n].status.value if state.steps else "PENDING" for n in names],
        [state.steps[n].attempt if state.steps else 0 for n in names],
        [state.waiting_on.get(n, upstream[n]) for n in names],
    ]


@pytest.fixture(scope="module")
def quiet_page(browser: Any, site: str) -> Any:
    page = browser.new_page()
    page.goto(f"{site}/runs")
    yield page
    page.close()


@pytest.mark.parametrize("seed", [*range(20), "fork", "long"])
def test_both_folds_agree_after_every_event(seed: int | str, quiet_page: Any, site: str) -> None:
    history = forked() if seed == "fork" else rolled(99, 900) if seed == "long" else rolled(int(seed), 80)
    dice = Random(str(seed))
    cuts = sorted({0, history.seq, *(dice.randint(0, history.seq) for _ in range(4))})
    order = [*range(history.seq + 1), *(dice.randint(0, history.seq) for _ in range(60))]
    sheet = quiet_page.locator("link[rel=stylesheet]").first.get_attribute("href")
    found = quiet_page.evaluate(
        FOLD,
        {
            "url": sheet.replace("kairos.css", "fold.js"),
            "whole": columns(history),
            "machine": machine(),
            "graph": skeleton(history.definition.graph),
            "parts": [columns(history, a, b) for a, b in pairwise(cuts)],
            "order": order,
        },
    )
    for seq, (whole, parts) in zip(order, found, strict=True):
        assert whole == truth(history, seq), seq
        assert parts == whole, seq
