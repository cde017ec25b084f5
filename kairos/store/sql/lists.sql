-- Pages of runs, by keyset in both directions: ids are UUIDv7, so their order is the order of creation.

-- name: list_runs
-- Newest first.
select r.id, r.created_at, r.workflow, r.fingerprint, r.queue, r.priority, r.key, r.labels, r.epoch, r.last_seq,
       r.status, e.at, e.kind, e.body
from kairos.run r join kairos.event e on e.run_id = r.id and e.seq = r.last_seq
where (%(before)s::uuid is null or r.id < %(before)s::uuid)
  and (%(statuses)s::text[] is null or r.status = any(%(statuses)s::text[]))
  and (%(workflow)s::text is null or r.workflow = %(workflow)s::text)
  and (%(version)s::text is null or r.fingerprint = %(version)s::text)
  and (%(queue)s::text is null or r.queue = %(queue)s::text)
  and (%(key)s::text is null or r.key = %(key)s::text)
  and (%(labels)s::jsonb is null or r.labels @> %(labels)s::jsonb)
  and (%(since)s::timestamptz is null or r.created_at >= %(since)s::timestamptz)
  and (%(until)s::timestamptz is null or r.created_at < %(until)s::timestamptz)
order by r.id desc
limit %(take)s::integer

-- name: list_newer_runs
-- As `list_runs`, what comes right after a run: the oldest first.
select r.id, r.created_at, r.workflow, r.fingerprint, r.queue, r.priority, r.key, r.labels, r.epoch, r.last_seq,
       r.status, e.at, e.kind, e.body
from kairos.run r join kairos.event e on e.run_id = r.id and e.seq = r.last_seq
where r.id > %(after)s::uuid
  and (%(statuses)s::text[] is null or r.status = any(%(statuses)s::text[]))
  and (%(workflow)s::text is null or r.workflow = %(workflow)s::text)
  and (%(version)s::text is null or r.fingerprint = %(version)s::text)
  and (%(queue)s::text is null or r.queue = %(queue)s::text)
  and (%(key)s::text is null or r.key = %(key)s::text)
  and (%(labels)s::jsonb is null or r.labels @> %(labels)s::jsonb)
  and (%(since)s::timestamptz is null or r.created_at >= %(since)s::timestamptz)
  and (%(until)s::timestamptz is null or r.created_at < %(until)s::timestamptz)
order by r.id
limit %(take)s::integer

-- name: list_ended_badly
-- As `list_runs` for rare statuses, by way of the small table of failures. A run is repaired by a fork of it, or by
-- a fork of one, that is DONE.
select r.id, r.created_at, r.workflow, r.fingerprint, r.queue, r.priority, r.key, r.labels, r.epoch, r.last_seq,
       r.status, e.at, e.kind, e.body
from (
    select f.run_id, f.status from kairos.failure f
    where f.status = any(%(statuses)s::text[])
      and (%(before)s::uuid is null or f.run_id < %(before)s::uuid)
      and (%(workflow)s::text is null or f.workflow = %(workflow)s::text)
      and (%(step)s::text is null or f.step = %(step)s::text)
      and (%(error)s::text is null or position(lower(%(error)s::text) in lower(f.error)) > 0)
      and (%(group)s::text is null or f.error_group = %(group)s::text)
    order by f.run_id desc offset 0
) f
join kairos.run r on r.id = f.run_id
join kairos.event e on e.run_id = r.id and e.seq = r.last_seq
where r.status = f.status
  and (not %(unrepaired)s::boolean or not exists (
      with recursive line as (
          select c.run_id from kairos.fork c where c.parent_id = f.run_id
          union
          select c.run_id from line l join kairos.fork c on c.parent_id = l.run_id
      )
      select from line l join kairos.run d on d.id = l.run_id where d.status = 'DONE'
  ))
  and (%(version)s::text is null or r.fingerprint = %(version)s::text)
  and (%(queue)s::text is null or r.queue = %(queue)s::text)
  and (%(key)s::text is null or r.key = %(key)s::text)
  and (%(labels)s::jsonb is null or r.labels @> %(labels)s::jsonb)
  and (%(since)s::timestamptz is null or r.created_at >= %(since)s::timestamptz)
  and (%(until)s::timestamptz is null or r.created_at < %(until)s::timestamptz)
order by f.run_id desc
limit %(take)s::integer

-- name: list_newer_ended_badly
-- As `list_ended_badly`, what comes right after a run: the oldest first.
select r.id, r.created_at, r.workflow, r.fingerprint, r.queue, r.priority, r.key, r.labels, r.epoch, r.last_seq,
       r.status, e.at, e.kind, e.body
from (
    select f.run_id, f.status from kairos.failure f
    where f.status = any(%(statuses)s::text[])
      and f.run_id > %(after)s::uuid
      and (%(workflow)s::text is null or f.workflow = %(workflow)s::text)
      and (%(step)s::text is null or f.step = %(step)s::text)
      and (%(error)s::text is null or position(lower(%(error)s::text) in lower(f.error)) > 0)
      and (%(group)s::text is null or f.error_group = %(group)s::text)
    order by f.run_id offset 0
) f
join kairos.run r on r.id = f.run_id
join kairos.event e on e.run_id = r.id and e.seq = r.last_seq
where r.status = f.status
  and (not %(unrepaired)s::boolean or not exists (
      with recursive line as (
          select c.run_id from kairos.fork c where c.parent_id = f.run_id
          union
          select c.run_id from line l join kairos.fork c on c.parent_id = l.run_id
      )
      select from line l join kairos.run d on d.id = l.run_id where d.status = 'DONE'
  ))
  and (%(version)s::text is null or r.fingerprint = %(version)s::text)
  and (%(queue)s::text is null or r.queue = %(queue)s::text)
  and (%(key)s::text is null or r.key = %(key)s::text)
  and (%(labels)s::jsonb is null or r.labels @> %(labels)s::jsonb)
  and (%(since)s::timestamptz is null or r.created_at >= %(since)s::timestamptz)
  and (%(until)s::timestamptz is null or r.created_at < %(until)s::timestamptz)
order by f.run_id
limit %(take)s::integer
