//! Holds a walpost in the middle of a step: its statement waits for a lock, before it commits.

use walpost_testkit::postgres::Database;
use walpost_testkit::{Walpost, eventually};

use crate::rig::LONG;

/// What becomes of the statement that a killed walpost leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its transaction ends with it.
    RolledBack,
    /// The server did not notice, and commits.
    Committed,
}

const LOCK: i32 = 42;

/// The steps by the statements on `walpost.relay`, and by the commands that make things.
const TRIGGERS: &str = "CREATE TABLE public.hold (step text);
    INSERT INTO public.hold VALUES ('');
    CREATE FUNCTION public.hold(wanted text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        IF EXISTS (SELECT FROM public.hold WHERE hold.step = $1) THEN
            PERFORM pg_advisory_xact_lock(42);
        END IF;
    END $$;
    CREATE FUNCTION public.hold_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM public.hold(CASE
            WHEN TG_OP = 'INSERT' THEN 'row'
            WHEN OLD.state = 'creating' THEN 'made'
            WHEN NEW.epoch <> OLD.epoch THEN 'taken'
            WHEN NEW.state <> OLD.state THEN 'done'
            WHEN NEW.recovery_cursor IS DISTINCT FROM OLD.recovery_cursor THEN 'chunk'
            ELSE 'else' END);
        RETURN NEW;
    END $$;
    CREATE FUNCTION public.hold_command() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM public.hold(TG_TAG); END $$;
    CREATE EVENT TRIGGER hold ON ddl_command_end EXECUTE FUNCTION public.hold_command();
    SET check_function_bodies = off;
    CREATE FUNCTION public.hold_relay() RETURNS void LANGUAGE sql AS
        'CREATE TRIGGER hold BEFORE INSERT OR UPDATE ON walpost.relay
            FOR EACH ROW EXECUTE FUNCTION public.hold_row()'";

/// A session that holds the lock.
pub struct Hold {
    client: tokio_postgres::Client,
}

impl Hold {
    pub async fn new(database: &Database<'_>) -> Self {
        let client = database.client().await;
        client.batch_execute(TRIGGERS).await.unwrap();
        Hold { client }
    }

    /// From now on also the steps that write to `walpost.relay`, which must be there.
    pub async fn relay(&self) {
        self.client.batch_execute("SELECT public.hold_relay()").await.unwrap();
    }

    /// A walpost that comes to this step stays there.
    pub async fn at(&self, step: &str) {
        let sql =
            format!("SELECT pg_advisory_lock({LOCK}); UPDATE public.hold SET step = '{step}'");
        self.client.batch_execute(&sql).await.unwrap();
    }

    /// Nothing is held any more.
    pub async fn nowhere(&self) {
        self.client.batch_execute("UPDATE public.hold SET step = ''").await.unwrap();
    }

    /// Waits until it is there, and kills it.
    pub async fn cut(&self, mut walpost: Walpost, cut: Cut) {
        let held = format!(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = {LOCK} AND NOT granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        let mut pid = 0;
        eventually(LONG, "walpost comes to the step", async || {
            let row = self.client.query_opt(&held, &[]).await.unwrap();
            pid = row.map_or(0, |row| row.get::<_, i32>(0));
            pid != 0
        })
        .await;
        walpost.kill();
        if cut == Cut::RolledBack {
            let end = format!("SELECT pg_terminate_backend({pid})");
            self.client.batch_execute(&end).await.unwrap();
            self.gone(pid).await;
        }
        let unlock = format!("SELECT pg_advisory_unlock({LOCK})");
        self.client.batch_execute(&unlock).await.unwrap();
        self.gone(pid).await;
    }

    async fn gone(&self, pid: i32) {
        let there = format!("SELECT FROM pg_stat_activity WHERE pid = {pid}");
        eventually(LONG, "its backend ends", async || {
            self.client.query_opt(&there, &[]).await.unwrap().is_none()
        })
        .await;
    }
}
