-- name: lock_migrations
select pg_advisory_lock(%(key)s::bigint)

-- name: unlock_migrations
select pg_advisory_unlock(%(key)s::bigint)

-- name: create_schema
create schema if not exists kairos

-- name: create_migration_table
create table if not exists kairos.migration (
    version    integer     primary key,
    name       text        not null,
    checksum   text        not null,
    applied_at timestamptz not null default clock_timestamp()
)

-- name: has_migration_table
select to_regclass('kairos.migration') is not null

-- name: list_migrations
select version, name, checksum from kairos.migration order by version

-- name: record_migration
insert into kairos.migration (version, name, checksum)
values (%(version)s::integer, %(name)s::text, %(checksum)s::text)

-- name: grant_to_role
-- Events may be added and read, never changed. A run's head is changed, never deleted.
grant usage on schema kairos to {role};
grant select, insert on kairos.event, kairos.blob, kairos.definition, kairos.failure, kairos.fork to {role};
grant update (used_at) on kairos.blob to {role};
grant update (announced_at) on kairos.definition to {role};
grant select, insert, update on kairos.imported_run to {role};
grant select, insert, update on kairos.run to {role};
grant select, insert, update, delete on kairos.task, kairos.worker, kairos.run_key, kairos.hold to {role};
grant select on kairos.migration, kairos.removal to {role}

-- name: create_database
create database {name}

-- name: may_create_tables
select has_schema_privilege(%(role)s::name, 'public', 'create')

-- name: grant_public
-- Without the search path a table would go to the schema that has the role's name: ours.
grant usage, create on schema public to {role};
alter role {role} set search_path = public
