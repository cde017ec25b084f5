-- name: count_runs
-- What retention would find in a range of ids: all runs; those that go on, that are held, that ended too lately
-- to go; and how many events these need.
select count(*), count(*) filter (where x.goes_on), count(*) filter (where x.is_held and not x.goes_on),
       count(*) filter (where not x.has_ended and not x.is_held and not x.goes_on),
       coalesce(sum(x.last_seq) filter (where x.goes_on or x.is_held or not x.has_ended), 0)::bigint
from (
    select r.last_seq,
           r.status in ('SCHEDULED', 'RUNNING', 'PAUSED')
               and not exists (select from kairos.imported_run i where i.run_id = r.id) as goes_on,
           coalesce(e.at < %(older_than)s::timestamptz, false) as has_ended,
           exists (select from kairos.hold h where h.run_id = r.id) as is_held
    from kairos.run r left join kairos.event e on e.run_id = r.id and e.seq = r.last_seq
    where r.id >= %(low)s::uuid and (%(high)s::uuid is null or r.id < %(high)s::uuid)
) x

-- name: begin_removal
insert into kairos.removal (part, low, high, older_than)
values (%(part)s::text, %(low)s::uuid, %(high)s::uuid, %(older_than)s::timestamptz)
returning id, part, low, high, older_than

-- name: unfinished_removals
select m.id, m.part, m.low, m.high, m.older_than from kairos.removal m where m.ended_at is null order by m.id

-- name: count_removed
update kairos.removal set runs = runs + %(count)s::bigint where id = %(id)s::bigint

-- name: end_removal
update kairos.removal set ended_at = clock_timestamp() where id = %(id)s::bigint returning runs

-- name: lock_removable
-- The next runs that may go. Whoever is busy with a run keeps it until the next time.
select r.id, r.last_seq from kairos.run r
where r.id >= %(low)s::uuid and (%(high)s::uuid is null or r.id < %(high)s::uuid)
  and (r.status in ('DONE', 'FAILED', 'CANCELLED', 'EXPIRED')
       or exists (select from kairos.imported_run i where i.run_id = r.id))
  and not exists (select from kairos.hold h where h.run_id = r.id)
  and (select e.at from kairos.event e where e.run_id = r.id and e.seq = r.last_seq) < %(older_than)s::timestamptz
order by r.id limit %(take)s::integer
for update of r skip locked

-- name: delete_heads
-- Of runs that are locked. A hold may have come while they were being locked: this looks again.
with d as (
    delete from kairos.run r
    where r.id = any(%(run_ids)s::uuid[])
      and (r.status in ('DONE', 'FAILED', 'CANCELLED', 'EXPIRED')
           or exists (select from kairos.imported_run i where i.run_id = r.id))
      and not exists (select from kairos.hold h where h.run_id = r.id)
    returning r.id, r.workflow, r.key
), k as (
    delete from kairos.run_key k using d where k.workflow = d.workflow and k.key = d.key and k.run_id = d.id
), f as (
    delete from kairos.failure f using d where f.run_id = d.id
), h as (
    delete from kairos.hold h using d where h.holder = d.id
), o as (
    delete from kairos.fork o using d where o.run_id = d.id
), i as (
    delete from kairos.imported_run i using d where i.run_id = d.id
)
select d.id from d

-- name: delete_events
delete from kairos.event e where e.run_id = any(%(run_ids)s::uuid[])

-- name: runs_left
select r.id from kairos.run r
where r.id >= %(low)s::uuid and (%(high)s::uuid is null or r.id < %(high)s::uuid) order by r.id

-- name: detach_partition
alter table kairos.event detach partition kairos.{name}

-- name: move_events
-- Out of a partition that no longer belongs to the log, as they are.
insert into kairos.event (run_id, seq, kind, at, step, attempt, token, hash, body)
select e.run_id, e.seq, e.kind, e.at, e.step, e.attempt, e.token, e.hash, e.body
from kairos.{name} e where e.run_id = any(%(run_ids)s::uuid[])

-- name: drop_detached
drop table kairos.{name}

-- name: list_referred_blobs
-- Digests of the payloads that the events of old runs refer to, in hex: `"output_blob":{"sha256":"..."`.
select distinct m.found[1]
from kairos.run r
join kairos.event e on e.run_id = r.id
cross join lateral regexp_matches(convert_from(e.body, 'UTF8'), '_blob":."sha256":"([0-9a-f]+)"', 'g') as m (found)
where r.created_at < %(before)s::timestamptz and position('_blob":'::bytea in e.body) > 0

-- name: list_old_blobs
-- By name, a page at a time. Before the migration that made it, `used_at` was the time of the first use only.
select b.sha256 from kairos.blob b
where b.sha256 > %(after)s::bytea and b.used_at < %(unused_since)s::timestamptz
  and (select m.applied_at from kairos.migration m where m.name like '%%_retention') < %(unused_since)s::timestamptz
order by b.sha256 limit %(take)s::integer

-- name: delete_blobs
-- Whoever is about to refer to one has marked it as used, or finds it gone and puts it again.
delete from kairos.blob b where b.sha256 = any(%(digests)s::bytea[]) and b.used_at < %(unused_since)s::timestamptz

-- name: owns_the_log
select pg_has_role(c.relowner, 'usage'), current_user::text from pg_class c where c.oid = 'kairos.event'::regclass

-- name: hold_run
-- A removal that has locked the run goes first: then there is nothing to hold.
with r as (select r.id from kairos.run r where r.id = %(run_id)s::uuid for key share)
insert into kairos.hold (run_id, reason) select r.id, %(reason)s::text from r
on conflict (run_id, holder) do update set reason = excluded.reason, at = clock_timestamp()
returning run_id

-- name: unhold_run
delete from kairos.hold where run_id = %(run_id)s::uuid and holder = '00000000-0000-0000-0000-000000000000'
returning run_id

-- name: find_removal
-- The last removal that ids like these were concerned in.
select coalesce(m.ended_at, m.began_at), m.older_than from kairos.removal m
where m.low <= %(low)s::uuid and (m.high is null or m.high > %(high)s::uuid) and m.runs > 0
order by m.began_at desc limit 1
