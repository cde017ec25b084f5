-- name: import_head
-- The head of a run before its first event; the rest is appended as everywhere. No task: nobody takes it up.
insert into kairos.run (id, created_at, workflow, fingerprint, queue, priority, key, labels, last_seq, head_hash, status)
values (%(id)s::uuid, %(created_at)s::timestamptz, %(workflow)s::text, %(fingerprint)s::text, %(queue)s::text,
        %(priority)s::smallint, %(key)s::text, %(labels)s::jsonb, 0, %(hash)s::bytea, 'SCHEDULED')
on conflict (id) do nothing returning id

-- name: put_import
insert into kairos.imported_run (run_id, file, sha256)
values (%(run_id)s::uuid, %(file)s::text, %(sha256)s::bytea)
on conflict (run_id) do update set at = clock_timestamp(), file = excluded.file, sha256 = excluded.sha256

-- name: find_import
select i.file, i.at, encode(i.sha256, 'hex') from kairos.imported_run i where i.run_id = %(run_id)s::uuid

-- name: is_fork
select exists (select from kairos.fork f where f.run_id = %(run_id)s::uuid)
