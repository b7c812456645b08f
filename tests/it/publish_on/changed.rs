//! A table that is changed afterwards: an error for the writer, never another message than before.

use super::{database, functions, orders, published, refused};

const CALL: &str = "SELECT walpost.publish_on('orders', 'd')";

#[tokio::test]
async fn a_column_that_is_renamed_or_dropped_is_an_error_for_the_writer() {
    for change in ["RENAME name TO title", "DROP name"] {
        let database = orders();
        let client = database.client().await;
        client.batch_execute(CALL).await.unwrap();
        client.batch_execute("INSERT INTO orders VALUES (1, 'x')").await.unwrap();
        database.sql(&format!("ALTER TABLE orders {change}"));
        // In a session that has written before, and in one that has not.
        for client in [client, database.client().await] {
            let error = refused(&client, "INSERT INTO orders (id) VALUES (2)").await;
            assert_eq!(error.code().code(), "42703", "{change}: {error:?}");
            let context = error.where_().unwrap();
            assert!(context.contains("walpost_publish_1_orders()"), "{context}");
            assert!(context.contains("Call walpost.publish_on again"), "{context}");
        }
        assert_eq!(published(&database).len(), 1);
        database.sql(&format!("{CALL}; INSERT INTO orders (id) VALUES (2)"));
        let expected = [r#"d - {"id": 2, "title": null}"#, r#"d - {"id": 2}"#];
        assert_eq!(published(&database), [expected[usize::from(change == "DROP name")]]);
    }
}

#[tokio::test]
async fn a_column_of_another_type_is_not_written_in_another_form() {
    let database = database();
    database.sql(
        "CREATE TABLE orders (id int PRIMARY KEY, at timestamp DEFAULT '2026-01-31', n int DEFAULT 1)",
    );
    database.sql(CALL);
    let old = database.client().await;
    old.batch_execute("INSERT INTO orders VALUES (1)").await.unwrap();
    database.sql("ALTER TABLE orders ALTER at TYPE timestamptz");
    let new = database.client().await;
    for client in [&old, &new] {
        let error = refused(client, "INSERT INTO orders VALUES (2)").await;
        assert_eq!(error.code().code(), "42804", "{error:?}");
    }
    let error = refused(&new, "INSERT INTO orders VALUES (2)").await;
    assert!(error.hint().unwrap().contains("Call walpost.publish_on again"), "{error:?}");
    // Those that have written before go on, too.
    database.sql(CALL);
    old.batch_execute("INSERT INTO orders VALUES (2)").await.unwrap();
    let all = published(&database);
    assert!(all[0].contains(r#""at": "2026-01-31T00:00:00""#), "{all:?}");
    assert!(all[1].contains(r#""at": "2026-01-31T00:00:00Z""#), "{all:?}");
}

#[test]
fn a_column_that_is_added_is_published_from_the_next_call_on() {
    let database = orders();
    database.sql(CALL);
    database.sql("ALTER TABLE orders ADD secret text; INSERT INTO orders VALUES (1, 'x', 's')");
    assert_eq!(published(&database), [r#"d - {"id": 1, "name": "x"}"#]);
    database.sql(CALL);
    database.sql("INSERT INTO orders VALUES (2, 'x', 's')");
    assert_eq!(published(&database), [r#"d - {"id": 2, "name": "x", "secret": "s"}"#]);
}

#[test]
fn a_table_may_be_renamed_moved_and_given_away() {
    let database = orders();
    let role = format!("{}_owner", database.name());
    database.sql(CALL);
    database.sql(&format!(
        "CREATE SCHEMA shop; ALTER TABLE orders RENAME TO sales; ALTER TABLE sales SET SCHEMA shop;
         CREATE ROLE {role}; GRANT CREATE, USAGE ON SCHEMA shop TO {role}; ALTER TABLE shop.sales OWNER TO {role};
         INSERT INTO shop.sales VALUES (1, 'x')"
    ));
    assert_eq!(published(&database), [r#"d - {"id": 1, "name": "x"}"#]);
    database.sql("SELECT walpost.publish_on('shop.sales', 'd', fields => '{}'); INSERT INTO shop.sales VALUES (2)");
    assert_eq!(published(&database), [r#"d - {"id": 2}"#]);
    // Its function has moved to the table, and belongs to the table's owner.
    let owner = "SELECT proowner::regrole, pronamespace::regnamespace FROM walpost.published_tables
        JOIN pg_proc ON pg_proc.oid = function";
    assert_eq!(database.sql(owner), format!("{role}|shop"));
    database.sql("SELECT walpost.unpublish('shop.sales')");
    database.sql(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"));
    assert_eq!(
        functions(&database),
        "1",
        "one is left where the table was, until the next call there"
    );
}

#[tokio::test]
async fn a_serializer_that_is_gone_or_gives_nothing_is_an_error_for_the_writer() {
    let database = orders();
    let client = database.client().await;
    database.sql(
        "CREATE FUNCTION body(orders) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb($1.name) $$;
         SELECT walpost.publish_on('orders', 'd', serializer => 'body')",
    );
    let error = refused(&client, "INSERT INTO orders VALUES (1)").await;
    assert_eq!(error.code().code(), "22004", "{error:?}");
    assert!(error.message().contains("serializer public.body has returned null"), "{error:?}");
    client.batch_execute("INSERT INTO orders VALUES (1, 'x')").await.unwrap();
    database.sql("DROP FUNCTION body");
    let error = refused(&client, "INSERT INTO orders VALUES (2, 'x')").await;
    assert_eq!(error.code().code(), "42883", "{error:?}");
    assert_eq!(published(&database), [r#"d - "x""#]);
}
