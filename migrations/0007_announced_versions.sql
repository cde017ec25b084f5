-- When a worker first had a version. What only a start or a fork has brought along is nobody's latest version.
alter table kairos.definition add column announced_at timestamptz;
update kairos.definition set announced_at = registered_at;

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
        execute 'grant update (announced_at) on kairos.definition to ' || role;
    end loop;
end $$;
