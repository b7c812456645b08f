//! The application: transactions of one to twenty rows, some of them rolled back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use crate::ledger::{Ledger, Row};

const DESTINATIONS: [&str; 3] = ["/topic/orders", "/topic/payments", "/topic/emails"];
const MOST_ROWS: u64 = 20;
/// Between two transactions: some four hundred rows a second.
const PAUSE: Duration = Duration::from_millis(25);

/// Rows of one large transaction.
pub const LARGE: u32 = 2_000;

/// The running application. Dropping it ends it after its present transaction.
pub struct Load {
    end: Arc<AtomicBool>,
    large: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts writing to the database at `url`.
pub fn start(url: String, ledger: Arc<Ledger>) -> Load {
    let end = Arc::new(AtomicBool::new(false));
    let large = Arc::new(AtomicBool::new(false));
    let (ended, wanted) = (Arc::clone(&end), Arc::clone(&large));
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&url, NoTls).await.expect("the database is there");
            tokio::spawn(connection);
            if let Err(error) = write(&client, &ledger, &ended, &wanted).await {
                eprintln!("the application failed: {error}");
            }
        });
    });
    Load { end, large, thread: Some(thread) }
}

impl Load {
    /// The next transaction has [`LARGE`] rows.
    pub fn write_a_large_transaction(&self) {
        self.large.store(true, Ordering::Release);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn write(
    client: &Client,
    ledger: &Ledger,
    ended: &AtomicBool,
    wanted: &AtomicBool,
) -> Result<(), tokio_postgres::Error> {
    let mut numbers = [0_u64; DESTINATIONS.len()];
    let insert = client.prepare("SELECT walpost.publish($1, $2::text::jsonb)::text").await?;
    while !ended.load(Ordering::Acquire) {
        if wanted.swap(false, Ordering::AcqRel) {
            ledger.committed(&write_large(client, &mut numbers[0]).await?);
        }
        let mut next = numbers;
        let mut rows = Vec::new();
        client.batch_execute("BEGIN").await?;
        for _ in 0..fastrand::u64(1..=MOST_ROWS) {
            let which = fastrand::usize(..DESTINATIONS.len());
            next[which] += 1;
            let destination = DESTINATIONS[which];
            let body = body(which, next[which]);
            let id = client.query_one(&insert, &[&destination, &body]).await?.get(0);
            rows.push(Row { id, destination: destination.to_owned(), body });
        }
        if fastrand::u32(..10) == 0 {
            client.batch_execute("ROLLBACK").await?;
            ledger.rolled_back(&rows);
        } else {
            client.batch_execute("COMMIT").await?;
            numbers = next;
            ledger.committed(&rows);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn write_large(client: &Client, number: &mut u64) -> Result<Vec<Row>, tokio_postgres::Error> {
    let sql = "SELECT walpost.publish($1, body)::text, body::text FROM (
                   SELECT jsonb_build_object('n', n, 'total', 1) AS body
                   FROM generate_series($2::bigint, $3::bigint) n ORDER BY n) rows";
    let last = *number + u64::from(LARGE);
    let (from, to) = (*number as i64 + 1, last as i64);
    let rows = client.query(sql, &[&DESTINATIONS[0], &from, &to]).await?;
    *number = last;
    let row = |row: &tokio_postgres::Row| Row {
        id: row.get(0),
        destination: DESTINATIONS[0].to_owned(),
        body: row.get(1),
    };
    Ok(rows.iter().map(row).collect())
}

fn body(which: usize, number: u64) -> String {
    match which {
        0 => format!(r#"{{"n": {number}, "total": {}}}"#, fastrand::u32(5..500)),
        1 => format!(r#"{{"n": {number}, "paid": true}}"#),
        _ => format!(r#"{{"n": {number}, "to": "ann@example.org"}}"#),
    }
}
