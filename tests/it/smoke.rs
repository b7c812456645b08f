//! Each fixture starts, works, is killed, comes back, and leaves no process.

use walpost_testkit::{Postgres, RabbitMq};

#[test]
fn postgres_comes_back_after_each_kind_of_end() {
    let server = Postgres::start();
    server.sql("postgres", "CREATE TABLE t (a int)");
    for end in [Postgres::kill, Postgres::stop_immediate, Postgres::stop_fast] {
        server.sql("postgres", "INSERT INTO t VALUES (1)");
        end(&server);
        assert!(server.try_sql("postgres", "SELECT 1").is_err());
        assert_eq!(server.folder().processes(), Vec::<i32>::new());
        server.restart();
    }
    assert_eq!(server.sql("postgres", "SELECT count(*) FROM t"), "3");
}

#[test]
fn rabbitmq_comes_back_after_a_kill() {
    let broker = RabbitMq::start();
    broker.default_vhost().declare_queue("q");
    broker.kill();
    assert_eq!(broker.folder().processes(), Vec::<i32>::new());
    broker.restart();
    assert!(broker.default_vhost().queue("q").is_object());
}
