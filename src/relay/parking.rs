//! The parker: messages of destinations that the broker refuses are kept in `walpost.undelivered`, on a SQL
//! connection of its own. One job of the engine's at a time; what became of one that was not answered is
//! not known, and it comes again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::first_start::{FirstStart, GRANT_REMEDY};
use super::progress::Holding;
use crate::engine::{InTable, Outcome, Outgoing, Stored, TxId};
use crate::outbox::{Message, TableId};
use crate::pgoutput::PgTime;
use crate::source::Origin;
use crate::store::marking::Holder;
use crate::store::undelivered::{Attempt, KeptRow, NewRow};
use crate::store::{Server, Store, StoreError};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often tombstones are looked for that are of no use any more.
const PRUNE_EACH: Duration = Duration::from_secs(60);

/// A job, and for whom.
pub(super) struct Work {
    /// The session that has the slot.
    pub(super) holding: Holding,
    /// Its server: the table is that one's, whatever other hosts of the url accept writes.
    pub(super) origin: Origin,
    /// The wall clock, for messages of which no commit is known.
    pub(super) now: PgTime,
    pub(super) task: Task,
}

/// A job of the engine's, in the store's terms.
pub(super) enum Task {
    Keep(Vec<NewRow>),
    Attempt { destination: String, newest_dead: bool, wait: Duration },
    Load { destination: String, after: i64, messages: usize, bytes: usize },
    Delivered(Vec<i64>),
    Note { id: i64, attempts: u32, words: String, next_in: Duration },
    Condemn { destination: String },
    Look,
}

/// What became of it.
pub(super) struct Answer {
    pub(super) outcome: Outcome<Message>,
    /// Why nothing came of it.
    pub(super) error: Option<String>,
    /// How many messages died of it.
    pub(super) dead: u64,
    /// What is in the table: messages that are sent again, and dead ones.
    pub(super) counts: Option<(u64, u64)>,
}

impl Answer {
    fn of(outcome: Outcome<Message>) -> Self {
        Answer { outcome, error: None, dead: 0, counts: None }
    }

    fn failed(error: impl ToString) -> Self {
        Answer { error: Some(error.to_string()), ..Answer::of(Outcome::Failed) }
    }
}

/// Works until it is aborted; comes back when its connection is lost.
pub(super) async fn run(
    wanted: Arc<FirstStart>,
    max_frame_size: usize,
    mut work: mpsc::Receiver<Work>,
    answers: mpsc::Sender<Answer>,
) {
    let mut parker = Parker { wanted, max_frame_size, connected: None, pruned: Instant::now() };
    while let Some(work) = work.recv().await {
        if answers.send(parker.take(work).await).await.is_err() {
            return;
        }
    }
}

struct Parker {
    wanted: Arc<FirstStart>,
    max_frame_size: usize,
    connected: Option<(Store, Origin)>,
    pruned: Instant,
}

/// Several hosts of the url accept writes.
const OTHER_SERVER: &str =
    "the host of postgres.url that accepts writes first is not the server whose slot is held";
/// The slot is no longer ours on that server: the session will end, or has.
const NOT_HELD: &str = "the slot is not held by this walpost any more";

impl Parker {
    async fn take(&mut self, work: Work) -> Answer {
        let error = match tokio::time::timeout(PATIENCE, self.work(work)).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => error,
            Err(_) => StoreError::Timeout {
                what: "writing walpost.undelivered",
                server: "PostgreSQL".to_owned(),
                after: PATIENCE,
            },
        };
        self.connected = None;
        match error.code() {
            Some("42501") => Answer::failed(format_args!("{error}; {GRANT_REMEDY}")),
            _ => Answer::failed(error),
        }
    }

    async fn work(&mut self, work: Work) -> Result<Answer, StoreError> {
        self.connected.take_if(|(_, origin)| *origin != work.origin);
        let store = match &mut self.connected {
            Some((store, _)) => store,
            None => {
                let store = Store::connect(&self.wanted.sql).await?;
                let Server { system_identifier, timeline, .. } = store.server().await?;
                if work.origin != (Origin { system_identifier, timeline }) {
                    return Ok(Answer::failed(OTHER_SERVER));
                }
                &mut self.connected.insert((store, work.origin)).0
            }
        };
        let slot = &self.wanted.source.slot;
        let marks = &self.wanted.setup.marks;
        let Holding { epoch, walsender, .. } = work.holding;
        let holder = Holder { slot, epoch, walsender };
        let make = Make { wanted: &self.wanted, max: self.max_frame_size, now: work.now };
        let done = |held: bool| match held {
            true => Answer::of(Outcome::Done),
            false => Answer::failed(NOT_HELD),
        };
        Ok(match work.task {
            Task::Keep(rows) => match store.keep(holder, &rows, marks).await? {
                Some(position) => {
                    let dead = rows.iter().filter(|row| row.is_dead());
                    let dead = dead.count() as u64;
                    Answer { dead, ..Answer::of(Outcome::Kept(position)) }
                }
                None => Answer::failed(NOT_HELD),
            },
            Task::Attempt { destination, newest_dead, wait } => loop {
                let attempt = store.attempt(holder, &destination, newest_dead, wait).await?;
                let row = match attempt {
                    Attempt::NotHeld => break Answer::failed(NOT_HELD),
                    Attempt::Nothing => break Answer::of(Outcome::Attempted(None)),
                    Attempt::Row(row) => row,
                };
                match make.stored(&row) {
                    Ok(stored) => break Answer::of(Outcome::Attempted(Some(Box::new(stored)))),
                    Err(why) => bury(store, holder, &row, &why).await?,
                }
            },
            Task::Load { destination, after, messages, bytes } => {
                let Some(loaded) = store.load(holder, &destination, after, messages, bytes).await?
                else {
                    return Ok(Answer::failed(NOT_HELD));
                };
                let mut rows = Vec::with_capacity(loaded.rows.len());
                for row in &loaded.rows {
                    match make.stored(row) {
                        Ok(stored) => rows.push(stored),
                        Err(why) => bury(store, holder, row, &why).await?,
                    }
                }
                Answer::of(Outcome::Loaded { rows, unread: loaded.unread })
            }
            Task::Delivered(ids) => done(store.delivered(holder, &ids).await?),
            Task::Note { id, attempts, words, next_in } => {
                done(store.note(holder, id, attempts, &words, next_in).await?)
            }
            Task::Condemn { destination } => {
                match store.condemn(holder, &destination, marks).await? {
                    Some(dead) => Answer { dead, ..Answer::of(Outcome::Done) },
                    None => Answer::failed(NOT_HELD),
                }
            }
            Task::Look => {
                let parked = store.parked(slot).await?;
                if self.pruned.elapsed() >= PRUNE_EACH {
                    self.pruned = Instant::now();
                    if let Err(error) = store.prune_discarded(slot).await {
                        debug!("{error}");
                    }
                }
                let found = parked.destinations.into_iter().map(|of| InTable {
                    destination: of.destination,
                    rows: of.retrying,
                    attempts: of.attempts,
                    next_in: of.next_in,
                    words: of.error,
                });
                let outcome = Outcome::Looked(found.collect());
                Answer { counts: Some((parked.retrying, parked.dead)), ..Answer::of(outcome) }
            }
        })
    }
}

/// A row that can't be sent, as the settings are now, is dead.
async fn bury(
    store: &Store,
    holder: Holder<'_>,
    row: &KeptRow,
    why: &str,
) -> Result<(), StoreError> {
    warn!("row {} of walpost.undelivered can't be sent: {why}", row.id);
    store.bury(holder, row.id, why).await.map(|_| ())
}

/// Makes messages of rows.
struct Make<'a> {
    wanted: &'a FirstStart,
    max: usize,
    now: PgTime,
}

impl Make<'_> {
    fn stored(&self, row: &KeptRow) -> Result<Stored<Message>, String> {
        let KeptRow { id, attempts, identity, .. } = row;
        let body = row.body.as_deref().ok_or("its body was not kept")?;
        let message = Message::kept(
            row.message_id.as_deref().unwrap_or_default(),
            row.destination.as_deref().unwrap_or_default(),
            row.key.as_deref().unwrap_or_default(),
            &row.headers,
            body,
            self.table(row),
            self.max,
        );
        let message = message.map_err(|reason| reason.to_string())?;
        let transaction = identity.map(|of| TxId {
            commit_lsn: of.commit_lsn,
            xid: of.xid,
            commit_time: of.commit_time,
        });
        Ok(Stored {
            id: *id,
            attempts: *attempts,
            transaction,
            commit_time: transaction.map_or(self.now, |transaction| transaction.commit_time),
            outgoing: Outgoing {
                key_hash: message.key_hash(),
                size: message.size(),
                marks: message.table().is_some(),
                unfit: false,
                payload: message,
            },
        })
    }

    /// The table whose row is to be marked.
    fn table(&self, row: &KeptRow) -> Option<TableId> {
        let (oid, name) = row.table.as_ref()?;
        let marks = &self.wanted.setup.marks;
        let place = marks.iter().position(|table| table.table.to_string() == *name)?;
        Some(TableId { place: u16::try_from(place).ok()?, oid: *oid })
    }
}
