"""What ails the whole system: each check looks at the facts and says what it found, or that all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

from kairos.diagnosis.phrases import ago, listed
from kairos.diagnosis.serving import unserved
from kairos.diagnosis.system import Finding, PoolerFacts, SystemFacts, WorkerHealth
from kairos.domain.duration import format_duration

RECENT: Final = timedelta(hours=1)
"""Deaths before this are history, not news."""
SOON: Final = timedelta(hours=2)
"""Partitions are made for four stretches ahead, each of an hour at least: less than this means that nobody does."""
SLOW_LOOP: Final = 1.0
LONG_WAIT: Final = timedelta(minutes=1)

Check = Callable[[SystemFacts], Iterator[Finding]]


def examine(facts: SystemFacts) -> list[Finding]:
    """Every check in order; one that finds nothing wrong says so."""
    findings: list[Finding] = []
    for check, well in CHECKS:
        found = list(check(facts))
        findings += found or [Finding(check.__name__.strip("_"), "ok", well(facts))]
    return findings


# -- the server -----------------------------------------------------------------------------------------------


def _server(facts: SystemFacts) -> Iterator[Finding]:
    server = facts.server
    if server.version < 140000:
        yield Finding(
            "server", "error", f"PostgreSQL {server.version // 10000} is too old", "Kairos needs 14 or later."
        )
    if server.is_standby:
        yield Finding("standby", "error", "this is a standby: nothing can be written", "Use the URL of the primary.")


def _durability(facts: SystemFacts) -> Iterator[Finding]:
    server = facts.server
    if not server.fsync:
        hint = "Set fsync = on: after a power cut the database may be damaged beyond repair."
        yield Finding("fsync", "error", "fsync is off", hint)
    if server.synchronous_commit == "off":
        hint = "Set synchronous_commit = on: runs that were accepted in the last moments are lost in a crash."
        yield Finding("synchronous_commit", "error", "synchronous_commit is off", hint)
    if not server.full_page_writes:
        hint = "Set full_page_writes = on, unless the file system rules out torn pages."
        yield Finding("full_page_writes", "warning", "full_page_writes is off", hint)


def _rights(facts: SystemFacts) -> Iterator[Finding]:
    if facts.server.may_change_events:
        yield Finding(
            "rights",
            "warning",
            f"role {facts.server.user!r} has the right to change events (a trigger still refuses)",
            "Make a role for workers and clients, `kairos migrate --grant-to ROLE`, and connect as that role.",
            {"role": facts.server.user},
        )


def _connection(facts: SystemFacts) -> Iterator[Finding]:
    yield from check_connection(facts.pooler)


def check_connection(pooler: PoolerFacts) -> Iterator[Finding]:
    """What is wrong with the sessions we get; on its own, because in a pool no other fact may be readable."""
    hint = "Give Kairos a direct connection, or a pool in session mode: workers listen, and set timeouts per session."
    if not pooler.keeps_backend or not pooler.keeps_settings:
        what = "its statements reach different backends" if not pooler.keeps_backend else "its settings are lost"
        yield Finding("transaction_pooling", "error", f"a session is not kept: {what} (transaction pooling)", hint)
    elif not pooler.hears_notify:
        yield Finding("notify", "warning", "NOTIFY does not arrive: workers find work by polling alone", hint)


def _transactions(facts: SystemFacts) -> Iterator[Finding]:
    for pid, name, state, seconds in facts.transactions:
        length = format_duration(timedelta(seconds=seconds))
        yield Finding(
            "long_transaction",
            "warning",
            f"backend {pid} ({name or 'unnamed'}, {state}) has a transaction open for {length}",
            "It keeps dead rows from being removed, which slows every claim. End it: "
            f"select pg_terminate_backend({pid}).",
            {"pid": pid, "application": name, "seconds": round(seconds, 1)},
        )


# -- workers --------------------------------------------------------------------------------------------------


def _workers(facts: SystemFacts) -> Iterator[Finding]:
    for worker in facts.workers:
        yield from _one_worker(worker, facts)


def _one_worker(worker: WorkerHealth, facts: SystemFacts) -> Iterator[Finding]:
    fact, now = worker.fact, facts.now
    about = {"worker": fact.name, "id": fact.id}
    if fact.state == "dead" and (worker.holds or now - fact.beat_at < RECENT):
        how = f"died ({worker.signal})" if worker.signal else "died or fell silent"
        yield Finding("worker_dead", "warning", f"worker {fact.name} {how} {ago(fact.beat_at, now)}", None, about)
    if fact.state in ("live", "draining") and fact.lease_until <= now:
        title = f"worker {fact.name} is silent since {ago(fact.beat_at, now)}; its lease has run out"
        yield Finding("worker_silent", "warning", title, "It is given up as soon as another worker looks.", about)
    if fact.state == "draining" and fact.lease_until > now:
        yield Finding(
            "worker_draining", "warning", f"worker {fact.name} is draining: {fact.running} steps run", None, about
        )
    if fact.state in ("live", "draining"):
        yield from _self_report(worker, facts.kairos, about)


def _self_report(worker: WorkerHealth, kairos: str, about: dict[str, Any]) -> Iterator[Finding]:
    name = worker.fact.name
    if worker.loop_lag >= SLOW_LOOP:
        hint = "An async step blocks the event loop: make it `def` (it then runs in a thread) or await what it calls."
        yield Finding("loop_lag", "warning", f"worker {name} lags by {worker.loop_lag:.1f}s", hint, about)
    if worker.stale_writes:
        hint = "It reported on work it no longer held. Look for freezes, or raise KAIROS_LEASE."
        title = f"worker {name} had {worker.stale_writes} late writes refused"
        yield Finding("stale_writes", "warning", title, hint, about | {"count": worker.stale_writes})
    for body in worker.abandoned:
        length = format_duration(timedelta(seconds=float(body.get("for", 0))))
        title = f"worker {name}: step {body.get('step')} still runs {length} after it was given up, at {body.get('at')}"
        hint = "A Python thread cannot be stopped. Give its blocking calls a timeout of their own."
        yield Finding("abandoned", "warning", title, hint, about | dict(body))
    if worker.version != kairos:
        title = f"worker {name} runs Kairos {worker.version}, this is {kairos}"
        yield Finding("kairos_version", "warning", title, "Upgrade the older one.", about)


def _versions(facts: SystemFacts) -> Iterator[Finding]:
    """Several versions at once are a deployment half done; one that nobody has any more shows in `_queues`."""
    by_workflow: dict[str, dict[str, list[str]]] = {}
    for worker in facts.live:
        for fingerprint in worker.fact.fingerprints:
            workflow = facts.versions.get(fingerprint, "?")
            by_workflow.setdefault(workflow, {}).setdefault(fingerprint, []).append(worker.fact.name)
    for workflow, served in sorted(by_workflow.items()):
        if len(served) > 1:
            shown = listed([f"{f[:8]} on {listed(sorted(names), most=2)}" for f, names in sorted(served.items())])
            title = f"live workers have {len(served)} versions of {workflow!r}: {shown}"
            hint = "Fine during a deployment. Otherwise restart the workers that have old code."
            yield Finding("version_drift", "warning", title, hint, {"workflow": workflow, "versions": sorted(served)})


# -- work -----------------------------------------------------------------------------------------------------


def _queues(facts: SystemFacts) -> Iterator[Finding]:
    workers = [worker.fact for worker in facts.workers]
    if facts.waiting and not facts.live:
        count = sum(item.count for item in facts.waiting)
        queues = listed(sorted({item.queue for item in facts.waiting}))
        title = f"{_wait(count)} for a worker: none is running (queues: {queues})"
        hint = "Start one with `kairos worker` or `kairos dev`."
        yield Finding("unserved_no_worker", "error", title, hint, {"count": count})
        return
    for waiting in facts.waiting:
        about: dict[str, Any] = {"workflow": waiting.workflow, "queue": waiting.queue, "count": waiting.count}
        about["version"] = waiting.fingerprint
        what = f"of {waiting.workflow!r} in queue {waiting.queue!r}"
        age = facts.now - waiting.oldest
        reason = unserved(workers, waiting.queue, waiting.fingerprint, waiting.workflow, facts.versions)
        if reason is not None:
            title = f"{_wait(waiting.count, what)} for a worker: {reason.sentence}"
            yield Finding(f"unserved_{reason.kind}", "error", title, reason.hint, about)
        elif age > LONG_WAIT:
            title = f"{_wait(waiting.count, what)} for a free slot, the oldest for {format_duration(age)}"
            hint = "Raise --concurrency or --processes, or start more workers."
            yield Finding("backlog", "warning", title, hint, about)


def _wait(count: int, what: str = "") -> str:
    return f"{_tasks(count)}{f' {what}' if what else ''} {'waits' if count == 1 else 'wait'}"


def _tasks(count: int) -> str:
    return f"{count:,} task{'' if count == 1 else 's'}"


def _runs(facts: SystemFacts) -> Iterator[Finding]:
    if facts.without_task:
        ids = listed(facts.without_task, most=3)
        title = f"{len(facts.without_task)} runs go on but have no task, so no worker will ever look at them: {ids}"
        hint = "This must not happen. `kairos verify --all` says more; please report it."
        yield Finding("without_task", "error", title, hint, {"runs": list(facts.without_task)})


def _partitions(facts: SystemFacts) -> Iterator[Finding]:
    until = facts.partitioned_until
    if until is not None and until - facts.now < SOON:
        what = (
            f"ended {ago(until, facts.now)}" if until <= facts.now else f"end in {format_duration(until - facts.now)}"
        )
        title = (
            f"the partitions of the log {what}; runs after that go to the default one ({facts.default_bytes:,} bytes)"
        )
        hint = "Run `kairos retention` daily, as the owner of the schema: it makes those of the time to come."
        yield Finding("partitions", "warning", title, hint, {"until": until.isoformat()})


# -- all is well ----------------------------------------------------------------------------------------------


def _server_well(facts: SystemFacts) -> str:
    version = facts.server.version
    kind = "embedded PostgreSQL" if facts.server.is_embedded else "PostgreSQL"
    return f"{kind} {version // 10000}.{version % 10000}, schema version {facts.schema}"


def _transactions_well(facts: SystemFacts) -> str:
    whose = "" if facts.sees_all_sessions else " of this role (those of others are not visible to it)"
    return f"no transaction{whose} is open for long"


def _workers_well(facts: SystemFacts) -> str:
    live = facts.live
    if not live:
        return "no worker is running; nothing needs one"
    running = sum(worker.fact.running for worker in live)
    slots = sum(worker.fact.concurrency for worker in live)
    noun = "worker is" if len(live) == 1 else "workers are"
    return f"{len(live)} {noun} alive and well; {running} of {slots} slots in use"


def _queues_well(facts: SystemFacts) -> str:
    waiting = sum(item.count for item in facts.waiting)
    return f"{_tasks(waiting)} waiting, all of them served" if waiting else "nothing waits"


def _partitions_well(facts: SystemFacts) -> str:
    until = facts.partitioned_until
    return f"the log has partitions until {until:%Y-%m-%d %H:%M} UTC" if until else "the log has its default partition"


def _runs_well(facts: SystemFacts) -> str:
    counts = ", ".join(f"{count:,} {status.lower()}" for status, count in sorted(facts.statuses.items()))
    return f"every run that goes on has a task ({counts})" if counts else "no runs yet"


CHECKS: Sequence[tuple[Check, Callable[[SystemFacts], str]]] = (
    (_server, _server_well),
    (_durability, lambda facts: "commits are durable (fsync, synchronous_commit)"),
    (_rights, lambda facts: f"role {facts.server.user!r} may add events, not change them"),
    (_connection, lambda facts: "sessions are kept; NOTIFY arrives"),
    (_transactions, _transactions_well),
    (_workers, _workers_well),
    (_versions, lambda facts: "live workers agree on the version of each workflow"),
    (_queues, _queues_well),
    (_runs, _runs_well),
    (_partitions, _partitions_well),
)
