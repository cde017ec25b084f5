"""Secrets and redaction: a canary value goes in everywhere and must come out nowhere."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from authoring_support import RememberingSink, attempt, context, error_of, new_workflow, output_of
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from kairos.authoring import App, Redaction, Secret, StepContext, redaction
from kairos.authoring.executor import Outcome, Succeeded
from kairos.authoring.redaction import PLACEHOLDER, Redactor
from kairos.errors import DefinitionError, PayloadError, RunFailed, SecretError

CANARY = 'c4n\'ary "välue"/+%\n0123456789'
NAME = "KAIROS_TEST_CANARY"


class Account(BaseModel):
    key: Secret
    owner: str = "ada"


@pytest.mark.parametrize("malformed", [CANARY, "env:", "file:", "env:A=B", "vault:x", 5, None])
def test_a_malformed_reference_is_taught_both_forms_and_never_shown(malformed: Any) -> None:
    with pytest.raises(SecretError) as made:
        Secret(malformed)
    with pytest.raises(PayloadError) as given:
        new_workflow(Account).encode_input({"key": malformed})
    for error in (made.value, given.value):
        assert '"env:NAME"' in str(error)
        assert '"file:PATH"' in str(error)
        assert CANARY not in str(error)


@pytest.fixture(autouse=True)
def canary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, CANARY)
    monkeypatch.setattr(redaction, "_revealed_outside", ())


def everything(outcome: Outcome, sink: RememberingSink) -> str:
    parts: list[Any] = [repr(outcome), repr(sink.logs), repr(sink.metrics)]
    if isinstance(outcome, Succeeded):
        parts += [(outcome.output.data or b"").decode()]
    else:
        parts += [json.dumps(error_of(outcome).to_json(), ensure_ascii=False)]
    return "\n".join(parts)


def no_canary_in(text: str) -> bool:
    forms = [CANARY, CANARY[5:20], repr(CANARY)[1:-1], json.dumps(CANARY)[1:-1], quote(CANARY, safe="")]
    forms += [repr(CANARY.encode())[2:-1], CANARY.encode().hex(), "c4n"]
    forms += [base64.b64encode(CANARY.encode()).decode(), "0123456789"]
    return not any(form in text for form in forms)


def returns_it(account: Account, ctx: StepContext) -> Any:
    return {"headers": {"x": f"Bearer {account.key.reveal()}"}, account.key.reveal(): [account.key.reveal()]}


def raises_it(account: Account, ctx: StepContext) -> Any:
    value = account.key.reveal()
    wrapped = {"deep": [("x", value)], "b": value.encode()}
    raise ValueError(f"cannot log in with {value}", wrapped)


def chains_it(account: Account, ctx: StepContext) -> Any:
    error = RuntimeError("outer")
    error.add_note(f"tried {account.key.reveal()!r}")
    try:
        raise KeyError(account.key.reveal())
    except KeyError as exc:
        raise error from exc


def groups_it(account: Account, ctx: StepContext) -> Any:
    raise ExceptionGroup("several", [ValueError(account.key.reveal())])


def logs_it(account: Account, ctx: StepContext) -> Any:
    value = account.key.reveal()
    ctx.log.info(f"using {value}", value=value, nested={"k": [value]}, **{"weird " + value: 1})
    ctx.log.error({"message": value})
    ctx.emit("calls", 1, key=value)


def encodes_it(account: Account, ctx: StepContext) -> Any:
    value = account.key.reveal()
    raise ValueError(quote(value, safe=""), base64.b64encode(value.encode()).decode(), json.dumps(value))


def cuts_it(account: Account, ctx: StepContext) -> Any:
    value = account.key.reveal()
    long = "x" * 1015 + value  # noqa: F841
    ctx.log.info("y" * 8185 + value)
    raise ValueError("z" * 8185 + value)


def exits_with_it(account: Account, ctx: StepContext) -> Any:
    raise SystemExit(account.key.reveal())


def in_a_thread_of_its_own(account: Account, ctx: StepContext) -> Any:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(account.key.reveal()))
    thread.start()
    thread.join()
    return found


def wrong_type(account: Account, ctx: StepContext) -> int:
    return account.key.reveal()  # type: ignore[return-value]


BODIES = [
    returns_it,
    raises_it,
    chains_it,
    groups_it,
    logs_it,
    encodes_it,
    cuts_it,
    exits_with_it,
    in_a_thread_of_its_own,
    wrong_type,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_revealed_secret_shows_up_nowhere(body: Callable[..., Any], is_async: bool) -> None:
    wf = new_workflow(Account)
    sink = RememberingSink()

    async def as_async(account: Account, ctx: StepContext) -> Any:
        return body(account, ctx)

    if body is wrong_type:
        as_async.__annotations__["return"] = int
    step = wf.step(as_async if is_async else body)
    outcome = attempt(step, input={"key": {"$secret": f"env:{NAME}"}}, ctx=context(sink=sink))
    text = everything(outcome, sink)
    assert no_canary_in(text), text
    if body is not logs_it:
        assert PLACEHOLDER in text


def test_the_run_stores_only_the_reference() -> None:
    wf = new_workflow(Account)
    assert wf.encode_input(Account(key=Secret(f"env:{NAME}"))).data == (
        b'{"key":{"$secret":"env:KAIROS_TEST_CANARY"},"owner":"ada"}'
    )


def test_the_value_is_part_of_no_copy_of_a_secret() -> None:
    secret = Secret(f"env:{NAME}")
    secret.reveal()
    assert repr(secret) == str(secret) == "Secret('env:KAIROS_TEST_CANARY')"
    copies = [pickle.loads(pickle.dumps(secret)), copy.copy(secret), copy.deepcopy(secret)]  # noqa: S301
    assert all(other == secret and hash(other) == hash(secret) for other in copies)
    assert no_canary_in(pickle.dumps(secret).decode("latin-1"))
    assert Account(key=secret).model_dump_json() == '{"key":{"$secret":"env:KAIROS_TEST_CANARY"},"owner":"ada"}'


def test_a_file_is_read_when_revealed_without_its_last_newline(tmp_path: Path) -> None:
    file = tmp_path / "key"
    secret = Secret(f"file:{file}")
    file.write_text("first\n\n")
    assert secret.reveal() == "first\n"
    file.write_text("second\r\n")
    assert secret.reveal() == "second"


def test_a_secret_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"the environment has no NOT_SET\n.*Set NOT_SET in the environment"):
        Secret("env:NOT_SET").reveal()
    with pytest.raises(SecretError, match="cannot be read: No such file or directory"):
        Secret(f"file:{tmp_path}/missing").reveal()
    with pytest.raises(SecretError, match="cannot be read: Is a directory"):
        Secret(f"file:{tmp_path}").reveal()
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(SecretError, match="cannot be read: it is not UTF-8 text"):
        Secret(f"file:{tmp_path}/binary").reveal()


@pytest.mark.parametrize("reference", ["", "sk_live_123456", "env:", "env: ", "vault:x", "env:A=B", "file:\0", 5, None])
def test_what_is_not_a_reference_is_refused_without_showing_it(reference: Any) -> None:
    with pytest.raises(SecretError) as caught:
        Secret(reference)
    assert "sk_live" not in str(caught.value)
    with pytest.raises(PayloadError) as refused:
        new_workflow(Account).encode_input({"key": reference})
    assert "sk_live" not in str(refused.value)
    assert "(got [redacted])" in str(refused.value)


def test_an_unset_secret_is_a_failure_of_the_step() -> None:
    wf = new_workflow(Account)

    @wf.step
    def use(account: Account) -> None:
        account.key.reveal()

    error = error_of(attempt(use, input={"key": "env:NOT_SET"}))
    assert error.type == "kairos.errors.SecretError"
    assert error.hint is not None
    assert "NOT_SET" in error.message


def test_a_secret_revealed_outside_an_attempt_is_blanked_in_all_of_them() -> None:
    value = Secret(f"env:{NAME}").reveal()
    wf = new_workflow()

    @wf.step
    def leak() -> str:
        return value

    assert output_of(attempt(leak)) == PLACEHOLDER


def test_a_running_attempt_learns_of_a_secret_revealed_by_a_thread_without_context() -> None:
    secret = Secret(f"env:{NAME}")
    wf = new_workflow()

    @wf.step
    def leak() -> list[str]:
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(secret.reveal()))
        thread.start()
        thread.join()
        return found

    assert output_of(attempt(leak)) == [PLACEHOLDER]


def test_a_reference_under_a_redacted_field_is_kept() -> None:
    wf = new_workflow(Account, Redaction(fields=["key"]))

    @wf.step
    def use(account: Account) -> int:
        return len(account.key.reveal())

    assert wf.encode_input({"key": f"env:{NAME}"}).data == (
        b'{"key":{"$secret":"env:KAIROS_TEST_CANARY"},"owner":"ada"}'
    )
    assert wf.run_inline({"key": f"env:{NAME}"}) == len(CANARY)


def test_a_secret_of_one_attempt_does_not_touch_another() -> None:
    wf = new_workflow(Account)

    @wf.step
    def reveal(account: Account) -> str:
        return account.key.reveal()

    @wf.step
    def same_text() -> str:
        return CANARY

    assert output_of(attempt(reveal, input={"key": f"env:{NAME}"})) == PLACEHOLDER
    assert output_of(attempt(same_text)) == CANARY


@pytest.mark.parametrize(("value", "shown"), [("abc", "abc!"), ("abcd", f"{PLACEHOLDER}!")])
def test_values_are_looked_for_from_four_characters_on(value: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, value)
    wf = new_workflow(Account)

    @wf.step
    def leak(account: Account) -> str:
        return f"{account.key.reveal()}!"

    assert output_of(attempt(leak, input={"key": f"env:{NAME}"})) == shown


@pytest.fixture
def rules() -> Redaction:
    return Redaction(fields=["iban", "Card-*"], patterns=[r"\b\d{4}-\d{4}\b"], values=["Mr. Bond"])


def test_rules_of_an_app_hold_for_inputs_outputs_errors_and_logs(rules: Redaction) -> None:
    wf = new_workflow(dict, rules)
    sink = RememberingSink()

    @wf.step
    def work(input: dict, ctx: StepContext) -> dict[str, Any]:  # type: ignore[type-arg]
        ctx.log.info("for Mr. Bond", iban="DE1", at="1234-5678", other=1)
        return {"IBAN": "DE1", "card_no": 5, "text": "by Mr. Bond, 1234-5678", "list": [{"iban": None}], "n": 1}

    @wf.step
    def fail(input: dict) -> None:  # type: ignore[type-arg]
        iban = "DE1"  # noqa: F841
        who = "Mr. Bond"
        raise ValueError(f"no {who}")

    assert wf.encode_input({"iban": "DE1", "name": "Mr. Bond"}).data == (b'{"iban":"[redacted]","name":"[redacted]"}')
    assert output_of(attempt(work, input={}, ctx=context(sink=sink))) == {
        "IBAN": PLACEHOLDER,
        "card_no": PLACEHOLDER,
        "text": f"by {PLACEHOLDER}, {PLACEHOLDER}",
        "list": [{"iban": None}],
        "n": 1,
    }
    [line] = sink.logs
    assert line.message == f"for {PLACEHOLDER}"
    assert line.fields == {"iban": PLACEHOLDER, "at": PLACEHOLDER, "other": 1}
    error = error_of(attempt(fail, input={}))
    assert error.message == f"no {PLACEHOLDER}"
    assert error.locals["iban"] == PLACEHOLDER
    assert error.locals["who"] == f"'{PLACEHOLDER}'"


def test_rules_hold_even_for_a_context_that_was_made_without_them(rules: Redaction) -> None:
    wf = new_workflow(None, rules)

    @wf.step
    def work() -> str:
        return "Mr. Bond"

    assert output_of(attempt(work, ctx=context())) == PLACEHOLDER


def test_a_redacted_field_that_a_later_step_needs_fails_there_and_says_why() -> None:
    class Person(BaseModel):
        ssn: int

    wf = new_workflow(None, Redaction(fields=["ssn"]))

    @wf.step
    def load() -> Person:
        return Person(ssn=123456789)

    @wf.step
    def check(load: Person) -> None: ...

    with pytest.raises(RunFailed) as caught:
        wf.run_inline()
    assert "(got [redacted])" in str(caught.value)
    assert "blanked by the app's Redaction" in (caught.value.facts["error"].hint or "")


def test_default_names_are_blanked_in_locals_and_logs_but_not_in_data() -> None:
    wf = new_workflow()
    sink = RememberingSink()

    @wf.step
    def work(ctx: StepContext) -> dict[str, str]:
        ctx.log.info("x", password="p1", Authorization="a1", tokens=5, api_key="k1")
        return {"password": "p1"}

    @wf.step
    def fail() -> None:
        db_password = "hunter22"  # noqa: F841
        config = {"api-key": "k1", "port": 5}  # noqa: F841
        raise ValueError("no")

    assert output_of(attempt(work, ctx=context(sink=sink))) == {"password": "p1"}
    assert sink.logs[0].fields == {
        "password": PLACEHOLDER,
        "Authorization": PLACEHOLDER,
        "tokens": 5,
        "api_key": PLACEHOLDER,
    }
    error = error_of(attempt(fail))
    assert error.locals == {"db_password": PLACEHOLDER, "config": "{'api-key': [redacted], 'port': 5}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connect to postgres://ada:pw@db:5432/x failed", "connect to postgres://[redacted]@db:5432/x failed"),
        ("Authorization: Bearer abcdefgh1234", "Authorization: Bearer [redacted]"),
        ("basic QWxhZGRpbjpvcGVu", "basic [redacted]"),
        ("password=hunter2, user=ada", "password=[redacted], user=ada"),
        ("db_password: 'a b c' ok", "db_password: [redacted] ok"),
        ('{"api_key": "k", "n": 1}', '{"api_key": [redacted], "n": 1}'),
        ("GET /x?access_token=abc&y=1", "GET /x?access_token=[redacted]&y=1"),
        ("?token=abc", "?token=[redacted]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- x", "[redacted] x"),
        ("unexpected token: '}'", "unexpected token: '}'"),
        ("at 10:30 http://host:8080/a@b", "at 10:30 http://host:8080/a@b"),
    ],
)
def test_well_known_shapes_are_blanked_in_errors(text: str, expected: str) -> None:
    assert Redactor().text(text) == expected


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"values": ["abc"]}, "at least 4 characters"),
        ({"patterns": ["("]}, "is not a regular expression"),
        ({"patterns": ["a*"]}, "matches the empty text"),
        ({"patterns": [5]}, "takes a list of texts"),
        ({"fields": 5}, "takes a list of texts"),
        ({"fields": [""]}, "takes a list of texts"),
        ({"values": [None]}, "takes a list of texts"),
    ],
)
def test_wrong_rules_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(message)):
        Redaction(**wrong)


def test_one_text_is_taken_for_a_list_of_one_and_patterns_may_be_compiled() -> None:
    rules = Redaction(fields="iban", patterns=re.compile("(?i)bond"), values="Mr. X")
    assert Redactor(rules).json({"iban": 1, "a": "BOND Mr. X"}) == {"iban": PLACEHOLDER, "a": "[redacted] [redacted]"}


def test_the_values_of_a_redaction_are_not_in_its_repr() -> None:
    assert "hunter22" not in repr(Redaction(values=["hunter22"]))


def test_numbers_that_are_a_secret_are_blanked_too() -> None:
    redactor = Redactor()
    redactor.reveal("123456")
    assert redactor.json([123456, 1234567, "x123456"]) == [PLACEHOLDER, 1234567, "x[redacted]"]


@given(st.text(min_size=4, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_no_text_around_a_secret_lets_it_through(secret: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.reveal(secret)
    blanked = redactor.json({"k": [before + secret + after]})["k"][0]
    assert secret not in blanked.replace(PLACEHOLDER, "\0") or secret in PLACEHOLDER


def test_an_app_without_rules_has_nothing_to_do() -> None:
    assert not Redactor().is_active
    assert not Redactor(Redaction()).is_active
    assert App("shop").redaction is None


@pytest.fixture(autouse=True)
def _nothing_left_over() -> Iterator[None]:
    yield
    assert redaction.ATTEMPT.get() is None
