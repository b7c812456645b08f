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

/// The running application. Dropping it ends it after its present transaction.
pub struct Load {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts writing to the database at `url`.
pub fn start(url: String, ledger: Arc<Ledger>) -> Load {
    let end = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&end);
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&url, NoTls).await.expect("the database is there");
            tokio::spawn(connection);
            if let Err(error) = write(&client, &ledger, &ended).await {
                eprintln!("the application failed: {error}");
            }
        });
    });
    Load { end, thread: Some(thread) }
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
) -> Result<(), tokio_postgres::Error> {
    let mut numbers = [0_u64; DESTINATIONS.len()];
    let insert = client.prepare("SELECT walpost.publish($1, $2::text::jsonb)::text").await?;
    while !ended.load(Ordering::Acquire) {
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

fn body(which: usize, number: u64) -> String {
    match which {
        0 => format!(r#"{{"n": {number}, "total": {}}}"#, fastrand::u32(5..500)),
        1 => format!(r#"{{"n": {number}, "paid": true}}"#),
        _ => format!(r#"{{"n": {number}, "to": "ann@example.org"}}"#),
    }
}
