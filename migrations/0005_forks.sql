-- Which run continues which. The log of a fork says it too (`run_forked`); this is for whoever asks from the
-- parent's side, whose log does not know of its forks.
create table kairos.fork (
    run_id     uuid        primary key,
    parent_id  uuid        not null,
    root_id    uuid        not null,
    parent_seq integer     not null,
    from_step  text        not null,
    at         timestamptz not null,
    author     text        not null,
    reason     text        not null
);
comment on column kairos.fork.root_id is 'the first ancestor, which is no fork: what all of a tree have in common';

-- Forks are rare, and so is asking for them: the forks of a run, and the whole tree.
create index fork_parent on kairos.fork (parent_id);
create index fork_root on kairos.fork (root_id);

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
        execute 'grant select, insert on kairos.fork to ' || role;
    end loop;
end $$;
