"""A misspelt keyword of a public function is told the nearest."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import kairos
from kairos import testing
from kairos.domain.keywords import checks_keywords
from kairos.errors import DefinitionError, UnknownOption

wf = kairos.App("shop").workflow("fulfil")

MISSPELT: list[tuple[Callable[..., Any], str, str, str]] = [
    (kairos.Retry, "atempts", "Retry: there is no option 'atempts'", "attempts"),
    (kairos.Redaction, "feilds", "Redaction: there is no option 'feilds'", "fields"),
    (kairos.Database, "data_dri", "Database: there is no option 'data_dri'", "data_dir"),
    (kairos.Client, "ulr", "Client: there is no option 'ulr'", "url"),
    (kairos.Client().start, "keys", "Client.start: there is no option 'keys'", "key"),
    (kairos.Client().start_many, "key", "Client.start_many: there is no option 'key'", "keys"),
    (kairos.Client().list, "stauts", "Client.list: there is no option 'stauts'", "status"),
    (kairos.App, "redcat", "App: there is no option 'redcat'", "redact"),
    (wf.step, "timeut", "Workflow.step: there is no option 'timeut'", "timeout"),
    (wf.run_inline, "inptu", "Workflow.run_inline: there is no option 'inptu'", "input"),
    (testing.run, "relpace", "run: there is no option 'relpace'", "replace"),
]


@pytest.mark.parametrize(("function", "keyword", "said", "meant"), MISSPELT, ids=[row[2] for row in MISSPELT])
def test_a_misspelt_keyword_is_told_the_nearest(
    function: Callable[..., Any], keyword: str, said: str, meant: str
) -> None:
    with pytest.raises(UnknownOption) as caught:
        function(**{keyword: 1})
    assert str(caught.value) == f"{said}\n  hint: Did you mean {meant!r}?"
    assert caught.value.facts == {"option": keyword}
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, DefinitionError)


def test_a_coroutine_function_complains_when_it_is_awaited_and_stays_one() -> None:
    assert inspect.iscoroutinefunction(kairos.AsyncClient.start)
    with pytest.raises(UnknownOption, match="Did you mean 'key'"):
        asyncio.run(kairos.AsyncClient().start("wf", keys="x"))  # type: ignore[call-arg]


def test_what_a_function_says_of_itself_is_unchanged() -> None:
    assert str(inspect.signature(kairos.Retry)).startswith("(attempts: 'int' = 3, base: ")
    assert kairos.Client.start.__doc__ is not None
    assert kairos.Client.start.__qualname__ == "Client.start"


def test_other_mistakes_of_a_call_and_open_keywords_are_left_to_python() -> None:
    @checks_keywords
    def takes(a: int, *, b: int = 0) -> int:
        return a + b

    @checks_keywords
    def takes_all(**more: int) -> int:
        return sum(more.values())

    assert takes(1, b=2) == 3
    assert takes_all(c=1, d=2) == 3
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'") as caught:
        takes(b=1)  # type: ignore[call-arg]
    assert not isinstance(caught.value, UnknownOption)
