-- The scenario of the pgoutput fixtures: each message of protocol version 1 and each thing about it
-- that a server can be made to do. Run by record-pgoutput.sh on a fresh server.
-- Oids, times and positions differ from run to run; everything else must not.
\set ON_ERROR_STOP on
\set QUIET on
set client_min_messages = warning;
set timezone = 'UTC';

create type mood as enum ('calm', 'cross');
create domain money_amount as numeric(12,2);
create table orders (
    id bigint primary key,
    note text,
    price money_amount,
    mood mood,
    flags bit(3),
    raw bytea,
    doc jsonb,
    plain json,
    tags text[],
    at timestamptz,
    uid uuid,
    ok boolean
);
create table "Odd ""name""" ("Ключ" int primary key, "a b" varchar(20), gone int, made int generated always as ("Ключ" * 2) stored);
create table whole (a int, b text);
alter table whole replica identity full;
create table by_index (a int not null, b text not null, c text);
create unique index by_index_b on by_index (b);
alter table by_index replica identity using index by_index_b;
create table unkeyed (a int);
alter table unkeyed replica identity nothing;
create table toasted (id int primary key, big text, n int);
alter table toasted alter column big set storage external;
create table parent (id int, part text, primary key (id, part)) partition by list (part);
create table child_a partition of parent for values in ('a');
create table child_b partition of parent for values in ('b');
create table no_columns ();
create table truncated_1 (id serial primary key);
create table truncated_2 (id int references truncated_1);
create publication fixture for all tables with (publish_via_partition_root = true);

select 'begin' from pg_create_logical_replication_slot('walpost_text', 'pgoutput') \g /dev/null

-- Insert: every kind of value.
insert into orders values
    (1, 'plain', 12.50, 'calm', b'101', '\x00ff5c', '{"a": [1, 2.0], "b": null}', '{ "kept" :  "as it is" }',
     '{one,"two, three",NULL}', '2026-01-31 12:00:00.123456+00', '01234567-89ab-cdef-0123-456789abcdef', true),
    (2, null, null, null, null, null, null, null, null, null, null, null),
    (3, '', 0, 'cross', b'000', '', '{}', '[]', '{}', 'infinity', '00000000-0000-0000-0000-000000000000', false),
    (4, E'quote '' " \\ tab \t line \n return \r bell \x07 emoji 🐘 Žluťoučký', -1.00, null, null, null, '"\u0001"', 'null',
     null, '-infinity', null, null);
insert into "Odd ""name""" values (1, 'x', 7), (2, null, null);
insert into unkeyed values (1);
insert into no_columns default values;

-- Subtransactions: the second insert is rolled back, the last one is not.
begin;
insert into whole values (1, 'kept');
savepoint a;
insert into whole values (2, 'rolled back');
rollback to savepoint a;
savepoint b;
insert into whole values (3, 'kept as well');
release savepoint b;
commit;
-- Nothing of this may show, nor of a transaction that changes nothing published.
begin;
insert into whole values (4, 'never');
rollback;

-- Updates and deletes under each replica identity.
update orders set note = 'changed' where id = 1;
update orders set id = 10 where id = 2;
update whole set b = 'full' where a = 1;
insert into by_index values (1, 'one', 'c');
update by_index set c = 'd' where a = 1;
update by_index set b = 'two' where a = 1;
delete from orders where id = 3;
delete from whole where a = 3;
delete from by_index;

-- A TOASTed value is sent when it is new, and not when it is left as it was.
insert into toasted select 1, repeat('0123456789', 300), 1;
update toasted set n = 2;
update toasted set big = repeat('abc', 1000);
update toasted set id = 2;
delete from toasted;

-- COPY writes several rows with one WAL record: several changes at one LSN.
copy whole from stdin;
20	one
21	two
22	\N
23	four
\.

-- Partitions are published as their root, also when a row moves.
insert into parent values (1, 'a'), (2, 'b');
update parent set part = 'b' where id = 1;
truncate parent;

truncate truncated_1 cascade;
truncate truncated_1, truncated_2 restart identity;
truncate whole;

-- Logical messages: in a transaction, alone in one, rolled back, and outside of any.
begin;
insert into unkeyed values (2);
select pg_logical_emit_message(true, 'walpost', '{"n": 1}') \g /dev/null
select pg_logical_emit_message(true, '', '\x00ff'::bytea) \g /dev/null
select pg_logical_emit_message(false, 'at once', 'seen before its transaction') \g /dev/null
insert into unkeyed values (3);
commit;
select pg_logical_emit_message(true, 'walpost', 'alone') \g /dev/null
begin;
select pg_logical_emit_message(true, 'walpost', 'rolled back') \g /dev/null
select pg_logical_emit_message(false, 'at once', 'of a transaction that is rolled back') \g /dev/null
rollback;

-- ALTER TABLE between transactions: the relation is described again.
alter table whole add column c int default 5, drop column b;
insert into whole values (30, 31);
alter table whole rename to whole_renamed;
alter table whole_renamed alter column c type bigint;
insert into whole_renamed values (40, 41);
alter table "Odd ""name""" drop column gone;
insert into "Odd ""name""" values (3, 'without');
-- ... and within one.
begin;
insert into unkeyed values (4);
alter table unkeyed add column b text default 'default';
insert into unkeyed values (5);
commit;

-- What came from another node says so.
select pg_replication_origin_create('elsewhere') \g /dev/null
select pg_replication_origin_session_setup('elsewhere') \g /dev/null
begin;
select pg_replication_origin_xact_setup('7/ABCDEF01', '2020-02-02 02:02:02+00') \g /dev/null
insert into orders (id, note) values (100, 'from elsewhere');
commit;
select pg_replication_origin_session_reset() \g /dev/null

-- The same kinds of value once more in binary.
select 'begin' from pg_create_logical_replication_slot('walpost_binary', 'pgoutput') \g /dev/null
insert into orders values
    (200, 'binary', 12.50, 'calm', b'101', '\x00ff5c', '{"a": [1, 2.0]}', '{ "kept" : 1 }',
     '{one}', '2026-01-31 12:00:00.123456+00', '01234567-89ab-cdef-0123-456789abcdef', true),
    (201, null, null, null, null, null, null, null, null, null, null, null);

-- Each change as its LSN (8 bytes), its length (4) and its bytes, in base64.
\pset format unaligned
\pset tuples_only on
select encode(string_agg(pg_lsn_send(lsn) || int4send(length(data)) || data, ''::bytea order by place), 'base64')
from (
    select 1 as slot, * from pg_logical_slot_peek_binary_changes('walpost_text', null, null,
        'proto_version', '1', 'publication_names', 'fixture', 'messages', 'true') with ordinality as text_changes(lsn, xid, data, place)
    union all
    select 2, lsn, xid, data, place + 1000000 from pg_logical_slot_peek_binary_changes('walpost_binary', null, null,
        'proto_version', '1', 'publication_names', 'fixture', 'messages', 'true', 'binary', 'true') with ordinality as binary_changes(lsn, xid, data, place)
) changes;
