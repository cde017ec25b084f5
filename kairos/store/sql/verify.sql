-- name: verify_heads
-- Heads as stored, with what must agree with them, in one snapshot. Events never change, so their rows may be
-- read afterwards; what is appended meanwhile lies beyond `last_seq` and `newest`.
select r.id, r.created_at, r.workflow, r.fingerprint, r.queue, r.priority, r.key, r.labels, r.last_seq, r.head_hash,
       r.status,
       (select max(e.seq) from kairos.event e where e.run_id = r.id),
       (select array_agg(t.step) from kairos.task t where t.run_id = r.id),
       (select f.status from kairos.failure f where f.run_id = r.id),
       (select o.parent_id from kairos.fork o where o.run_id = r.id),
       exists (select from kairos.imported_run i where i.run_id = r.id)
from kairos.run r
where (%(run_ids)s::uuid[] is null or r.id = any(%(run_ids)s::uuid[]))
  and (%(after)s::uuid is null or r.id > %(after)s::uuid)
order by r.id limit %(take)s::integer

-- name: verify_events
select e.run_id, e.seq, e.kind, e.at, e.step, e.attempt, e.token, e.hash, e.body
from kairos.event e where e.run_id = any(%(run_ids)s::uuid[]) order by e.run_id, e.seq

-- name: verify_orphans
-- Histories whose head is gone. That is so while retention is at work in their range, and at no other time.
select e.run_id from kairos.event e
where e.seq = 1 and not exists (select 1 from kairos.run r where r.id = e.run_id)
  and not exists (select 1 from kairos.removal m where m.ended_at is null and m.part is not null
                  and e.run_id >= m.low and (m.high is null or e.run_id < m.high))
order by e.run_id limit %(take)s::integer
