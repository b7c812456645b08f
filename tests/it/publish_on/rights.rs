//! `walpost_writer` may publish and nothing else; a trigger has the rights of whoever writes.

use tokio_postgres::Client;
use walpost_testkit::Postgres;
use walpost_testkit::postgres::Database;

use super::{database, orders, published, refused};
use crate::init;
use crate::rig::{LONG, walpost};

/// A role of this database; ended on drop.
struct Role<'a> {
    database: &'a Database<'static>,
    name: String,
}

impl<'a> Role<'a> {
    fn new(database: &'a Database<'static>, kind: &str) -> Self {
        let name = format!("{}_{kind}", database.name());
        database.sql(&format!("CREATE ROLE {name} LOGIN"));
        Role { database, name }
    }

    fn writer(database: &'a Database<'static>) -> Self {
        let role = Self::new(database, "writer");
        database.sql(&format!("GRANT walpost_writer TO {}", role.name));
        role
    }

    async fn client(&self) -> Client {
        let url = self.database.url().replace("postgres@", &format!("{}@", self.name));
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let sql = format!("DROP OWNED BY {0} CASCADE; DROP ROLE {0}", self.name);
        let _ = self.database.server().try_sql(self.database.name(), &sql);
    }
}

const MAY: [&str; 7] = [
    "SELECT walpost.emit('d', '{}')",
    "SELECT walpost.emit_bytes('d', '\\x00')",
    "SELECT walpost.publish('d', '{}')",
    "SELECT walpost.publish_bytes('d', '\\x00', NULL, 'k', '{\"a\": \"b\"}')",
    "INSERT INTO walpost.outbox (destination, body) VALUES ('d', '{}')",
    "INSERT INTO walpost.outbox (id, destination, version, key, headers, body_bytes, created_at)
         VALUES (gen_random_uuid(), 'd', 'v1', 'k', '{}', '', now())",
    "SELECT source FROM walpost.published_tables",
];

const MAY_NOT: [&str; 25] = [
    "SELECT id FROM walpost.outbox",
    "SELECT xid FROM walpost.outbox",
    "SELECT count(*) FROM walpost.outbox",
    "UPDATE walpost.outbox SET destination = 'x'",
    "DELETE FROM walpost.outbox",
    "TRUNCATE walpost.outbox",
    "DO $$ BEGIN LOCK TABLE walpost.outbox IN ACCESS EXCLUSIVE MODE; END $$",
    "INSERT INTO walpost.outbox (destination, xid) VALUES ('d', '3')",
    "INSERT INTO walpost.outbox (destination) VALUES ('d') RETURNING id",
    "INSERT INTO walpost.outbox (id, destination) VALUES (gen_random_uuid(), 'd')
         ON CONFLICT (id) DO UPDATE SET destination = 'x'",
    "CREATE TRIGGER t AFTER INSERT ON walpost.outbox EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "ALTER TABLE walpost.outbox DISABLE TRIGGER ALL",
    "ALTER TABLE walpost.outbox SET UNLOGGED",
    "DROP TABLE walpost.outbox",
    "SELECT slot FROM walpost.relay",
    "UPDATE walpost.relay SET epoch = 99",
    "SELECT id FROM walpost.undelivered",
    "DELETE FROM walpost.undelivered",
    "SELECT version FROM walpost.schema_version",
    "CREATE TABLE walpost.mine (a int)",
    "CREATE FUNCTION walpost.publish(text, text) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
    "ALTER FUNCTION walpost.new_id() RENAME TO old_id",
    "SELECT walpost.publish_on('orders', 'd')",
    "SELECT walpost.unpublish('orders', 'theirs')",
    "INSERT INTO orders VALUES (2)",
];

#[tokio::test]
async fn a_writer_may_publish_and_nothing_else() {
    let database = orders();
    database.sql("SELECT walpost.publish_on('orders', 'theirs')");
    // emit refuses where nobody would see it.
    let name = database.name();
    database.sql(&format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')"));
    let role = Role::writer(&database);
    let client = role.client().await;
    for sql in MAY {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    assert_eq!(
        database.sql("SELECT count(*), bool_and(xid < pg_current_xact_id()) FROM walpost.outbox"),
        "4|t"
    );
    for sql in MAY_NOT {
        let error = refused(&client, sql).await;
        assert_eq!(error.code().code(), "42501", "{sql}: {error:?}");
    }
    // Without the role, nothing at all.
    let other = Role::new(&database, "other");
    let client = other.client().await;
    for sql in MAY.iter().chain(&MAY_NOT[..21]) {
        let error = refused(&client, sql).await;
        assert_eq!(error.code().code(), "42501", "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn a_trigger_needs_of_its_writer_the_role_and_the_table() {
    let database = orders();
    let (writer, other) = (Role::writer(&database), Role::new(&database, "other"));
    database.sql(&format!(
        "CREATE FUNCTION body(orders) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object('who', current_user) $$;
         GRANT INSERT ON orders TO {}, {};
         SELECT walpost.publish_on('orders', 'a', key => 'name'); SELECT walpost.publish_on('orders', 'b', serializer => 'body')",
        writer.name, other.name
    ));
    writer.client().await.batch_execute("INSERT INTO orders VALUES (1, 'x')").await.unwrap();
    let error = refused(&other.client().await, "INSERT INTO orders VALUES (2, 'x')").await;
    assert_eq!(error.code().code(), "42501", "{error:?}");
    let who = format!(r#"b - {{"who": "{}"}}"#, writer.name);
    assert_eq!(published(&database), [r#"a x {"id": 1, "name": "x"}"#.to_owned(), who]);
    assert_eq!(database.sql("SELECT count(*) FROM orders"), "1");
}

#[tokio::test]
async fn names_in_front_of_ours_change_nothing() {
    let database = database();
    let writer = Role::writer(&database);
    database.sql(&format!(
        "CREATE TABLE orders (id int, line int, at timestamptz, price numeric, prices numeric[], raw bytea, clock time,
             took interval, PRIMARY KEY (id, line));
         SELECT walpost.publish_on('orders', 'd', key => 'id', events => '{{insert,update,delete}}');
         GRANT INSERT ON orders TO {0}; GRANT CREATE ON DATABASE {1} TO {0}",
        writer.name,
        database.name()
    ));
    let client = writer.client().await;
    let trap = "$$ BEGIN RAISE 'trapped'; END $$";
    client
        .batch_execute(&format!(
            "CREATE SCHEMA evil;
             CREATE TEMPORARY TABLE outbox (destination text); CREATE TEMPORARY TABLE pg_class (oid oid);
             CREATE TEMPORARY TABLE pg_trigger (oid oid);
             CREATE FUNCTION evil.jsonb_build_object(text, int, text, int) RETURNS jsonb LANGUAGE plpgsql AS {trap};
             CREATE FUNCTION evil.pg_typeof(timestamptz) RETURNS regtype LANGUAGE plpgsql AS {trap};
             CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE plpgsql AS {trap};
             CREATE FUNCTION evil.to_char(timestamp, text) RETURNS text LANGUAGE plpgsql AS {trap};
             CREATE FUNCTION evil.gen_random_uuid() RETURNS uuid LANGUAGE plpgsql AS {trap};
             CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS {trap};
             CREATE FUNCTION evil.oid_ne(oid, oid) RETURNS boolean LANGUAGE plpgsql AS {trap};
             CREATE OPERATOR evil.<> (FUNCTION = evil.oid_ne, LEFTARG = oid, RIGHTARG = oid);
             CREATE FUNCTION evil.ge(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS {trap};
             CREATE OPERATOR evil.>= (FUNCTION = evil.ge, LEFTARG = timestamptz, RIGHTARG = timestamptz);
             CREATE FUNCTION evil.arrow(jsonb, int) RETURNS text LANGUAGE plpgsql AS {trap};
             CREATE OPERATOR evil.->> (FUNCTION = evil.arrow, LEFTARG = jsonb, RIGHTARG = int);
             SET search_path = evil, pg_temp, pg_catalog"
        ))
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    let error = refused(&client, "SELECT lower('A')").await;
    assert_eq!(error.message(), "trapped");
    client
        .batch_execute(
            "INSERT INTO public.orders VALUES (1, 2, '2026-01-31 12:00+00', 1.50, '{1.5}', '\\x00', '12:00', '1 s');
             SELECT walpost.publish('e', '{}')",
        )
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    let body = r#"{"at": "2026-01-31T12:00:00Z", "id": {"id": 1, "line": 2}, "raw": "AA==", "took": "00:00:01", "clock": "12:00:00", "price": "1.50", "prices": ["1.5"]}"#;
    let first = format!(r#"d 1 {{"event": "insert"}} {body}"#);
    assert_eq!(published(&database), [first, "e - {}".to_owned()]);
}

#[tokio::test]
async fn the_owner_of_a_table_needs_no_more_than_that() {
    let database = orders();
    let (owner, member) = (Role::writer(&database), Role::new(&database, "member"));
    let (o, m) = (&owner.name, &member.name);
    database.sql(&format!(
        "CREATE SCHEMA shop AUTHORIZATION {o}; ALTER TABLE orders SET SCHEMA shop; ALTER TABLE shop.orders OWNER TO {o};
         GRANT {o} TO {m}"
    ));
    let client = member.client().await;
    client.batch_execute("SELECT walpost.publish_on('shop.orders', 'd')").await.unwrap();
    let client = owner.client().await;
    client
        .batch_execute(
            "SELECT walpost.publish_on('shop.orders', 'd', fields => '{}'); INSERT INTO shop.orders VALUES (1);
             SELECT walpost.unpublish('shop.orders'); INSERT INTO shop.orders VALUES (2)",
        )
        .await
        .unwrap();
    assert_eq!(published(&database), [r#"d - {"id": 1}"#]);
    // The function is put beside the table.
    database
        .sql(&format!("ALTER SCHEMA shop OWNER TO postgres; GRANT USAGE ON SCHEMA shop TO {o}"));
    let error = refused(&client, "SELECT walpost.publish_on('shop.orders', 'd')").await;
    assert_eq!(error.code().code(), "42501", "{error:?}");
    assert_eq!(error.message(), "permission denied for schema shop");
}

#[test]
fn an_installer_who_may_make_no_roles_is_told_what_to_run() {
    // Roles are the whole server's: one of our own.
    let server = Postgres::builder().fast().start();
    server
        .sql("postgres", "CREATE ROLE installer LOGIN REPLICATION; GRANT pg_monitor TO installer");
    for database in ["shop", "other"] {
        server.create_database(database);
        server.sql("postgres", &format!("ALTER DATABASE {database} OWNER TO installer"));
    }
    let init = |database: &str| {
        let url = server.url(database).replace("postgres@", "installer@");
        walpost().arguments(["init"]).set("postgres.url", url).set("replication.slot", database)
    };
    let note = "note: role walpost_writer, which may publish and nothing else, does not exist";
    for _ in 0..2 {
        let done = init("shop").output(LONG);
        assert!(done.status.success() && done.stdout.contains(note), "{done:?}");
    }
    let script = || init("shop").arguments(["init", "--dry-run"]).output(LONG).stdout;
    assert!(script().contains("\nCREATE ROLE walpost_writer NOLOGIN;"), "{}", script());
    init::psql(&server, "shop", &script());
    assert!(!script().contains("CREATE ROLE walpost_writer"), "{}", script());
    let done = init("shop").output(LONG);
    assert!(done.status.success() && !done.stdout.contains("walpost_writer"), "{done:?}");
    // Now that the role is there, another database's schema gives it its rights by itself.
    let done = init("other").output(LONG);
    assert!(done.status.success() && !done.stdout.contains("walpost_writer"), "{done:?}");
    server.sql("postgres", "CREATE ROLE app LOGIN; GRANT walpost_writer TO app");
    for database in ["shop", "other"] {
        server.sql(database, "SET ROLE app; SELECT walpost.publish('d', '{}')");
    }
}

#[test]
fn two_databases_may_be_set_up_at_once() {
    let server = Postgres::builder().fast().start();
    let databases: Vec<_> = (0..4).map(|n| format!("shop_{n}")).collect();
    databases.iter().for_each(|database| server.create_database(database));
    let schema = walpost::store::schema::upgrade_sql(0);
    std::thread::scope(|scope| {
        for database in &databases {
            scope.spawn(|| init::psql(&server, database, &schema));
        }
    });
    for database in &databases {
        server.sql(database, "SET ROLE walpost_writer; SELECT walpost.publish('d', '{}')");
    }
}
