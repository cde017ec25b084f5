-- name: claim_runs
-- Take up to `take` waiting runs, most urgent first. Rows locked elsewhere belong to somebody else; nothing
-- waits here, so a claim cannot be part of a deadlock. The epoch is what fences the last owner's writes.
-- The first event comes along: of a fresh run it is the whole log, which saves a round trip.
-- No part is joined with another that the planner could scan again for each row: with 500 runs that was 90 %
-- of the time. `crashed` stays: it matters only as long as the log holds nothing but the first event.
with c as materialized (
    select c.run_id from unnest(%(queues)s::text[]) as q (queue)
    cross join lateral (
        select t.run_id, t.priority, t.ready_at from kairos.task t
        where t.queue = q.queue and t.worker is null and t.step = '' and t.ready_at <= clock_timestamp()
          and t.fingerprint = any(%(fingerprints)s::text[])
        order by t.priority desc, t.ready_at limit %(take)s::integer
        for update skip locked
    ) c
    order by c.priority desc, c.ready_at limit %(take)s::integer
), l as materialized (
    select r.id from c join kairos.run r on r.id = c.run_id for no key update of r skip locked
), t as (
    update kairos.task t set worker = %(worker)s::uuid
    where t.run_id = any(array(select l.id from l)) and t.step = ''
    returning t.run_id, t.priority, t.ready_at, t.crashed
), r as (
    update kairos.run r set epoch = r.epoch + 1 from t where r.id = t.run_id
    returning r.id, r.fingerprint, r.epoch, r.last_seq, r.status, t.priority, t.ready_at, t.crashed
)
select r.id, r.fingerprint, r.epoch, r.last_seq, r.status, r.crashed, clock_timestamp(),
       e.seq, e.kind, e.at, e.step, e.attempt, e.token, e.hash, e.body
from r join kairos.event e on e.run_id = r.id and e.seq = 1
order by r.priority desc, r.ready_at

-- name: claim_steps
-- Take step tasks that owners have offered. The fence is given by the `step_started` that follows.
with c as materialized (
    select c.run_id, c.step from unnest(%(queues)s::text[]) as q (queue)
    cross join lateral (
        select t.run_id, t.step, t.priority, t.ready_at from kairos.task t
        where t.queue = q.queue and t.worker is null and t.step <> '' and t.ready_at <= clock_timestamp()
          and t.fingerprint = any(%(fingerprints)s::text[])
        order by t.priority desc, t.ready_at limit %(take)s::integer
        for update skip locked
    ) c
    order by c.priority desc, c.ready_at limit %(take)s::integer
)
update kairos.task t set worker = %(worker)s::uuid from c
where t.run_id = c.run_id and t.step = c.step
returning t.run_id, t.step, t.fingerprint, t.crashed

-- name: offer_steps
insert into kairos.task (run_id, step, workflow, fingerprint, queue, priority, ready_at, expires_at, crashed)
select %(run_id)s::uuid, o.step, %(workflow)s::text, %(fingerprint)s::text, o.queue, o.priority,
       clock_timestamp(), o.expires_at, o.crashed
from unnest(%(steps)s::text[], %(queues)s::text[], %(priorities)s::integer[], %(expires)s::timestamptz[],
            %(crashed)s::boolean[]) as o (step, queue, priority, expires_at, crashed)
on conflict (run_id, step) do nothing

-- name: start_step_task
update kairos.task set attempt = %(attempt)s::integer, token = %(token)s::bigint
where run_id = %(run_id)s::uuid and step = %(step)s::text and worker = %(worker)s::uuid

-- name: release_step_task
update kairos.task set worker = null, attempt = null, token = null, crashed = crashed or %(crashed)s::boolean,
       ready_at = greatest(ready_at, coalesce(%(ready_at)s::timestamptz, ready_at))
where run_id = %(run_id)s::uuid and step = %(step)s::text and worker = %(worker)s::uuid

-- name: delete_step_tasks
-- Only its own: the task of a step that a thawed worker has lost belongs to somebody else, or waits.
delete from kairos.task
where run_id = %(run_id)s::uuid and step = any(%(steps)s::text[])
  and (worker = %(worker)s::uuid or token = %(token)s::bigint)

-- name: list_inherited_tasks
-- Of a run that had an owner before: its own task, with the worker that died with it, and what is offered.
select t.step, w.name, w.report from kairos.task t left join kairos.worker w on w.id = t.lost_by
where t.run_id = %(run_id)s::uuid

-- name: release_run
-- Give a run back: now, or to be looked at again when its next timer is due.
update kairos.task t set worker = null, crashed = t.crashed or %(crashed)s::boolean,
       ready_at = coalesce(%(ready_at)s::timestamptz, t.ready_at)
from kairos.run r
where t.run_id = %(run_id)s::uuid and t.step = '' and t.worker = %(worker)s::uuid
  and r.id = t.run_id and r.epoch = %(epoch)s::bigint

-- name: wake_run
-- Something happened to a run that nobody may hold: have it looked at now.
update kairos.task set ready_at = clock_timestamp()
where run_id = %(run_id)s::uuid and step = '' and worker is null and ready_at > clock_timestamp()

-- name: notify
select pg_notify(%(channel)s::text, %(payload)s::text)

-- name: register_worker
insert into kairos.worker (id, name, host, pid, app, version, queues, fingerprints, concurrency, lease_until)
values (%(id)s::uuid, %(name)s::text, %(host)s::text, %(pid)s::integer, %(app)s::text, %(version)s::text,
        %(queues)s::text[], %(fingerprints)s::text[], %(concurrency)s::integer,
        clock_timestamp() + make_interval(secs => %(lease)s::double precision))
on conflict (id) do nothing

-- name: beat
-- Only a worker that nobody has declared dead may renew: a thawed one gets no row back and must let go.
update kairos.worker set beat_at = clock_timestamp(), report = %(report)s::bytea,
       lease_until = clock_timestamp() + make_interval(secs => %(lease)s::double precision)
where id = %(id)s::uuid and state in ('live', 'draining')
returning clock_timestamp()

-- name: set_worker_state
update kairos.worker set state = %(state)s::text
where id = %(id)s::uuid and state in ('live', 'draining')

-- name: bury_worker
-- A parent saw its child die: no need to wait for the lease.
update kairos.worker set state = 'dead', report = %(report)s::bytea
where id = %(id)s::uuid and state in ('live', 'draining')

-- name: count_peers
-- Live workers that could do the same work as this one, and all live workers beside it.
select count(*) filter (where w.queues && %(queues)s::text[] and w.fingerprints && %(fingerprints)s::text[]), count(*)
from kairos.worker w
where w.state = 'live' and w.lease_until > clock_timestamp() and w.id <> %(id)s::uuid

-- name: reap_workers
-- Declare workers dead whose lease has run out. Their row is locked against a renewal at the same moment.
update kairos.worker set state = 'dead'
where id in (
    select w.id from kairos.worker w
    where w.state in ('live', 'draining') and w.lease_until <= clock_timestamp()
    order by w.id for update skip locked
)
returning id, name

-- name: free_runs_of_dead
-- The next owner finds what was running in the log, and treats it as suspect.
update kairos.task t set worker = null, lost_by = w.id, crashed = w.state = 'dead' or t.crashed
from kairos.worker w
where w.id = t.worker and w.state in ('dead', 'stopped') and t.step = ''
returning t.run_id, t.queue

-- name: steps_of_dead
select t.run_id, t.step, t.token, w.id, w.name, w.state, w.report
from kairos.task t join kairos.worker w on w.id = t.worker
where w.state in ('dead', 'stopped') and t.step <> ''
order by t.run_id, t.step limit %(take)s::integer

-- name: prune_workers
delete from kairos.worker w
where w.state in ('dead', 'stopped') and w.beat_at < clock_timestamp() - make_interval(secs => %(keep)s::double precision)
  and not exists (select 1 from kairos.task t where t.worker = w.id)

-- name: list_expired
-- Waiting runs whose time to live has closed, whoever may serve their queue. An index can be entered by `now()`,
-- which is the time of this statement; by `clock_timestamp()` it cannot, and all that waits would be looked at.
select t.run_id from kairos.task t
where t.worker is null and t.expires_at <= now() and t.step = ''
order by t.expires_at limit %(take)s::integer

-- name: find_orphans
select t.run_id, t.step, t.token from kairos.task t
where t.worker = %(worker)s::uuid and not exists (
    select from unnest(%(runs)s::uuid[], %(steps)s::text[]) as k (run_id, step)
    where k.run_id = t.run_id and k.step = t.step
)

-- name: free_orphan
update kairos.task set worker = null
where run_id = %(run_id)s::uuid and step = '' and worker = %(worker)s::uuid
