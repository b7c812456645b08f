//! Partitions, tables that inherit, and the ways in which many rows are written: each row once, in order.

use super::{database, functions, orders, published};

#[test]
fn partitions_are_covered_whichever_name_they_are_written_by() {
    let database = database();
    database.sql(
        "CREATE TABLE m (tenant int, id int, v text, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
         CREATE TABLE m1 PARTITION OF m FOR VALUES IN (1);
         SELECT walpost.publish_on('m', 'd', fields => '{v}', key => 'id', events => '{insert,update,delete}');
         -- Columns in another order, and a partition of its own below it.
         CREATE TABLE m2 (v text, gone int, id int NOT NULL, tenant int NOT NULL) PARTITION BY LIST (tenant);
         ALTER TABLE m2 DROP gone;
         CREATE TABLE m22 PARTITION OF m2 FOR VALUES IN (2);
         ALTER TABLE m ATTACH PARTITION m2 FOR VALUES IN (2)",
    );
    database.sql(
        "INSERT INTO m VALUES (1, 1, 'a'), (2, 2, 'b');
         INSERT INTO m22 (tenant, id) VALUES (2, 3);
         UPDATE m1 SET v = 'c';
         -- It moves: its key is another one now.
         UPDATE m SET tenant = 2 WHERE id = 1;
         DELETE FROM m2 WHERE id = 3",
    );
    let row = |event, tenant, id, v: &str| {
        format!(
            r#"d {id} {{"event": "{event}"}} {{"v": {v}, "id": {{"id": {id}, "tenant": {tenant}}}}}"#
        )
    };
    assert_eq!(
        published(&database),
        [
            row("insert", 1, 1, "\"a\""),
            row("insert", 2, 2, "\"b\""),
            row("insert", 2, 3, "null"),
            row("update", 1, 1, "\"c\""),
            row("delete", 1, 1, "\"c\""),
            row("insert", 2, 1, "\"c\""),
            row("delete", 2, 3, "null"),
        ]
    );
    database.sql("SELECT walpost.unpublish('m'); UPDATE m SET v = 'z'");
    assert_eq!((published(&database).len(), functions(&database).as_str()), (0, "0"));
}

#[test]
fn a_partition_can_be_published_alone() {
    let database = database();
    database.sql(
        "CREATE TABLE m (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF m FOR VALUES FROM (0) TO (10);
         CREATE TABLE high PARTITION OF m DEFAULT;
         SELECT walpost.publish_on('low', 'd'); INSERT INTO m VALUES (1), (11)",
    );
    assert_eq!(published(&database), [r#"d - {"id": 1}"#]);
}

#[test]
fn tables_that_inherit_are_covered_as_of_the_call() {
    let database = database();
    database.sql(
        "CREATE TABLE par (id int PRIMARY KEY, a text);
         CREATE TABLE kid (b text) INHERITS (par);
         CREATE TABLE grandkid () INHERITS (kid);
         SELECT walpost.publish_on('par', 'd');
         CREATE TABLE late () INHERITS (par);
         INSERT INTO par VALUES (1, 'x'); INSERT INTO kid VALUES (2, 'x', 'y'); INSERT INTO grandkid VALUES (3, 'x', 'y');
         INSERT INTO late VALUES (4, 'x');
         UPDATE par SET a = 'z' WHERE id > 1",
    );
    let row = |id: u32, a| format!(r#"d - {{"a": "{a}", "id": {id}}}"#);
    assert_eq!(
        published(&database),
        [row(1, "x"), row(2, "x"), row(3, "x"), row(2, "z"), row(3, "z")]
    );
    database.sql("SELECT walpost.publish_on('par', 'd'); UPDATE late SET a = 'l'");
    assert_eq!(published(&database), [row(4, "l")]);
    // One below has a message of its own; the others' stays.
    database.sql(
        "ALTER TABLE kid ADD PRIMARY KEY (id); SELECT walpost.publish_on('kid', 'd', fields => '{b}');
         UPDATE par SET a = 'k' WHERE id IN (1, 2)",
    );
    assert_eq!(published(&database), [row(1, "k"), r#"d - {"b": "y", "id": 2}"#.to_owned()]);
    database.sql("SELECT walpost.unpublish('par'); UPDATE par SET a = 'n'");
    assert_eq!((published(&database).len(), functions(&database).as_str()), (0, "0"));
}

#[test]
fn rows_keep_their_order_however_they_are_written() {
    let database = orders();
    database.sql(
        "SELECT walpost.publish_on('orders', 'd', fields => '{name}', key => 'name', events => '{insert,update,delete}')",
    );
    let row = |event: &str, id: u32, name: &str| {
        format!(r#"d {name} {{"event": "{event}"}} {{"id": {id}, "name": "{name}"}}"#)
    };
    database.sql("COPY orders FROM PROGRAM 'printf \"2\\tb\\n1\\ta\\n\"'");
    assert_eq!(published(&database), [row("insert", 2, "b"), row("insert", 1, "a")]);

    database.sql(
        "INSERT INTO orders VALUES (3, 'c'), (1, 'A'), (4, 'd'), (2, 'B')
             ON CONFLICT (id) DO UPDATE SET name = excluded.name;
         INSERT INTO orders VALUES (3, 'ignored'), (5, 'e') ON CONFLICT DO NOTHING",
    );
    assert_eq!(
        published(&database),
        [
            row("insert", 3, "c"),
            row("update", 1, "A"),
            row("insert", 4, "d"),
            row("update", 2, "B"),
            row("insert", 5, "e"),
        ]
    );
    if database.server().major() >= 15 {
        database.sql(
            "MERGE INTO orders USING (VALUES (7, 'g'), (5, 'E'), (4, '')) AS s (id, name) ON orders.id = s.id
                 WHEN MATCHED AND s.name = '' THEN DELETE
                 WHEN MATCHED THEN UPDATE SET name = s.name
                 WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.name)",
        );
        let mut merged = published(&database);
        // The order in which the join brings them is the server's.
        merged.sort();
        let mut expected = [row("insert", 7, "g"), row("update", 5, "E"), row("delete", 4, "d")];
        expected.sort();
        assert_eq!(merged, expected);
    }
    database.sql("SET session_replication_role = replica; UPDATE orders SET name = 'replica'");
    assert_eq!(published(&database), [""; 0]);
    database.sql(
        "INSERT INTO orders SELECT n, 'n' || n FROM generate_series(2000, 1000, -1) AS n;
         DELETE FROM orders WHERE id > 1000; TRUNCATE orders",
    );
    let all = published(&database);
    let inserted: Vec<_> =
        (1000..=2000).rev().map(|n| row("insert", n, &format!("n{n}"))).collect();
    assert_eq!(all[..1001], inserted);
    assert_eq!(all.len(), 1001 + 1000, "TRUNCATE sends nothing");
}

/// Other triggers of the table may write to it, too: what they change is published behind what they saw.
#[test]
fn rows_that_triggers_change_keep_their_order() {
    let database = orders();
    database.sql(
        "CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.name := NEW.name || '!'; RETURN NEW; END $$;
         CREATE FUNCTION after() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN UPDATE orders SET name = 'after' WHERE id = NEW.id; RETURN NULL; END $$;
         CREATE TRIGGER zzz BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION before();
         CREATE TRIGGER \"000\" AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION after();
         SELECT walpost.publish_on('orders', 'd');
         INSERT INTO orders VALUES (1, 'a'), (2, 'b')",
    );
    let row = |id: u32, name| format!(r#"d - {{"id": {id}, "name": "{name}"}}"#);
    let names = [row(1, "a!"), row(1, "after!"), row(2, "b!"), row(2, "after!")];
    let expected = names.map(|row| row.replace("after!", "after"));
    assert_eq!(published(&database), expected);
}

#[test]
fn a_writer_that_gives_up_publishes_nothing() {
    let database = orders();
    database.sql("SELECT walpost.publish_on('orders', 'd')");
    database.sql("BEGIN; INSERT INTO orders VALUES (1); ROLLBACK");
    database.sql(
        "BEGIN; INSERT INTO orders VALUES (2); SAVEPOINT s; INSERT INTO orders VALUES (3); ROLLBACK TO s; COMMIT",
    );
    let xids = "SELECT count(DISTINCT o.xid) || '/' || bool_and(o.xid = (t.xmin::text)::xid8)
        FROM walpost.outbox o JOIN orders t ON (o.body ->> 'id')::int = t.id";
    assert_eq!(database.sql(xids), "1/true");
    assert_eq!(published(&database), [r#"d - {"id": 2, "name": null}"#]);
}
