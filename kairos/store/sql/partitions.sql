-- name: list_partitions
-- The partitions of the log with their bounds as the server prints them, oldest first; the default one last.
select c.relname, (regexp_match(b.bound, 'FROM \(''([0-9a-f-]+)''\)'))[1]::uuid,
       (regexp_match(b.bound, 'TO \(''([0-9a-f-]+)''\)'))[1]::uuid, pg_total_relation_size(c.oid)
from pg_inherits i
join pg_class c on c.oid = i.inhrelid
cross join lateral pg_get_expr(c.relpartbound, c.oid) as b (bound)
where i.inhparent = 'kairos.event'::regclass and not i.inhdetachpending
order by 2 nulls last

-- name: try_partition_lock
-- Whether nobody else makes or drops partitions; held for the session.
select pg_try_advisory_lock(%(key)s::bigint)

-- name: free_partition_lock
select pg_advisory_unlock(%(key)s::bigint)

-- name: wait_for_locks
-- For the rest of this transaction.
select set_config('lock_timeout', %(value)s::text, true)

-- name: may_make_partitions
-- Whoever makes partitions must own the log, and be able to make tables beside it.
select pg_has_role(c.relowner, 'usage') and has_schema_privilege('kairos', 'create')
from pg_class c where c.oid = 'kairos.event'::regclass

-- name: default_holds_any
select exists (select from kairos.event_default e where e.run_id >= %(low)s::uuid and e.run_id < %(high)s::uuid)

-- name: default_size
select pg_relation_size('kairos.event_default')

-- name: exclude_from_default
-- What proves to `attach_partition` that the default partition holds nothing of this range.
alter table kairos.event_default add constraint {name} check (run_id < {low} or run_id >= {high}) not valid

-- name: prove_default_excludes
-- Reads the whole of it, and locks nobody out.
alter table kairos.event_default validate constraint {name}

-- name: admit_to_default
alter table kairos.event_default drop constraint if exists {name}

-- name: create_partition
-- Made beside the log, then attached: to create it in place would lock the log. The trigger against `truncate`
-- is the one thing that a partition does not inherit; frozen early, because its rows never change.
create table kairos.{name} (like kairos.event including constraints including indexes)
    with (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.05);
create trigger event_is_not_truncated before truncate on kairos.{name}
    for each statement execute function kairos.refuse_change()

-- name: keep_out_writers
-- Whoever was about to write to the default partition would be refused if its range went to another meanwhile. Held
-- back here, they look for the place of their rows when it is there.
lock table kairos.event in share row exclusive mode

-- name: attach_partition
alter table kairos.event attach partition kairos.{name} for values from ({low}) to ({high})

-- name: who_locks_the_log
-- Sessions that hold something on the log or a part of it, longest first: what a short lock waits for.
select a.pid, coalesce(a.application_name, ''), coalesce(a.state, ''),
       extract(epoch from clock_timestamp() - a.xact_start)::double precision
from pg_stat_activity a
where a.pid <> pg_backend_pid() and exists (
    select from pg_locks l where l.pid = a.pid and l.granted and l.relation in (
        select 'kairos.event'::regclass::oid union all
        select i.inhrelid from pg_inherits i where i.inhparent = 'kairos.event'::regclass))
order by a.xact_start nulls last limit 5
