//! What can't be meant is refused at the call, with what to type.

use tokio_postgres::Client;

use super::{database, functions, refused};

const SCHEMA: &str = "
    CREATE TABLE t (id int PRIMARY KEY, name text);
    CREATE TABLE no_key (id int, name text);
    CREATE TABLE two_ids (code int PRIMARY KEY, id int);
    CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE VIEW a_view AS SELECT * FROM t;
    CREATE MATERIALIZED VIEW a_copy AS SELECT * FROM t;
    CREATE SEQUENCE a_sequence;
    CREATE FOREIGN DATA WRAPPER nobody; CREATE SERVER nowhere FOREIGN DATA WRAPPER nobody;
    CREATE FOREIGN TABLE foreign_one (id int) SERVER nowhere;
    CREATE FUNCTION as_json(t) RETURNS json LANGUAGE sql AS $$ SELECT to_json($1) $$;
    CREATE FUNCTION of_text(text) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb($1) $$;
    CREATE FUNCTION of_two(t, int DEFAULT 1) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb($1) $$;
    CREATE FUNCTION of_many(VARIADIC t[]) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb($1) $$;
    CREATE FUNCTION a_set(t) RETURNS SETOF jsonb LANGUAGE sql AS $$ SELECT to_jsonb($1) $$;
    CREATE FUNCTION of_other(two_ids) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb($1) $$;
    CREATE FUNCTION of_t(t) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb($1) $$";

/// Arguments, SQLSTATE, a part of the message and one of the hint.
const WRONG: &[(&str, &str, &str, &str)] = &[
    ("NULL, 'd'", "22004", "must be given", "SELECT walpost.publish_on('orders'"),
    ("'t', NULL", "22004", "must be given", "SELECT walpost.publish_on('orders'"),
    ("'t', ''", "22004", "must be given", "SELECT walpost.publish_on('orders'"),
    ("'a_view', 'd'", "42809", "public.a_view is a view", "Name the table"),
    ("'a_copy', 'd'", "42809", "public.a_copy is a materialized view", "Name the table"),
    ("'a_sequence', 'd'", "42809", "public.a_sequence is no table", "Name the table"),
    ("'t_pkey', 'd'", "42809", "public.t_pkey is no table", "Name the table"),
    ("'foreign_one', 'd'", "42809", "public.foreign_one is a foreign table", "Name the table"),
    ("'pg_temp.temporary', 'd'", "42809", "temporary is a temporary table", "Name the table"),
    ("'walpost.outbox', 'd'", "42809", "walpost.outbox is one of walpost's own", "Name the table"),
    ("'no_key', 'd'", "42P16", "public.no_key has no primary key", "ALTER TABLE public.no_key ADD"),
    ("'two_ids', 'd'", "42701", "public.two_ids, which has another column id", "without id"),
    ("'two_ids', 'd', '{id}'", "42701", "which has another column id", "without id"),
    ("'t', 'd', '{name,nmae}'", "42703", "public.t has no column 'nmae'", "Its columns: id, name"),
    ("'t', 'd', ARRAY[NULL]", "42703", "public.t has no column null", "Its columns: id, name"),
    ("'t', 'd', '{ctid}'", "42703", "public.t has no column 'ctid'", "Its columns: id, name"),
    ("'t', 'd', '{x}', 'of_t'", "42703", "public.t has no column 'x'", "Its columns: id, name"),
    ("'t', 'd', key => 'x'", "42703", "public.t has no column 'x'", "Its columns: id, name"),
    ("'t', 'd', key => ''", "42703", "public.t has no column ''", "Its columns: id, name"),
    ("'t', 'd', events => NULL", "22023", "no such event: none at all", "'{insert,update}'"),
    ("'t', 'd', events => '{}'", "22023", "no such event: none at all", "'{insert,update}'"),
    ("'t', 'd', events => '{insert,truncate}'", "22023", "event: 'truncate'", "'{insert,update}'"),
    ("'t', 'd', events => '{INSERT}'", "22023", "no such event: 'INSERT'", "'{insert,update}'"),
    ("'t', 'd', events => ARRAY['update', NULL]", "22023", "no such event", "'{insert,update}'"),
    ("'parts', 'd', events => '{update}'", "22023", "must hold insert", "'{insert,update}'"),
    ("'t', 'd', serializer => 'as_json'", "42P13", "function as_json(t) does not", "(public.t)"),
    ("'t', 'd', serializer => 'of_text'", "42P13", "function of_text(text) does not", "(public.t)"),
    ("'t', 'd', serializer => 'of_two'", "42P13", "of_two(t,integer) does not", "(public.t)"),
    ("'t', 'd', serializer => 'of_many'", "42P13", "of_many(", "(public.t)"),
    ("'t', 'd', serializer => 'a_set'", "42P13", "a_set(t) does not", "(public.t)"),
    ("'t', 'd', serializer => 'of_other'", "42P13", "of_other(two_ids) does not", "(public.t)"),
    ("'t', 'd', serializer => 'pg_catalog.bool_and'", "42P13", "does not turn", "(public.t)"),
];

async fn stage() -> (walpost_testkit::postgres::Database<'static>, Client) {
    let database = database();
    database.sql(SCHEMA);
    let client = database.client().await;
    client.batch_execute("CREATE TEMPORARY TABLE temporary (id int PRIMARY KEY)").await.unwrap();
    (database, client)
}

#[tokio::test]
async fn wrong_arguments_are_refused_with_what_to_type() {
    let (database, client) = stage().await;
    for (arguments, code, message, hint) in WRONG {
        let error = refused(&client, &format!("SELECT walpost.publish_on({arguments})")).await;
        assert_eq!(error.code().code(), *code, "{arguments}: {error:?}");
        let said =
            error.message().replace("public.as_json", "as_json").replace("public.of_", "of_");
        let said = said.replace("public.a_set", "a_set").replace("(public.t", "(t");
        let said = said.replace("(public.two_ids", "(two_ids");
        assert!(said.contains(message), "{arguments}: {error:?}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{arguments}: {error:?}");
    }
    for missing in ["'nope', 'd'", "'t', 'd', serializer => 'nope'"] {
        let error = refused(&client, &format!("SELECT walpost.publish_on({missing})")).await;
        assert!(error.message().contains("\"nope\" does not exist"), "{error:?}");
    }
    let error = refused(&client, "SELECT walpost.unpublish(NULL)").await;
    assert_eq!(error.code().code(), "22004");
    assert_eq!(functions(&database), "0");
    assert_eq!(database.sql("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"), "0");
}

#[tokio::test]
async fn what_is_near_to_them_is_taken() {
    let (database, client) = stage().await;
    for right in [
        "'t', 'd'",
        "'two_ids', 'd', '{code}'",
        "'no_key', 'd', serializer => 'of_record'",
        "'parts', 'd', events => '{delete}'",
        "'t', 'd', '{name}', 'of_t', NULL, 'id', '{delete,insert}'",
        "'t', 'd', serializer => 'pg_catalog.to_jsonb'",
    ] {
        database.sql(
            "CREATE OR REPLACE FUNCTION of_record(record) RETURNS jsonb LANGUAGE plpgsql AS
            $$ BEGIN RETURN to_jsonb($1); END $$",
        );
        client.batch_execute(&format!("SELECT walpost.publish_on({right})")).await.unwrap();
    }
    database.sql("INSERT INTO two_ids VALUES (1, 2); INSERT INTO no_key VALUES (3, 'x'); INSERT INTO t VALUES (4)");
    assert_eq!(
        super::published(&database),
        [
            r#"d - {"id": 1, "code": 1}"#,
            r#"d - {"id": 3, "name": "x"}"#,
            r#"d - {"id": 4, "name": null}"#,
        ]
    );
}

/// They have no value when a trigger looks.
#[tokio::test]
async fn virtual_generated_columns_are_refused() {
    let database = database();
    let client = database.client().await;
    let create =
        "CREATE TABLE v (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) VIRTUAL)";
    if database.server().major() < 18 {
        assert_eq!(refused(&client, create).await.code().code(), "42601");
        return;
    }
    client.batch_execute(create).await.unwrap();
    for arguments in ["", ", '{twice}'", ", '{n}', key => 'twice'"] {
        let error =
            refused(&client, &format!("SELECT walpost.publish_on('v', 'd'{arguments})")).await;
        assert_eq!(error.code().code(), "42P10", "{error:?}");
        assert!(error.hint().unwrap().contains("STORED"), "{error:?}");
    }
    client
        .batch_execute("SELECT walpost.publish_on('v', 'd', '{n}'); INSERT INTO v VALUES (1, 2)")
        .await
        .unwrap();
    assert_eq!(super::published(&database), [r#"d - {"n": 2, "id": 1}"#]);
}
