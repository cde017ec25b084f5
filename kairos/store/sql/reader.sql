-- name: get_runs
select r.id, r.created_at, r.workflow, r.fingerprint, r.queue, r.priority, r.key, r.labels, r.epoch, r.last_seq,
       r.status, e.at, e.kind, e.body
from kairos.run r join kairos.event e on e.run_id = r.id and e.seq = r.last_seq
where r.id = any(%(run_ids)s::uuid[])

-- name: ended_runs
-- Those of the runs that have ended, and those that do not exist (all but the id is null): what somebody who
-- waits must know. With `outputs`, a row for each output of a DONE run, so that no second question is needed.
select w.id, r.created_at, r.workflow, r.fingerprint, r.queue, r.priority, r.key, r.labels, r.epoch, r.last_seq,
       r.status, e.at, e.kind, e.body,
       o.step, d.seq, d.kind, d.at, d.step, d.attempt, d.token, d.hash, d.body
from unnest(%(run_ids)b::uuid[]) as w (id)
left join kairos.run r on r.id = w.id
left join kairos.event e on e.run_id = r.id and e.seq = r.last_seq
left join lateral jsonb_each_text(
    -- Only the body of `run_done` is known to be fit for jsonb, which refuses NUL in a text.
    case when %(outputs)s::boolean and e.kind = 'run_done' then convert_from(e.body, 'UTF8')::jsonb -> 'outputs' end
) as o (step, seq) on true
left join kairos.event d on d.run_id = r.id and d.seq = o.seq::integer
where r.id is null or r.status in ('DONE', 'FAILED', 'CANCELLED', 'EXPIRED')

-- name: get_events_at
select e.run_id, e.seq, e.kind, e.at, e.step, e.attempt, e.token, e.hash, e.body
from kairos.event e
join unnest(%(run_ids)s::uuid[], %(seqs)s::integer[]) as w (run_id, seq) on w.run_id = e.run_id and w.seq = e.seq

-- name: last_error_of_step
select e.seq, e.kind, e.at, e.step, e.attempt, e.token, e.hash, e.body
from kairos.event e
where e.run_id = %(run_id)s::uuid and e.step = %(step)s::text and e.kind = 'step_failed'
order by e.seq desc limit 1

-- name: find_run_ids
-- Runs whose id (hex, without dashes) begins or ends like this. The prefix is a range of the primary key;
-- a suffix is looked for among the newest, because ids made in the same second begin alike.
(select r.id from kairos.run r where r.id between %(low)s::uuid and %(high)s::uuid order by r.id desc limit 5)
union
(select n.id from (select r.id from kairos.run r order by r.id desc limit 20000) n
 where replace(n.id::text, '-', '') like %(suffix)s::text limit 5)

-- name: latest_run_ids
select r.id from kairos.run r order by r.id desc limit %(take)s::integer

-- name: list_definitions
select d.workflow, d.fingerprint, d.registered_at, d.body,
       (select count(*) from kairos.worker w where w.state = 'live' and w.lease_until > clock_timestamp()
          and d.fingerprint = any(w.fingerprints)),
       (select count(*) from kairos.task t where t.fingerprint = d.fingerprint and t.step = '')
from kairos.definition d order by d.workflow, d.announced_at desc nulls last, d.registered_at desc

-- name: list_workers
select w.id, w.name, w.host, w.pid, w.app, w.version, w.queues, w.fingerprints, w.concurrency, w.started_at,
       w.beat_at, w.lease_until, w.state, w.report, w.lease_until > clock_timestamp(),
       (select count(*) from kairos.task t where t.worker = w.id)
from kairos.worker w
where %(ended)s::boolean or w.state in ('live', 'draining')
   or exists (select 1 from kairos.task t where t.worker = w.id)
order by w.started_at desc limit 500

-- name: get_tasks
select t.run_id, t.step, t.queue, t.priority, t.ready_at, t.expires_at, t.crashed, t.fingerprint, t.token,
       w.name, w.state, w.lease_until, w.lease_until > clock_timestamp(), clock_timestamp(), l.name, l.report
from kairos.task t left join kairos.worker w on w.id = t.worker left join kairos.worker l on l.id = t.lost_by
where t.run_id = %(run_id)s::uuid order by t.step

-- name: waiting_by_queue
-- What waits, by queue and version, and whether any live worker serves it.
select t.workflow, t.queue, t.fingerprint, count(*), min(t.ready_at),
       coalesce(bool_or(s.serves_queue), false), coalesce(bool_or(s.serves_version), false),
       coalesce(bool_or(s.serves_queue and s.serves_version), false)
from kairos.task t
left join lateral (
    select t.queue = any(w.queues) as serves_queue, t.fingerprint = any(w.fingerprints) as serves_version
    from kairos.worker w where w.state = 'live' and w.lease_until > clock_timestamp()
) s on true
where t.worker is null and t.ready_at <= clock_timestamp()
group by t.workflow, t.queue, t.fingerprint

-- name: runs_without_task
-- Promise 1 in one query: a run that has not ended has a task, always. One that was imported goes on nowhere.
select r.id, r.status from kairos.run r
where r.status in ('SCHEDULED', 'RUNNING', 'PAUSED')
  and not exists (select 1 from kairos.task t where t.run_id = r.id and t.step = '')
  and not exists (select 1 from kairos.imported_run i where i.run_id = r.id)
limit %(take)s::integer

-- name: count_statuses
select r.status, count(*) from kairos.run r group by r.status

-- name: list_heads
select r.id, r.last_seq, r.status from kairos.run r where r.id = any(%(run_ids)s::uuid[])

-- name: server_facts
select current_setting('server_version_num')::integer, current_setting('fsync'),
       current_setting('synchronous_commit'), current_user::text, pg_is_in_recovery(),
       has_table_privilege('kairos.event', 'update') or has_table_privilege('kairos.event', 'delete'),
       current_setting('full_page_writes')

-- name: long_transactions
-- Sessions that hold back vacuum: they bloat the queue and slow every claim.
select a.pid, coalesce(a.application_name, ''), coalesce(a.state, ''),
       extract(epoch from clock_timestamp() - a.xact_start)::double precision
from pg_stat_activity a
where a.xact_start < clock_timestamp() - interval '60 seconds' and a.pid <> pg_backend_pid()
  and a.backend_type = 'client backend' and a.datname = current_database()
order by a.xact_start limit 10

-- name: backend_pid
select pg_backend_pid()

-- name: workflows_of_versions
select d.fingerprint, d.workflow from kairos.definition d where d.fingerprint = any(%(fingerprints)s::text[])

-- name: session_setting
select current_setting('lock_timeout')

-- name: probe_session
-- For `kairos doctor`: a value that only this session has.
select set_config('lock_timeout', %(value)s::text, false)

-- name: schema_version
select coalesce(max(m.version), 0) from kairos.migration m

-- name: list_versions
-- Each version of each workflow, the latest first, without its body: live workers that have it, runs that have not
-- ended, and how many of those nobody holds.
select d.workflow, d.fingerprint, d.registered_at,
       (select count(*) from kairos.worker w where w.state = 'live' and w.lease_until > clock_timestamp()
          and d.fingerprint = any(w.fingerprints)),
       coalesce(t.open, 0), coalesce(t.waiting, 0)
from kairos.definition d
left join (
    select t.fingerprint, count(*) as open, count(*) filter (where t.worker is null) as waiting
    from kairos.task t where t.step = '' group by t.fingerprint
) t on t.fingerprint = d.fingerprint
order by d.workflow, d.announced_at desc nulls last, d.registered_at desc

-- name: listen_for_probe
listen kairos_doctor

-- name: sees_all_sessions
-- Whether the transactions of other roles show in pg_stat_activity.
select pg_has_role(current_user, 'pg_read_all_stats', 'usage')
