-- The log in partitions by age, and what it takes to let old runs go.

-- Run ids are UUIDv7: a range of ids is a range of time. What was there, and every id that falls into no other
-- range (of a caller's own choosing, or of a time for which nobody has made a partition), lies in the default
-- partition. The table becomes it as it stands: nothing is copied or read.
alter table kairos.event rename to event_default;
alter index kairos.event_pkey rename to event_default_pkey;
drop trigger event_is_append_only on kairos.event_default;

create table kairos.event (like kairos.event_default including constraints) partition by range (run_id);
-- Still the only index: it leads to a run's events, in order, and to its last one.
alter table kairos.event add primary key (run_id, seq);
alter table kairos.event attach partition kairos.event_default default;

-- One row per stretch of ids that retention has emptied: low <= id < high (null: no end). It is written before
-- the first run goes. While `ended_at` is null, heads may be gone whose events are still there.
create table kairos.removal (
    id          bigint      generated always as identity primary key,
    part        text,
    low         uuid        not null,
    high        uuid,
    older_than  timestamptz not null,
    began_at    timestamptz not null default clock_timestamp(),
    ended_at    timestamptz,
    runs        bigint      not null default 0
);
comment on column kairos.removal.part is 'the partition that is dropped; null: rows are deleted';
comment on column kairos.removal.older_than is 'runs that had ended before this went; all others stayed';

-- Runs that retention must leave alone. Holder: the run that refers to it; all zeros: somebody asked for it.
create table kairos.hold (
    run_id uuid        not null,
    holder uuid        not null default '00000000-0000-0000-0000-000000000000',
    reason text        not null default '',
    at     timestamptz not null default clock_timestamp(),
    primary key (run_id, holder)
);
-- When a run goes, so does what it holds.
create index hold_holder on kairos.hold (holder);

-- History is never changed. It may go as a whole: after its head, and only where a removal is under way.
create or replace function kairos.refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        if not exists (select from kairos.run r where r.id = old.run_id)
            and exists (select from kairos.removal m where m.ended_at is null
                        and old.run_id >= m.low and (m.high is null or old.run_id < m.high)) then
            return old;
        end if;
    end if;
    raise exception 'kairos.event is append-only: % refused', tg_op
        using errcode = 'KA001', hint = 'History is never edited. Fork the run instead.';
end $$;

-- The first is inherited by every partition; the second has to be made for each.
create trigger event_is_append_only before update or delete on kairos.event
    for each row execute function kairos.refuse_change();
create trigger event_is_not_truncated before truncate on kairos.event
    for each statement execute function kairos.refuse_change();

-- Whoever refers to a blob puts it first, and is seen to: so a blob that was not put for long is referred to by
-- old runs only.
alter table kairos.blob rename column created_at to used_at;

-- Nothing in the log is ever updated: its pages can be frozen the first time that they are looked at, instead of
-- all at once when transaction ids run short.
alter table kairos.event_default set (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.05);
-- Heads are updated once per flush, within their page (fillfactor, no index on what changes). Dead rows are a
-- share of the runs that go on, not of all that ever were.
alter table kairos.run set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
-- As busy as the queue is, and as small: the planner must not take yesterday's size for today's.
alter table kairos.task set (autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
-- One row per worker, updated at each heartbeat.
alter table kairos.worker set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- Roles that could use the log must go on to be able to, without being named again.
do $$
declare
    role text;
begin
    for role in
        select distinct quote_ident(pg_get_userbyid(a.grantee))
        from pg_class c cross join aclexplode(c.relacl) a
        where c.oid = 'kairos.event_default'::regclass and a.grantee not in (0, c.relowner)
          and a.privilege_type = 'INSERT'
    loop
        execute 'grant select, insert on kairos.event to ' || role;
        execute 'grant update (used_at) on kairos.blob to ' || role;
        execute 'grant select on kairos.removal to ' || role;
        execute 'grant select, insert, update, delete on kairos.hold to ' || role;
        -- Rights on the whole are enough for its partitions.
        execute 'revoke all on kairos.event_default from ' || role;
    end loop;
end $$;
