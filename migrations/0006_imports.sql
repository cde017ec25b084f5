-- Runs that came out of a file. They are evidence: nobody works on them, whatever their status says.
create table kairos.imported_run (
    run_id uuid        primary key,
    at     timestamptz not null default clock_timestamp(),
    file   text        not null,
    sha256 bytea       not null
);
comment on column kairos.imported_run.file is 'name of the bundle, without its folder';
comment on column kairos.imported_run.sha256 is 'of the whole file';

-- Roles that could use the log must go on to be able to, without being named again.
do $$
declare
    role text;
begin
    for role in
        select distinct quote_ident(pg_get_userbyid(a.grantee))
        from pg_class c cross join aclexplode(c.relacl) a
        where c.oid = 'kairos.event'::regclass and a.grantee not in (0, c.relowner) and a.privilege_type = 'INSERT'
    loop
        execute 'grant select, insert, update on kairos.imported_run to ' || role;
    end loop;
end $$;
