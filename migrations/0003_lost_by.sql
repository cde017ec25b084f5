-- Which worker died with a task: its next holder records, for every attempt that was lost, whose it was and what
-- killed it. The log names the first owner of a run only.
alter table kairos.task add column lost_by uuid;

comment on column kairos.task.lost_by is 'the last worker that died while it held this';
