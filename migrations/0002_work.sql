-- Who does what. Small and hot: rows go when the work is done.

-- What waits in a queue or is held by a worker. step = '': the run itself; else a step offered to others.
create table kairos.task (
    run_id      uuid        not null,
    step        text        not null default '',
    workflow    text        not null,
    fingerprint text        not null,
    queue       text        not null,
    priority    smallint    not null,
    ready_at    timestamptz not null,
    expires_at  timestamptz,
    crashed     boolean     not null default false,
    attempt     integer,
    token       bigint,
    worker      uuid,
    primary key (run_id, step)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

comment on column kairos.task.crashed is 'the last worker that held it is gone: what may have run is a suspect';

create index task_ready on kairos.task (queue, priority desc, ready_at) where worker is null;
create index task_held on kairos.task (worker) where worker is not null;
create index task_expires on kairos.task (expires_at) where worker is null and expires_at is not null;

-- One row per worker process and incarnation. A lease covers all that the worker holds.
create table kairos.worker (
    id           uuid        primary key,
    name         text        not null,
    host         text        not null,
    pid          integer     not null,
    app          text        not null,
    version      text        not null,
    queues       text[]      not null,
    fingerprints text[]      not null,
    concurrency  integer     not null,
    started_at   timestamptz not null default clock_timestamp(),
    beat_at      timestamptz not null default clock_timestamp(),
    lease_until  timestamptz not null,
    state        text        not null default 'live' check (state in ('live', 'draining', 'stopped', 'dead')),
    report       bytea       not null default '{}'
) with (fillfactor = 50);

-- Idempotency keys. Not an index on run: most runs have no key.
create table kairos.run_key (
    workflow   text        not null,
    key        text        not null,
    run_id     uuid        not null,
    input_hash bytea       not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    primary key (workflow, key)
);
