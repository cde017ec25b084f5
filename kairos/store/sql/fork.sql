-- name: read_fork_source
-- What of a run's log matters to its forks, up to where it stands. Outputs that are blobs come by name only.
select e.seq, e.kind, e.at, e.step, e.attempt, e.token, e.hash, e.body
from kairos.event e
where e.run_id = %(run_id)s::uuid and e.seq <= %(upto)s::integer and e.kind = any(%(kinds)s::text[])
order by e.seq

-- name: lock_parent
-- Against retention alone: the parent goes on meanwhile.
select r.id from kairos.run r where r.id = %(run_id)s::uuid for key share

-- name: put_fork
insert into kairos.fork (run_id, parent_id, root_id, parent_seq, from_step, at, author, reason)
values (%(run_id)s::uuid, %(parent_id)s::uuid, %(root_id)s::uuid, %(parent_seq)s::integer, %(from_step)s::text,
        %(at)s::timestamptz, %(author)s::text, %(reason)s::text)

-- name: hold_for_fork
-- A fork needs the runs that its outputs stand in, and its parent, which needs its own.
insert into kairos.hold (run_id, holder, reason)
select h.run_id, %(holder)s::uuid, 'a fork refers to it' from unnest(%(run_ids)s::uuid[]) as h (run_id)

-- name: latest_fingerprint
-- Of this workflow, the version that workers announced last; where none was, the one that was registered last.
select d.fingerprint from kairos.definition d where d.workflow = %(workflow)s::text
order by d.announced_at desc nulls last, d.registered_at desc limit 1

-- name: is_announced
-- Whether a worker has ever had this version.
select exists (select from kairos.definition d
               where d.fingerprint = %(fingerprint)s::text and d.announced_at is not null)

-- name: find_fingerprints
-- Versions of this workflow whose fingerprint begins like this.
select d.fingerprint from kairos.definition d
where d.workflow = %(workflow)s::text and starts_with(d.fingerprint, %(prefix)s::text)
order by d.registered_at desc limit 5

-- name: list_family
-- The forks of the tree to which a run belongs: its root is the run itself, or what its own row says.
select f.run_id, f.parent_id, f.root_id, f.parent_seq, f.from_step, f.at, f.author, f.reason
from kairos.fork f
where f.root_id = coalesce((select o.root_id from kairos.fork o where o.run_id = %(run_id)s::uuid), %(run_id)s::uuid)
order by f.run_id

-- name: list_forks_of
-- The forks of these runs, first ones first.
select f.run_id, f.parent_id, f.root_id, f.parent_seq, f.from_step, f.at, f.author, f.reason
from kairos.fork f where f.parent_id = any(%(run_ids)s::uuid[]) order by f.run_id
