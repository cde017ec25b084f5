-- name: flush
-- One round trip, one commit: many runs, each at most once. A run whose head has moved, or whose epoch is
-- another's, is filtered out and nothing of it is written. What comes back is one row: which runs were
-- committed (null for all of them: reading hundreds of ids costs more than it tells), and the time.
with w as materialized (
    select * from unnest(
        %(ids)b::uuid[], %(expected)b::integer[], %(seqs)b::integer[],
        %(hashes)b::bytea[], %(epochs)b::bigint[], %(statuses)b::text[]
    ) as w (id, expected, seq, hash, epoch, status)
), u as (
    update kairos.run r set last_seq = w.seq, head_hash = w.hash, status = w.status
    from w where r.id = w.id and r.last_seq = w.expected and r.epoch = w.epoch
    returning r.id
), e as (
    insert into kairos.event (run_id, seq, kind, at, step, attempt, token, hash, body)
    select x.* from unnest(
        %(run_ids)b::uuid[], %(event_seqs)b::integer[], %(kinds)b::text[], %(ats)b::timestamptz[],
        %(steps)b::text[], %(attempts)b::integer[], %(tokens)b::bigint[],
        %(event_hashes)b::bytea[], %(bodies)b::bytea[]
    ) as x (run_id, seq, kind, at, step, attempt, token, hash, body)
    join u on u.id = x.run_id
), d as (
    delete from kairos.task t using u where t.run_id = u.id and t.run_id = any(%(ended)b::uuid[])
)
select case when (select count(*) from u) < %(count)s::integer then array(select u.id from u) end, clock_timestamp(),
       (select pg_notify('kairos_run', %(notice)s::text) where %(notice)s::text <> '' and exists (select from u))

-- name: flush_skipping_locked
-- As `flush`, for when a head is locked elsewhere: that run is left out instead of stalling the others.
with w as materialized (
    select w.* from unnest(
        %(ids)b::uuid[], %(expected)b::integer[], %(seqs)b::integer[],
        %(hashes)b::bytea[], %(epochs)b::bigint[], %(statuses)b::text[]
    ) as w (id, expected, seq, hash, epoch, status)
), l as materialized (
    select r.id from kairos.run r where r.id = any(%(ids)b::uuid[]) order by r.id for no key update skip locked
), u as (
    update kairos.run r set last_seq = w.seq, head_hash = w.hash, status = w.status
    from w join l on l.id = w.id
    where r.id = w.id and r.last_seq = w.expected and r.epoch = w.epoch
    returning r.id
), e as (
    insert into kairos.event (run_id, seq, kind, at, step, attempt, token, hash, body)
    select x.* from unnest(
        %(run_ids)b::uuid[], %(event_seqs)b::integer[], %(kinds)b::text[], %(ats)b::timestamptz[],
        %(steps)b::text[], %(attempts)b::integer[], %(tokens)b::bigint[],
        %(event_hashes)b::bytea[], %(bodies)b::bytea[]
    ) as x (run_id, seq, kind, at, step, attempt, token, hash, body)
    join u on u.id = x.run_id
), d as (
    delete from kairos.task t using u where t.run_id = u.id and t.run_id = any(%(ended)b::uuid[])
)
select case when (select count(*) from u) < %(count)s::integer then array(select u.id from u) end, clock_timestamp(),
       (select pg_notify('kairos_run', %(notice)s::text) where %(notice)s::text <> '' and exists (select from u))

-- name: put_blobs
-- Sent before the flush that refers to them: a blob nobody refers to is harmless, the reverse is not. One that
-- was there is marked as used, at most once a day: retention lets go only of what was not used for longer.
insert into kairos.blob (sha256, data)
select b.sha256, b.data
from unnest(%(digests)b::bytea[], %(datas)b::bytea[]) as b (sha256, data)
where not exists (select from kairos.blob x
                  where x.sha256 = b.sha256 and x.used_at > clock_timestamp() - interval '1 day')
order by b.sha256
on conflict (sha256) do update set used_at = clock_timestamp()

-- name: get_blobs
select sha256, data from kairos.blob where sha256 = any(%(digests)s::bytea[])

-- name: put_failures
insert into kairos.failure (run_id, at, workflow, status, step, error, error_group)
values (%(run_id)s::uuid, %(at)s::timestamptz, %(workflow)s::text, %(status)s::text, %(step)s::text,
        %(error)s::text, %(error_group)s::text)
on conflict (run_id) do nothing

-- name: lock_head
select r.epoch, r.last_seq, r.head_hash, r.status, r.fingerprint,
       exists (select from kairos.imported_run i where i.run_id = r.id)
from kairos.run r where r.id = %(run_id)s::uuid for no key update of r

-- name: read_head
select r.epoch, r.last_seq, r.head_hash, r.status, r.fingerprint
from kairos.run r where r.id = %(run_id)s::uuid

-- name: read_heads
select r.id, r.epoch, r.last_seq, r.head_hash, r.status, r.fingerprint
from kairos.run r where r.id = any(%(run_ids)s::uuid[])

-- name: read_clock
select clock_timestamp()

-- name: load_events
select e.seq, e.kind, e.at, e.step, e.attempt, e.token, e.hash, e.body
from kairos.event e
where e.run_id = %(run_id)s::uuid and e.seq > %(after)s::integer and e.seq <= %(upto)s::integer
order by e.seq

-- name: load_events_of
-- Whole logs of several runs, in one go.
select e.run_id, e.seq, e.kind, e.at, e.step, e.attempt, e.token, e.hash, e.body
from kairos.event e where e.run_id = any(%(run_ids)s::uuid[]) order by e.run_id, e.seq

-- name: hash_at
select e.hash from kairos.event e where e.run_id = %(run_id)s::uuid and e.seq = %(seq)s::integer

-- name: put_definition
insert into kairos.definition (fingerprint, workflow, body)
values (%(fingerprint)s::text, %(workflow)s::text, %(body)s::bytea)
on conflict (fingerprint) do nothing

-- name: announce_definition
-- By a worker that has it. The first time counts: an old worker that starts again does not make its version the latest.
insert into kairos.definition (fingerprint, workflow, body, announced_at)
values (%(fingerprint)s::text, %(workflow)s::text, %(body)s::bytea, clock_timestamp())
on conflict (fingerprint) do update set announced_at = clock_timestamp() where definition.announced_at is null

-- name: get_definition
select d.body from kairos.definition d where d.fingerprint = %(fingerprint)s::text

-- name: latest_definition
-- The version that workers announced last; where none was, the one that was registered last.
select d.fingerprint, d.body from kairos.definition d where d.workflow = %(workflow)s::text
order by d.announced_at desc nulls last, d.registered_at desc limit 1

-- name: start_runs
-- Idempotent by id: a start that is sent again after a lost reply changes nothing. Where a key is given,
-- the run is created only by whoever holds the key; the answer names the holder.
with s as materialized (
    select * from unnest(
        %(ids)b::uuid[], %(ats)b::timestamptz[], %(workflows)b::text[], %(fingerprints)b::text[],
        %(queues)b::text[], %(priorities)b::integer[], %(keys)b::text[], %(labels)b::text[],
        %(hashes)b::bytea[], %(bodies)b::bytea[], %(expires)b::timestamptz[], %(ready)b::timestamptz[],
        %(input_hashes)b::bytea[], %(key_expires)b::timestamptz[]
    ) as s (id, at, workflow, fingerprint, queue, priority, key, labels, hash, body, expires_at, ready_at,
            input_hash, key_expires_at)
), k as (
    insert into kairos.run_key as held (workflow, key, run_id, input_hash, expires_at)
    select s.workflow, s.key, s.id, s.input_hash, s.key_expires_at from s
    where s.key is not null order by s.workflow, s.key
    on conflict (workflow, key) do update
        set run_id = excluded.run_id, input_hash = excluded.input_hash,
            created_at = clock_timestamp(), expires_at = excluded.expires_at
        where held.expires_at <= clock_timestamp()
    returning run_id
), r as (
    insert into kairos.run (id, created_at, workflow, fingerprint, queue, priority, key, labels, last_seq,
                            head_hash, status)
    select s.id, s.at, s.workflow, s.fingerprint, s.queue, s.priority, s.key, s.labels::jsonb, 1, s.hash,
           'SCHEDULED'
    from s where s.key is null or s.id in (select k.run_id from k)
    on conflict (id) do nothing
    returning id
), e as (
    insert into kairos.event (run_id, seq, kind, at, hash, body)
    select s.id, 1, 'run_scheduled', s.at, s.hash, s.body from s join r on r.id = s.id
), t as (
    insert into kairos.task (run_id, workflow, fingerprint, queue, priority, ready_at, expires_at)
    select s.id, s.workflow, s.fingerprint, s.queue, s.priority, coalesce(s.ready_at, s.at), s.expires_at
    from s join r on r.id = s.id
)
select r.id, (select pg_notify('kairos_task', '') where %(notify)s::boolean) from r

-- name: find_keys
select k.workflow, k.key, k.run_id, k.input_hash from kairos.run_key k
join unnest(%(workflows)s::text[], %(keys)s::text[]) as q (workflow, key)
  on k.workflow = q.workflow and k.key = q.key

-- name: cancel_asked
-- Which of these runs somebody wants to stop, or has stopped. `limit` keeps the planner from looking for all that
-- were ever cancelled.
select r.id from kairos.run r
left join lateral (
    select true as is_asked from kairos.event e where e.run_id = r.id and e.kind = 'run_cancel_requested' limit 1
) c on true
where r.id = any(%(run_ids)s::uuid[]) and (r.status in ('DONE', 'FAILED', 'CANCELLED', 'EXPIRED') or c.is_asked)
