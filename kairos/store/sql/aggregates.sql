-- Counts and times for pages. Each looks at a bounded number of rows, by range of ids or by primary key, and none
-- at the whole log: what it says is said of so many of the newest runs.

-- name: count_recent_statuses
-- By range of ids, which is a range of time, and of so many at most: a page must not count a whole history.
select c.status, count(*)
from (select r.status from kairos.run r where r.id >= %(since)s::uuid order by r.id desc limit %(take)s::integer) c
group by c.status

-- name: count_activity
-- Runs by stretch of time in which they were created, and status.
select floor(extract(epoch from c.created_at - %(since_at)s::timestamptz) / %(width)s::double precision)::integer,
       c.status, count(*)
from (
    select r.created_at, r.status from kairos.run r
    where r.id >= %(since)s::uuid order by r.id desc limit %(take)s::integer
) c
where c.created_at >= %(since_at)s::timestamptz
group by 1, 2

-- name: group_failures
-- Runs that ended badly in the same way, with the newest of them, and the newest run of the workflow before that
-- one which is DONE.
select g.workflow, g.status, g.step, g.count, g.at, g.latest, g.error, g.error_group, g.first_at, d.id
from (
    select f.workflow, f.status, f.step, f.error_group, count(*), max(f.at) as at, min(f.at) as first_at,
           (array_agg(f.run_id order by f.run_id desc))[1] as latest,
           (array_agg(f.error order by f.run_id desc))[1] as error
    from (
        select f.workflow, f.status, f.step, f.error_group, f.at, f.run_id, f.error
        from kairos.failure f
        where f.run_id >= %(since)s::uuid and f.status in ('FAILED', 'EXPIRED')
        order by f.run_id desc limit %(among)s::integer
    ) f
    group by f.error_group, f.workflow, f.status, f.step
    order by count(*) desc, max(f.at) desc limit %(take)s::integer
) g
left join lateral (
    select c.id from (
        select r.id, r.status from kairos.run r
        where r.workflow = g.workflow and r.id < g.latest order by r.id desc limit %(back)s::integer
    ) c
    where c.status = 'DONE' order by c.id desc limit 1
) d on true
order by g.count desc, g.at desc

-- name: count_tasks
-- What waits, what waits for its time (a backoff), and what is held, by queue and version; and whether any live
-- worker serves it.
select q.workflow, q.queue, q.fingerprint, q.waiting, q.later, q.held, q.oldest,
       coalesce(s.serves, false)
from (
    select t.workflow, t.queue, t.fingerprint,
           count(*) filter (where t.worker is null and t.ready_at <= clock_timestamp()) as waiting,
           count(*) filter (where t.worker is null and t.ready_at > clock_timestamp()) as later,
           count(*) filter (where t.worker is not null) as held,
           min(t.ready_at) filter (where t.worker is null and t.ready_at <= clock_timestamp()) as oldest
    from kairos.task t group by t.workflow, t.queue, t.fingerprint
) q
left join lateral (
    select bool_or(q.queue = any(w.queues) and q.fingerprint = any(w.fingerprints)) as serves
    from kairos.worker w where w.state = 'live' and w.lease_until > clock_timestamp()
) s on true
order by q.oldest nulls last, q.held desc
limit %(take)s::integer

-- name: list_active_workflows
-- The workflows whose newest run is the newest, by one look at the index for each.
select d.workflow, m.id
from (select distinct d.workflow from kairos.definition d) d
cross join lateral (
    select r.id from kairos.run r where r.workflow = d.workflow order by r.id desc limit 1
) m
order by m.id desc
limit %(take)s::integer

-- name: measure_steps
-- How long attempts that ended well took: in the newest runs (`is_recent`, from `since` on), and in those before them,
-- each up to so many runs and events of a workflow; the one that is over is looked at to
-- its event `longest`. Events are reached by their run.
select s.workflow, s.step, s.is_recent, count(*),
       percentile_cont(0.5) within group (order by s.seconds),
       percentile_cont(0.95) within group (order by s.seconds)
from (
    select r.workflow, r.is_recent, e.step, extract(epoch from e.ended - e.began)::double precision as seconds
    from (
        select c.workflow, c.id, c.last_seq, c.is_recent,
               sum(c.last_seq) over (partition by c.workflow, c.is_recent order by c.id desc) as total
        from unnest(%(workflows)s::text[]) as w (workflow)
        cross join lateral (
            (select r.workflow, r.id, r.last_seq, true as is_recent from kairos.run r
             where r.workflow = w.workflow and r.id >= %(since)s::uuid
             order by r.id desc limit %(recent_runs)s::integer)
            union all
            (select r.workflow, r.id, r.last_seq, false from kairos.run r
             where r.workflow = w.workflow and r.id < %(since)s::uuid
             order by r.id desc limit %(past_runs)s::integer)
        ) c
    ) r
    cross join lateral (
        -- Grouped inside of one run, so that nothing can be joined the other way round.
        select e.step, e.attempt, min(e.at) filter (where e.kind = 'step_started') as began,
               max(e.at) filter (where e.kind = 'step_done') as ended
        from kairos.event e
        where e.run_id = r.id and e.seq <= least(r.last_seq, %(longest)s::integer) and e.kind in ('step_started', 'step_done')
        group by e.step, e.attempt
    ) e
    where r.total - r.last_seq < case when r.is_recent then %(recent_events)s::bigint else %(past_events)s::bigint end
      and e.began is not null and e.ended is not null
) s
group by s.workflow, s.step, s.is_recent

-- name: count_outcomes
-- How the newest runs of workflows stand, by version; and when the first and the last of them were created.
select c.workflow, c.fingerprint, c.status, count(*), min(c.created_at), max(c.created_at)
from unnest(%(workflows)s::text[]) as w (workflow)
cross join lateral (
    select r.workflow, r.fingerprint, r.status, r.created_at from kairos.run r
    where r.workflow = w.workflow order by r.id desc limit %(take)s::integer
) c
group by c.workflow, c.fingerprint, c.status

-- name: sample_logs
-- Whole logs of the newest runs of a version, up to so many runs and events.
select r.id, e.seq, e.kind, e.at, e.step, e.attempt, e.token, e.hash, e.body
from (
    select c.id, c.last_seq, sum(c.last_seq) over (order by c.id desc) as total
    from (
        select r.id, r.last_seq, r.fingerprint from kairos.run r
        where r.workflow = %(workflow)s::text order by r.id desc limit %(among)s::integer
    ) c
    where c.fingerprint = %(version)s::text
) r
cross join lateral (
    select e.seq, e.kind, e.at, e.step, e.attempt, e.token, e.hash, e.body
    from kairos.event e where e.run_id = r.id and e.seq <= r.last_seq order by e.seq
) e
where r.total <= %(events)s::bigint
order by r.id desc, e.seq
