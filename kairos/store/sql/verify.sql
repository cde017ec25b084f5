-- name: verify_head
select r.workflow, r.fingerprint, r.queue, r.priority, r.key, r.labels, r.epoch, r.last_seq, r.head_hash, r.status,
       r.created_at, d.body,
       (select count(*) from kairos.task t where t.run_id = r.id and t.step = ''),
       (select f.status from kairos.failure f where f.run_id = r.id)
from kairos.run r left join kairos.definition d on d.fingerprint = r.fingerprint
where r.id = %(run_id)s::uuid

-- name: verify_events
select e.seq, e.kind, e.at, e.step, e.attempt, e.token, e.hash, e.body
from kairos.event e where e.run_id = %(run_id)s::uuid order by e.seq

-- name: verify_blobs
-- The server does the hashing: large payloads stay where they are.
select b.sha256, sha256(b.data) = b.sha256, length(b.data)
from kairos.blob b where b.sha256 = any(%(digests)s::bytea[])

-- name: events_without_run
select e.run_id, max(e.seq) from kairos.event e
where not exists (select from kairos.run r where r.id = e.run_id)
group by e.run_id limit %(take)s::integer
