//! How each kind of value is written, and that no setting of the session changes it.

use serde_json::json;

use super::{bodies, database, published};

#[test]
fn values_do_not_depend_on_the_session() {
    let database = database();
    database.sql(
        "CREATE DOMAIN amount AS numeric(12, 4);
         CREATE DOMAIN deadline AS timestamptz;
         CREATE TYPE mood AS ENUM ('sad', 'happy');
         CREATE TABLE t (id uuid PRIMARY KEY, price amount, prices amount[], until deadline, at timestamptz[][],
             naive timestamp, clock time, took interval, raw bytea, raws bytea[], doc json, docb jsonb, day date,
             feeling mood, words text[], none text, nan numeric, tiny numeric, letters char(3), span int4range,
             total amount GENERATED ALWAYS AS (price * 2) STORED);
         SELECT walpost.publish_on('t', 'd', key => 'until')",
    );
    database.sql(
        r#"INSERT INTO t VALUES ('00000000-0000-0000-0000-0000000000ff', 9.5, '{1.5,NULL}',
            '2026-01-31 12:00:00.9999+00', '{{2026-01-31 12:00:00+00,2026-01-31 12:00:00.5+00}}',
            '2026-01-31 12:00:00.001', '23:59:59.9999', '-1 day +02:03:04.5', '\x00ff', '{NULL,"\\x0a"}',
            '{"b":  1,"a":[]}', '{"b": 1.10}', '2026-01-31', 'happy', '{a,"b c"}', NULL, 'NaN',
            0.0000000001, 'ab', '[1,3)')"#,
    );
    let expected = json!({
        "id": "00000000-0000-0000-0000-0000000000ff", "price": "9.5000", "prices": ["1.5000", null],
        "until": "2026-01-31T12:00:00.999Z", "at": [["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.500Z"]],
        "naive": "2026-01-31T12:00:00.001", "clock": "23:59:59.999", "took": "-1 02:03:04.500000",
        "raw": "AP8=", "raws": [null, "Cg=="], "doc": {"b": 1, "a": []}, "docb": {"b": 1.10}, "day": "2026-01-31",
        "feeling": "happy", "words": ["a", "b c"], "none": null, "nan": "NaN", "tiny": "0.0000000001",
        "letters": "ab ", "span": "[1,3)", "total": "19.0000",
    });
    assert_eq!(bodies(&database), std::slice::from_ref(&expected));

    database.sql(
        "SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German, DMY'; SET IntervalStyle = 'iso_8601';
         SET bytea_output = 'escape'; SET extra_float_digits = -10; SET standard_conforming_strings = off;
         UPDATE t SET feeling = 'happy'",
    );
    let key = database.sql("SELECT key FROM walpost.outbox");
    assert_eq!(key, "2026-01-31T12:00:00.999Z");
    assert_eq!(bodies(&database), [expected]);
}

#[test]
fn what_django_cannot_hold_is_written_as_postgresql_has_it() {
    let database = database();
    database.sql(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, naive timestamp, clock time, ratio float8, took interval);
         SELECT walpost.publish_on('t', 'd');
         INSERT INTO t VALUES (1, 'infinity', '-infinity', '24:00', 'NaN', '1 year 1 month'),
             (2, '0044-03-15 00:00 BC', '12026-01-31', NULL, '-Infinity', '-00:00:00.000001')",
    );
    assert_eq!(
        bodies(&database),
        [
            json!({"id": 1, "at": "infinity", "naive": "-infinity", "clock": "24:00:00", "ratio": "NaN",
                "took": "395 00:00:00"}),
            json!({"id": 2, "at": "0044-03-15T00:00:00+00:00 BC", "naive": "12026-01-31T00:00:00", "clock": null,
                "ratio": "-Infinity", "took": "-1 23:59:59.999999"}),
        ]
    );
}

#[test]
fn every_kind_of_primary_key_is_the_id() {
    let database = database();
    database.sql(
        "CREATE TABLE numbers (code bigint PRIMARY KEY, v int);
         CREATE TABLE texts (code text PRIMARY KEY, v int);
         CREATE TABLE uuids (v int, code uuid PRIMARY KEY);
         CREATE TABLE times (code timestamptz PRIMARY KEY, v int);
         CREATE TABLE amounts (code numeric(5, 2) PRIMARY KEY, v int);
         CREATE TABLE pairs (v int, line int, id text, PRIMARY KEY (id, line));
         CREATE TABLE only_a_key (id int PRIMARY KEY);
         SELECT walpost.publish_on(t::regclass, 'd') FROM unnest('{numbers,texts,uuids,times,amounts,pairs,only_a_key}'::text[]) t;
         INSERT INTO numbers VALUES (9007199254740993, 1);
         INSERT INTO texts VALUES (E'a\"b\\\\', 1);
         INSERT INTO uuids VALUES (1, '00000000-0000-0000-0000-0000000000ff');
         INSERT INTO times VALUES ('2026-01-31 12:00+00', 1);
         INSERT INTO amounts VALUES (1.5, 1);
         INSERT INTO pairs VALUES (1, 2, 'x');
         INSERT INTO only_a_key VALUES (7)",
    );
    let ids = [
        json!(9_007_199_254_740_993_u64),
        json!("a\"b\\"),
        json!("00000000-0000-0000-0000-0000000000ff"),
        json!("2026-01-31T12:00:00Z"),
        json!("1.50"),
        json!({"id": "x", "line": 2}),
    ];
    let mut expected: Vec<_> = ids.iter().map(|id| json!({"id": id, "v": 1})).collect();
    expected.push(json!({"id": 7}));
    assert_eq!(bodies(&database), expected);

    // The key under its own name, too, where it is asked for; a composite one is in "id".
    database.sql(
        "SELECT walpost.publish_on('numbers', 'd', fields => '{code}');
         SELECT walpost.publish_on('pairs', 'd', fields => '{line,id,v}');
         UPDATE numbers SET v = 2; UPDATE pairs SET v = 2",
    );
    let code = 9_007_199_254_740_993_u64;
    let pair = json!({"id": {"id": "x", "line": 2}, "line": 2, "v": 2});
    assert_eq!(bodies(&database), [json!({"id": code, "code": code}), pair]);
}

#[test]
fn a_table_may_be_wide_and_its_names_strange() {
    let database = database();
    let columns: Vec<_> = (0..300).map(|n| format!("c{n} int DEFAULT {n}")).collect();
    database.sql(&format!("CREATE TABLE wide (id int PRIMARY KEY, {})", columns.join(", ")));
    database.sql("SELECT walpost.publish_on('wide', 'd'); INSERT INTO wide VALUES (1)");
    let body = bodies(&database).remove(0);
    assert_eq!((body.as_object().unwrap().len(), &body["c299"]), (301, &json!(299)));

    let table = r#""E'v""il"."t'); DROP TABLE wide; --*/()$$""#;
    database.sql(&format!(
        r#"CREATE SCHEMA "E'v""il";
        CREATE TABLE {table} ("id""' %I" int PRIMARY KEY, "a'*/b" text, by text, begin text, "NEW" text, "$$\" text)"#
    ));
    let source = table.replace('\'', "''");
    let destination = r"'/q/\a''b %I %L $$ */ /*'";
    for _ in 0..2 {
        database.sql(&format!("SELECT walpost.publish_on('{source}', {destination}, key => 'by')"));
    }
    database.sql(&format!("INSERT INTO {table} VALUES (1, 'a', 'b', 'c', 'd', 'e')"));
    let expected = r#"/q/\a'b %I %L $$ */ /* b {"by": "b", "id": 1, "$$\\": "e", "NEW": "d", "a'*/b": "a", "begin": "c"}"#;
    assert_eq!(published(&database), [expected]);
    // What the function's comment says is the call itself.
    let call =
        database.sql("SELECT call FROM walpost.published_tables WHERE destination LIKE '/q/%'");
    database.sql(&call);
    database.sql(&format!("SELECT walpost.unpublish('{source}', {destination})"));
    database.sql(&format!("DELETE FROM {table}; INSERT INTO {table} VALUES (1)"));
    assert_eq!(published(&database), [""; 0]);
}
