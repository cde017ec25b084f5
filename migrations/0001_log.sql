-- The log and what is derived from it. One lock order everywhere: run, task; ids ascending.

-- Heads of runs. Status, last_seq and head_hash are the stored projection: written only together with the
-- events they follow from. What changes stands last and side by side, and no index covers it: updates stay
-- HOT, and the WAL holds only the bytes that differ.
create table kairos.run (
    id          uuid        primary key,
    created_at  timestamptz not null,
    workflow    text        not null,
    fingerprint text        not null,
    queue       text        not null,
    priority    smallint    not null,
    key         text,
    labels      jsonb,
    epoch       bigint      not null default 0,
    last_seq    integer     not null,
    head_hash   bytea       not null,
    status      text        not null
        check (status in ('SCHEDULED', 'RUNNING', 'PAUSED', 'DONE', 'FAILED', 'CANCELLED', 'EXPIRED'))
) with (fillfactor = 50);

comment on column kairos.run.epoch is 'number of claims so far: the fence of the owner''s writes';
comment on column kairos.run.head_hash is 'hash of event last_seq: the end of the chain';

-- Lists are read by workflow, newest first (ids are UUIDv7: their order is the order of creation).
create index run_workflow on kairos.run (workflow, id);
-- Only labelled runs pay for this one.
create index run_labels on kairos.run using gin (labels jsonb_path_ops) where labels is not null;

-- Immutable facts. Body: canonical JSON, as hashed. The primary key is the only index (a second one costs
-- 45 % of the insert rate).
create table kairos.event (
    run_id  uuid        not null,
    seq     integer     not null check (seq > 0),
    kind    text        not null,
    at      timestamptz not null,
    step    text,
    attempt integer,
    token   bigint,
    hash    bytea       not null,
    body    bytea       not null,
    primary key (run_id, seq)
);

create function kairos.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'kairos.% is append-only: % refused', tg_table_name, tg_op
        using errcode = 'KA001', hint = 'History is never edited. Fork the run instead.';
end $$;

create trigger event_is_append_only before update or delete on kairos.event
    for each row execute function kairos.refuse_change();
create trigger event_is_not_truncated before truncate on kairos.event
    for each statement execute function kairos.refuse_change();

-- Payloads too long for their event, named by the sha256 of their bytes; shared by whoever refers to them.
create table kairos.blob (
    sha256     bytea       primary key,
    data       bytea       not null,
    created_at timestamptz not null default clock_timestamp()
);

-- What a run is pinned to: graph, sources, schemas.
create table kairos.definition (
    fingerprint   text        primary key,
    workflow      text        not null,
    body          bytea       not null,
    registered_at timestamptz not null default clock_timestamp()
);
create index definition_workflow on kairos.definition (workflow, registered_at);

-- One row per run that ended badly: lists of failures and groups by error never touch the log.
create table kairos.failure (
    run_id   uuid        primary key,
    at       timestamptz not null,
    workflow text        not null,
    status   text        not null,
    step     text,
    error    text        not null,
    error_group text     not null
);
create index failure_status on kairos.failure (status, run_id);
