"""`kairos replay` on runs that a real worker wrote: verdicts, modes, output, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import kairos
from kairos.authoring.loading import load_app
from kairos.authoring.redaction import Redaction
from kairos.domain.events import EffectRecorded
from kairos.replay.bundle import export_bundle
from kairos.store.connect import Session
from kairos.store.reader import Reader
from tests.cli.cli_support import eventually, working
from tests.conftest import Server, TestDatabase
from tests.replay.replay_support import Replayed, replay

APP = """
import asyncio, functools, json, os, random, threading, time, uuid
from datetime import UTC, datetime
from pathlib import Path
import psycopg
import kairos
from pydantic import BaseModel

app = kairos.App("shop")
THERE = not os.environ.get("KAIROS_REPLAY")     # in production

class Order(BaseModel):
    order_id: str
    cents: int = 100
    key: kairos.Secret = kairos.Secret("env:SHOP_KEY")

class Tax:
    def __init__(self, rate): self.rate = rate
    def of(self, order: Order) -> float: return order.cents * self.rate

def logged(fn):
    @functools.wraps(fn)
    def inner(*args, **kwargs): return fn(*args, **kwargs)
    return inner

shapes = app.workflow("shapes", input=Order)

@shapes.step
def plain(order: Order) -> dict:
    return {"id": order.order_id, "né 名前": ["\\u202e", None, 1.5]}

@shapes.step
async def waits(order: Order, plain: dict) -> str:
    await asyncio.sleep(0.001)
    return f"{plain['id']} waited"

shapes.step(name="method")(Tax(0.2).of)

def _much(order: Order, much: int) -> int:
    return much

shapes.step(name="partial")(functools.partial(_much, much=3))

@shapes.step
@logged
def decorated(order: Order, method: float) -> float:
    return round(method, 2)

@shapes.step
def calls(order: Order, ctx: kairos.StepContext) -> dict:
    rate = ctx.call("rate", lambda: {"rate": 1.5 if THERE else 99})
    for n in range(3):
        rate[f"n{n}"] = ctx.call("count", lambda k: k if THERE else -1, n)
    ctx.log.info("rated", rate=rate["rate"])
    ctx.emit("rate", rate["rate"])
    return {**rate, "at": ctx.now().isoformat(), "id": str(ctx.uuid()), "dice": ctx.random()}

@shapes.step
async def calls_async(order: Order, ctx: kairos.StepContext) -> list:
    async def ask(n: int) -> int:
        await asyncio.sleep(0)
        return n if THERE else -1
    return await asyncio.gather(*(ctx.call(f"ask {n}", ask, n) for n in range(4)))

@shapes.step(retry=kairos.Retry(attempts=3, base="10ms", jitter=0))
def retried(order: Order, ctx: kairos.StepContext) -> dict:
    first = ctx.call("first", lambda: "paid" if THERE else "twice")
    if ctx.attempt == 1:
        raise ConnectionError("no answer")
    try:
        ctx.call("flaky", _flaky)
    except TimeoutError as exc:
        seen = str(exc)
    return {"first": first, "seen": seen, "attempt": ctx.attempt, "token": ctx.token > 0, "key": ctx.idempotency_key}

def _flaky():
    raise TimeoutError("slow" if THERE else "not served")

@shapes.step
def undetermined(order: Order) -> dict:
    return {"at": time.time(), "id": str(uuid.uuid4()), "dice": random.random(), "sure": order.order_id}

@shapes.step
def secretive(order: Order) -> dict:
    return {"length": len(order.key.reveal())}

@shapes.step
def transactional(order: Order, conn: psycopg.Connection) -> int:
    return conn.execute("select 7").fetchone()[0]

@shapes.step
def after_it(transactional: int) -> int:
    return transactional + 1

@shapes.step
def nothing() -> None:
    pass

@shapes.step
def large(order: Order) -> list:
    return [{"n": n, "text": "x" * 50} for n in range(500)]

@shapes.step
def prints(order: Order) -> str:
    print("out loud")
    os.write(1, b"raw\\n")
    return "quiet"

six = app.workflow("six", input=Order)

@six.step
def fetch(order: Order) -> dict:
    return {"cents": order.cents, "items": [{"sku": f"s{i}", "n": i} for i in range(5)]}

@six.step
def check(fetch: dict) -> int:
    return len(fetch["items"])

@six.step
def price(fetch: dict) -> float:
    return fetch["cents"] / 100

@six.step(retry=kairos.Retry(attempts=2, base="10ms", jitter=0))
def charge(price: float, check: int, ctx: kairos.StepContext) -> dict:
    detail = {"price": price}
    if check > 4:
        raise ValueError(f"too many items: {check}")
    return {"charged": ctx.call("charge", lambda: price), "items": check}

@six.step
def email(order: Order, charge: dict) -> str:
    return f"{order.order_id}: {charge['charged']}"

@six.step
def close(email: str) -> int:
    return len(email)

web = app.workflow("web", input=Order)

def get(url: str) -> str:
    import urllib.request
    with urllib.request.urlopen(url) as answer:
        return answer.read().decode()

@web.step
def called(order: Order, ctx: kairos.StepContext) -> dict:
    return {"at": ctx.now().isoformat(), "said": ctx.call("get", get, order.order_id), "dice": ctx.random()}

@web.step(record_http=True)
async def hooked(order: Order) -> str:
    import httpx
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(order.order_id)).text

hang = app.workflow("hang", input=Order)

@hang.step
def begin(order: Order, ctx: kairos.StepContext) -> str:
    return ctx.call("before", lambda: "made" if THERE else "again")

@hang.step
def stuck(order: Order, begin: str, ctx: kairos.StepContext) -> str:
    token = ctx.call("token", lambda: "t-1" if THERE else "t-2")
    while not Path(os.environ.get("SHOP_GATE", "/nowhere")).exists():
        time.sleep(0.01)
    return token

@hang.step
def never(stuck: str) -> str:
    return stuck
"""


@dataclass(frozen=True)
class Shop:
    """A folder with the app, and a database with runs of it."""

    place: Path
    database: TestDatabase
    runs: dict[str, str]

    def replay(self, run: str, *arguments: str, app: str = "shop.py", env: dict[str, str] | None = None) -> Replayed:
        """`kairos replay RUN ...`"""
        given = {"KAIROS_DATABASE_URL": self.database.dsn, **(env or {})}
        return replay(self.place, self.runs.get(run, run), *arguments, "--app", f"{app}:app", env=given)

    def edited(self, name: str, *changes: tuple[str, str]) -> str:
        """The app with these changes, as another file."""
        text = APP
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (self.place / name).write_text(text)
        return name


class Counting(BaseHTTPRequestHandler):
    """Answers each request with another number."""

    asked = 0

    def do_GET(self) -> None:
        Counting.asked += 1
        body = f"answer {Counting.asked}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def answering(port: int = 0) -> Iterator[str]:
    """A web server for the length of the block; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", port), Counting) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def shop(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """One run of each workflow: done, failed in its fourth step, and, as a file, hung in its second."""
    place = tmp_path_factory.mktemp("shop")
    (place / "shop.py").write_text(APP)
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute("drop database if exists kairos_replaying with (force)")
        conn.execute(f"create database kairos_replaying template {template}")
    database = TestDatabase(
        make_conninfo(server.app, dbname="kairos_replaying"), make_conninfo(server.admin, dbname="kairos_replaying")
    )
    app = load_app(f"{place / 'shop.py'}:app")
    gate = place / "gate"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_KEY", "sesame-sesame")
        patch.setenv("SHOP_GATE", str(gate))
        with working(app, database.dsn), kairos.Client(database.dsn) as client:
            runs = {name: client.start(app.get(name), {"order_id": "42"}) for name in ("shapes", "six", "hang")}
            with answering() as url:
                runs["web"] = client.start(app.get("web"), {"order_id": url})
                for name in ("shapes", "six", "web"):
                    runs[name].wait(30)
            eventually(lambda: _has_effect(client, runs["hang"].id, "stuck"))
            asyncio.run(_export(database.dsn, runs["hang"].id, place / "hung.kairos"))
            gate.touch()
            runs["hang"].wait(30)
    gate.unlink()
    return Shop(place, database, {name: run.id for name, run in runs.items()} | {"hang": "hung.kairos"})


def _has_effect(client: kairos.Client, run: str, step: str) -> bool:
    events = [recorded.event for recorded in client.events(run)]
    return any(isinstance(event, EffectRecorded) and event.step == step for event in events)


async def _export(dsn: str, run: str, path: Path, redact: Redaction | None = None) -> None:
    session = Session(dsn, "kairos tests")
    try:
        await export_bundle(Reader(session), UUID(run), path, redact=redact)
    finally:
        await session.close()


def test_every_shape_of_step_is_replayed(shop: Shop) -> None:
    done = shop.replay("shapes", "--json", env={"SHOP_KEY": "sesame-sesame"})
    assert done.code == 0, done.err
    expected = dict.fromkeys(done.verdicts, "same") | {"undetermined": "approximate", "transactional": "served"}
    assert done.verdicts == expected
    assert len(expected) == 15
    effects = {name: step["effects"]["served"] for name, step in done.steps.items() if "effects" in step}
    assert {name: n for name, n in effects.items() if n} == {"calls": 7, "calls_async": 4, "retried": 2}
    assert {item["path"] for item in done.steps["undetermined"]["differences"]["differences"]} == {"at", "id", "dice"}
    assert done.steps["retried"]["attempt"] == 2
    assert done.json["code_changes"] == {}


def test_the_lines_are_those_that_users_know(shop: Shop) -> None:
    done = shop.replay("six")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert re.fullmatch(rf"\[replay\] run {shop.runs['six']} \(workflow: six [0-9a-f]{{8}}\)", lines[0])
    assert re.fullmatch(r"\[replay\] fetched \d+ events from the database: FAILED", lines[1])
    assert lines[3].startswith("[replay] isolation: env yes, audit yes, ")
    assert lines[4] == "[replay] code: the code of the step functions is as it was"
    assert lines[5].startswith("[replay] mode: verify (")
    assert re.fullmatch(r"\[replay\] step 1/6: fetch  OK \(\S+, diff: 0 bytes\)", lines[6])
    assert re.fullmatch(
        r"\[replay\] step 4/6: charge  FAIL \(\S+, the same error: ValueError: too many items: 5\)  attempt 2", lines[9]
    )
    assert "shop.py:" in lines[10]
    assert done.line("close") == "[replay] step 6/6: close  MISSING (its input is not known: email never finished)"
    assert re.fullmatch(r"\[replay\] complete: 3 same, 1 same-error, 2 missing \(\S+\)", lines[-1])


def test_the_commands_that_are_printed_can_be_typed(shop: Shop) -> None:
    def following(done: Replayed) -> list[str]:
        (line,) = [line for line in done.out.splitlines() if line.startswith("[replay] next: ")]
        return shlex.split(line.partition("kairos replay ")[2])

    fixed = shop.edited("the fix.py", ("if check > 4:", "if check > 40:"))
    given = ["--env", "SHOP_SEEN", "--database-url", shop.database.dsn]
    proved = replay(shop.place, shop.runs["six"], "--app", f"{fixed}:app", *given, env={"SHOP_SEEN": "1"})
    typed = following(proved)
    assert typed[:3] == [shop.runs["six"], "--fork-from", "charge"]
    password = str(conninfo_to_dict(shop.database.dsn)["password"])
    assert password not in proved.out
    forked = replay(shop.place, *typed, env={"PGPASSWORD": password})
    assert forked.code == 0, forked.err
    assert "fixed; it was" in forked.line("charge")

    typed = following(shop.replay("six", app=shop.edited("dear.py", ('fetch["cents"] / 100', 'fetch["cents"] / 10'))))
    assert typed[1:3] == ["--mode", "propagate"]
    reached = replay(shop.place, *typed, env={"KAIROS_DATABASE_URL": shop.database.dsn})
    assert "new input" in reached.out
    nothing_below = shop.edited("late.py", ('"sure": order.order_id', '"sure": 1'))
    assert "next: " not in shop.replay("shapes", app=nothing_below).out


def test_a_fix_is_proved_and_reaches_the_steps_below(shop: Shop) -> None:
    fixed = shop.edited("fixed.py", ("if check > 4:", "if check > 40:"))
    verify = shop.replay("six", "--json", app=fixed)
    assert verify.code == 0, verify.err
    assert verify.verdicts["charge"] == "fixed"
    assert verify.verdicts["email"] == "missing"
    assert verify.json["code_changes"] == {"charge": "code changed"}
    assert "+    if check > 40:" in verify.steps["charge"]["source_diff"]
    fork = shop.replay("six", "--fork-from", "charge", "--show-code", app=fixed)
    assert fork.code == 0, fork.err
    for step in ("fetch", "check", "price"):
        assert fork.line(step).endswith("SERVED (recorded output; it does not depend on charge)")
    assert "OK" in fork.line("charge")
    assert "fixed; it was ValueError: too many items: 5" in fork.line("charge")
    assert "not recorded; it had not started" in fork.line("close")
    assert "         -    if check > 4:\n         +    if check > 40:" in fork.out


def test_edits_of_a_fork_are_checked_and_applied(shop: Shop) -> None:
    done = shop.replay(
        "six", "--fork-from", "charge", "--set", "input.order_id=né", "--set", "price=7.5",
        "--output", 'check=2', "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.steps["charge"]["output"] == {"charged": 7.5, "items": 2}
    assert done.steps["email"]["output"] == "né: 7.5"
    repaired = shop.replay("six", "--fork-from", "charge", "--output", 'charge={"charged": 3, "items": 2}', "--json")
    assert repaired.code == 0, repaired.err
    assert (repaired.verdicts["charge"], repaired.steps["charge"]["why"]) == ("served", "the output that was given")
    assert repaired.steps["email"]["output"] == "42: 3"
    last = shop.replay("six", "--fork-from", "close", "--output", "close=3", "--output", 'email="x"', "--json")
    assert (last.verdicts["close"], last.verdicts["email"]) == ("served", "served")
    for arguments, complaint in (
        (["--set", "input.cents=[1]"], "cents: Input should be a valid integer"),
        (["--set", "fetch.cens=1"], "'fetch.cens' leads nowhere"),
        (["--output", 'email="x"'], "'email' runs again in a fork from 'charge'"),
        (["--set", "nonsense"], "PATH=VALUE"),
        (["--output", "check=@/nowhere.json"], "/nowhere.json cannot be read"),
    ):
        refused = shop.replay("six", "--fork-from", "charge", *arguments)
        assert refused.code == 2, refused.out
        assert complaint in refused.err


def test_what_diverges_is_shown_path_by_path(shop: Shop) -> None:
    changed = shop.edited(
        "changed.py", ('"sku": f"s{i}", "n": i}', '"sku": f"s{i}", "n": i + (i == 3)}'),
    )  # fmt: skip
    done = shop.replay("six", app=changed)
    assert done.code == 1
    assert re.search(
        r"fetch  DIVERGED \(\S+, diff: 1 byte\)  code changed  <- first divergence\n.*items\[3\].n", done.out
    )
    assert shop.replay("six", "--ignore", "items[*].n", "--until", "price", app=changed).code == 0
    in_json = shop.replay("six", "--mode", "propagate", "--until", "check", "--json", app=changed)
    assert in_json.code == 1
    assert in_json.json["first_divergence"] == "fetch"
    assert in_json.steps["fetch"]["differences"]["differences"] == [
        {"path": "items[3].n", "kind": "changed", "old": 3, "new": 4}
    ]
    assert in_json.steps["check"]["new_input"]
    assert in_json.verdicts["charge"] == "missing"


def test_effects_that_differ_are_told(shop: Shop) -> None:
    other = shop.edited(
        "effects.py", ('ctx.call("count", lambda k: k if THERE else -1, n)', 'ctx.call("count", lambda k: -1, n + 7)'),
        ('ctx.call(f"ask {n}", ask, n) for n in range(4)', 'ctx.call(f"ask {n + 1}", ask, n + 1) for n in range(4)'),
    )  # fmt: skip
    done = shop.replay("shapes", "--only", "calls", app=other)
    assert done.code == 1
    assert "DIVERGED" in done.line("calls")
    assert "'count' #1 is not the one that was recorded: recorded with {\"args\":[0]}, asked for with" in done.out
    missing = shop.replay("shapes", "--only", "calls_async", "--json", app=other)
    assert missing.code == 1
    assert missing.verdicts["calls_async"] == "diverged:effects"
    use = missing.steps["calls_async"]["effects"]
    assert (use["served"], use["missing"], use["extra"]) == (3, ["ask 0 #1"], ["ask 4 #1"])


def test_a_hung_step_is_replayed_from_a_file_without_a_database(shop: Shop) -> None:
    nowhere = {"KAIROS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    done = shop.replay("hang", "--timeout", "0.4s", env=nowhere)
    assert done.code == 1
    assert "fetched" in done.out
    assert "hung.kairos: RUNNING" in done.out
    assert "OK" in done.line("begin")
    assert re.search(r"stuck  FAIL \(\S+, stopped by --timeout\)  1 effect served", done.out)
    assert re.search(r"shop\.py:\d+ in stuck\n +time\.sleep\(0\.01\)\n", done.out)
    assert "MISSING" in done.line("never")
    mended = shop.edited("mended.py", ('os.environ.get("SHOP_GATE", "/nowhere")', '"/"'))
    fork = shop.replay("hang", "--fork-from", "stuck", "--json", app=mended, env=nowhere)
    assert fork.code == 0
    assert fork.verdicts == {"begin": "served", "stuck": "not-recorded", "never": "not-recorded"}
    assert fork.steps["never"]["output"] == "t-1"


def test_another_attempt_can_be_replayed(shop: Shop) -> None:
    done = shop.replay("shapes", "--only", "retried", "--attempt", "1", "--json")
    assert done.code == 0
    assert done.verdicts["retried"] == "same-error"
    assert done.steps["retried"]["recorded"]["ending"] == "failed"


def test_a_secret_has_the_developers_value_or_a_placeholder(shop: Shop) -> None:
    without = shop.replay("shapes", "--only", "secretive")
    assert "note: the secret 'env:SHOP_KEY' is not on this machine; a placeholder stands for it" in without.out
    with_one = shop.replay("shapes", "--only", "secretive", env={"SHOP_KEY": "other-secret!"})
    assert with_one.code == 0
    assert "placeholder" not in with_one.out
    assert "other-secret!" not in with_one.out + with_one.err


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--mode", "vrify"], 2, "--mode 'vrify' is not a mode"),
        (["--serve", "fech"], 2, "Did you mean 'fetch'?"),
        (["--only", "x"], 2, "--only: the run has no step 'x'"),
        (["--attempt", "7"], 2, "At most 2 attempts were made."),
        (["--attempt", "7", "--only", "fetch"], 2, "One attempt was made."),
        (["--only", "fetch", "--until", "check"], 2, "--only runs one step alone"),
        (["--set", "a=1"], 2, "--set and --output edit a fork"),
        (["--submit"], 2, "--submit starts a fork"),
        (["--fork-from", "nope"], 2, "there is no step 'nope' to fork from"),
        (["--allow-network", "*"], 2, "is not a host that a replay can be allowed to reach"),
        (["--allow-writes", "/no/such"], 2, "there is no such file or folder"),
        (["--ignore", "a..b["], 2, "hint:"),
        (["--require-isolation", "lax"], 2, "There is: strict."),
        (["--timeout", "soon"], 2, "--timeout"),
        (["--mode", "live"], 2, "live mode asks first, and there is nobody to ask"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_is_explained(shop: Shop, arguments: list[str], code: int, complaint: str) -> None:
    done = shop.replay("six", *arguments)
    assert (done.code, complaint in done.err) == (code, True), done.err


def test_what_cannot_be_read_or_loaded_has_its_own_code(shop: Shop) -> None:
    (shop.place / "junk.kairos").write_bytes(b"PK\x03\x04 junk")
    assert shop.replay("junk.kairos").code == 4
    assert shop.replay("missing.kairos", "--json").json["error"]["type"] == "BundleError"
    assert shop.replay("01234567").code == 4
    (shop.place / "broken.py").write_text("import kairos\nraise LookupError('no config')\n")
    broken = shop.replay("six", app="broken.py")
    assert broken.code == 2
    assert 'broken.py", line 2, in <module>' in broken.err
    assert "kairos/replay/child.py" not in broken.err
    (shop.place / "asks.py").write_text("import os\nREGION = os.environ['SHOP_REGION']\n" + APP)
    asks = shop.replay("six", app="asks.py", env={"SHOP_REGION": "eu-1"})
    assert asks.code == 2
    assert "hint: SHOP_REGION is set here, but a replay passes no variables on unless they are named: --env" in asks.err
    assert "eu-1" not in asks.err + asks.out
    assert shop.replay("six", "--env", "SHOP_REGION", app="asks.py", env={"SHOP_REGION": "eu-1"}).code == 0
    later = shop.edited("later.py", ('return len(fetch["items"])', 'return int(os.environ["SHOP_COUNT"])'))
    assert "--env SHOP_COUNT" in shop.replay("six", "--only", "check", app=later, env={"SHOP_COUNT": "5"}).out
    (shop.place / "empty.py").write_text("import kairos\napp = kairos.App('other')\n")
    empty = shop.replay("six", app="empty.py")
    assert empty.code == 2
    assert "the app 'other' has no workflow 'six'" in empty.err
    (shop.place / "ends.py").write_text("import os\nos._exit(0)\n")
    ends = shop.replay("six", app="ends.py")
    assert ends.code == 2
    assert "the process that runs your code ended before it was ready: exit code 0" in ends.err
    (shop.place / "leaks.py").write_text("import urllib.request as u\nu.urlopen('http://127.0.0.1:9')\n")
    leaks = shop.replay("six", app="leaks.py")
    assert leaks.code == 3
    assert "leak leaks.py:2 in <module>: reaches for 127.0.0.1:9 (in the import of the app)" in leaks.err


def test_what_a_bundle_has_blanked_is_not_put_down_to_the_app(shop: Shop) -> None:
    asyncio.run(
        _export(shop.database.dsn, shop.runs["six"], shop.place / "blank.kairos", redact=Redaction(fields=["cents"]))
    )
    done = shop.replay("blank.kairos", "--only", "fetch")
    assert done.code == 1
    assert "hint: Part of it was blanked when this bundle was written (`kairos export --redact`)" in done.out
    assert "kairos.Secret" not in done.out


def test_a_hint_is_said_once_however_many_steps_need_it(shop: Shop) -> None:
    leaky = shop.edited(
        "leaky.py",
        ('return len(fetch["items"])', 'return Path("/kairos-a").write_text("x")'),
        ('return fetch["cents"] / 100', 'return Path("/kairos-b").write_text("x")'),
    )
    done = shop.replay("six", "--until", "price", app=leaky)
    assert (done.code, done.out.count(" leak leaky.py:")) == (3, 2)
    assert done.out.count("hint: ") == 1


PROBE = """import psycopg
import pathlib, socket
for attempt in (lambda: socket.create_connection(("127.0.0.1", 9)), lambda: pathlib.Path("probe.txt").write_text("x")):
    try: attempt()
    except OSError: pass
"""


def test_what_an_import_tried_and_did_without_is_a_note(shop: Shop) -> None:
    probing = shop.edited("probing.py", ("import psycopg\n", PROBE))
    done = shop.replay("shapes", "--only", "plain", app=probing)
    assert done.code == 0, done.out
    assert "note: the guards refused something while the app was imported" in done.out
    assert "in <lambda>: reaches for 127.0.0.1:9 (in the import of the app)" in done.out
    assert "hint: Do it in a step, where ctx.call records it. Or let it happen: --allow-network HOST:PORT." in done.out
    assert "blocked" not in done.out.splitlines()[-1]
    told = shop.replay("shapes", "--only", "plain", "--json", app=probing)
    assert told.code == told.json["exit_code"] == 0
    assert [(leak["what"], leak["at_import"]) for leak in told.json["leaks"]] == [
        ("reaches for", True), ("opens for writing", True),
    ]  # fmt: skip
    (shop.place / "probed.py").write_text(PROBE.replace("import psycopg\n", ""))
    late = shop.edited(
        "late.py", ('    return {"id": order.order_id, "né', '    import probed\n    return {"id": order.order_id, "né')
    )
    within = shop.replay("shapes", "--only", "plain", "--json", app=late)
    assert (within.code, within.verdicts["plain"]) == (0, "same")
    assert [leak["what"] for leak in within.steps["plain"]["leaks"]] == ["reaches for", "opens for writing"]


def test_live_mode_really_calls_and_says_so(shop: Shop) -> None:
    done = shop.replay("shapes", "--mode", "live", "--yes", "--until", "calls", "--json")
    assert done.code == 1
    assert "live mode: these steps run for real, without guards" in done.err
    assert "calls  rate #1, count #1, count #2, count #3" in done.err
    assert done.steps["calls"]["output"]["rate"] == 1.5 or done.steps["calls"]["output"]["rate"] == 99
    assert done.steps["calls"]["effects"]["served"] == 0
    assert done.json["isolation"] == {"line": "off: effects really happen", "layers": {}}


def test_a_replay_leaves_production_as_it_is(shop: Shop) -> None:
    count = "select (select count(*) from kairos.event), (select count(*) from kairos.run), (select count(*) from " \
        "kairos.task), (select count(*) from kairos.blob), (select count(*) from kairos.definition), " \
        "(select md5(string_agg(head_hash::text, '' order by id)) from kairos.run)"  # fmt: skip
    before = shop.database.fetch(count)
    assert shop.replay("shapes", "--mode", "propagate", env={"SHOP_KEY": "sesame-sesame"}).code == 0
    assert shop.replay("six", "--fork-from", "charge").code == 0
    assert shop.database.fetch(count) == before


def test_the_child_knows_no_database_and_holds_no_connection(shop: Shop) -> None:
    spy = """
@six.step
def spy() -> dict:
    found = {"fds": [], "env": [n for n in os.environ if "KAIROS" in n or "SHOP" in n or "PG" in n]}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found["fds"].append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return found
"""
    (shop.place / "spy.py").write_text(APP + spy)
    done = shop.replay(
        "six", "--mode", "propagate", "--serve", "charge", "--env", "SHOP_SEEN", "--json", app="spy.py",
        env={"SHOP_SEEN": "1", "SHOP_PASSWORD": "x", "PGPASSWORD": "x"},
    )  # fmt: skip
    found = done.steps["spy"]["output"]
    assert sorted(found["env"]) == ["KAIROS_REPLAY", "SHOP_SEEN"]
    sockets = [fd for fd in found["fds"] if fd.startswith("socket:")]
    assert len(sockets) == 2, found  # the two ends of the event loop's own pair


def test_a_fork_is_submitted_once_its_code_is_known(shop: Shop) -> None:
    fixed = shop.edited("deployed.py", ("if check > 4:", "if check > 400:"))
    refused = shop.replay("six", "--fork-from", "charge", "--submit", app=fixed)
    assert refused.code == 2
    assert "was never announced by a worker" in refused.err
    app = load_app(f"{shop.place / fixed}:app")
    with working(app, shop.database.dsn), kairos.Client(shop.database.dsn) as client:
        done = shop.replay("six", "--fork-from", "charge", "--submit", "--reason", "fixed", "--json", app=fixed)
        assert done.code == 0, done.err
        fork = client.get_run(done.json["fork"])
        assert fork.wait(30).output == len("42: 1.0")
        assert [type(e.event).__name__ for e in client.events(fork.id)][1] == "RunForked"
    again = shop.replay(done.json["fork"], "--json", app=fixed)
    assert again.verdicts == {
        "fetch": "served", "check": "served", "price": "served", "charge": "same", "email": "same", "close": "same",
    }  # fmt: skip
    bad = shop.replay("six", "--fork-from", "charge", "--submit")
    assert "note: not submitted: charge did not come out well here; --yes submits all the same" in bad.out


def test_recorded_calls_are_answered_with_the_network_cut_and_bare_ones_are_leaks(shop: Shop) -> None:
    with contextlib.ExitStack() as up:
        events = shop.database.fetch(
            "select convert_from(body, 'UTF8') from kairos.event where run_id = %s and kind = 'run_scheduled'",
            shop.runs["web"],
        )
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", str(events[0][0]))[0])
        up.enter_context(answering(port))  # even where somebody would answer, nobody is asked
        before = Counting.asked
        done = shop.replay("web", "--json")
        assert done.code == 0, done.err
        assert done.verdicts == {"called": "same", "hooked": "same"}
        assert [done.steps[name]["effects"]["served"] for name in ("called", "hooked")] == [3, 1]
        bare = shop.edited("bare.py", ('ctx.call("get", get, order.order_id)', "get(order.order_id)"))
        leaking = shop.replay("web", app=bare)
        assert leaking.code == 3
        assert "BLOCKED" in leaking.line("called")
        assert re.search(rf"leak bare\.py:\d+ in get: reaches for 127\.0\.0\.1:{port}\n", leaking.out)
        assert "hint: Let the step record it: ctx.call(NAME, FN, ...)" in leaking.out
        assert "--allow-network HOST:PORT" in leaking.out
        assert Counting.asked == before
        allowed = shop.replay("web", "--only", "called", "--allow-network", f"127.0.0.1:{port}", app=bare)
        assert Counting.asked > before
        assert f"allowed: network 127.0.0.1:{port}" in allowed.out
