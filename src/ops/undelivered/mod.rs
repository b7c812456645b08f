//! `walpost undelivered`: what the broker refuses, and what an operator does about it. States alone are changed in the
//! table, so that it works whether a relay runs or not.

mod list;
mod show;

use bytes::Bytes;

use crate::store::marking::MarkedTable;
use crate::store::name::one_line;
use crate::store::undelivered::{Fact, Filter, RowState, Which};
use crate::store::{ConnectSettings, Store, StoreError};

/// Where an operator asks.
#[derive(Clone, Debug)]
pub struct Counter {
    /// How SQL is spoken.
    pub connect: ConnectSettings,
    /// The slot whose messages are meant.
    pub slot: String,
    /// Tables whose rows say what became of their messages.
    pub marks: Vec<MarkedTable>,
}

/// What is to be listed.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Which messages.
    pub filter: Filter,
    /// At most so many.
    pub most: Option<u32>,
    /// How many columns a line has; none: as many as it takes.
    pub width: Option<usize>,
}

/// Why it could not be done. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum UndeliveredError {
    /// PostgreSQL could not be reached or asked.
    #[error(transparent)]
    Store(StoreError),
    /// The schema is not there, or older.
    #[error("table walpost.undelivered does not exist: 'walpost init' makes it")]
    NoTable,
    /// The role lacks a right.
    #[error("{0}; 'walpost init --dry-run' prints the grants that it takes")]
    Denied(#[source] StoreError),
    /// There are no such messages.
    #[error(
        "there is no message {ids} of slot {slot}: it was delivered, or the number is wrong ('walpost undelivered \
         list' shows what there is){unchanged}"
    )]
    Unknown {
        /// The numbers.
        ids: String,
        /// The slot.
        slot: String,
        /// What this means for the others.
        unchanged: &'static str,
    },
    /// Nothing of it can be retried.
    #[error(
        "no message to {destination} waits in slot {slot}: 'walpost undelivered list' shows which destinations there are"
    )]
    NothingTo {
        /// The destination.
        destination: String,
        /// The slot.
        slot: String,
    },
    /// They can't be sent.
    #[error(
        "message {ids} can't be sent, since {why}: publish it anew, then 'walpost undelivered discard {ids}'; \
         nothing was changed"
    )]
    Unsendable {
        /// The numbers.
        ids: String,
        /// What is missing.
        why: &'static str,
    },
    /// They were thrown away.
    #[error(
        "message {0} was discarded, and its body is gone: publish it anew; nothing was changed"
    )]
    Discarded(String),
    /// There is no body to write.
    #[error("message {0} has no body: it was discarded, or was too long to be kept")]
    NoBody(i64),
}

impl From<StoreError> for UndeliveredError {
    fn from(error: StoreError) -> Self {
        match error.code() {
            Some("42P01" | "3F000") => UndeliveredError::NoTable,
            Some("42501") => UndeliveredError::Denied(error),
            _ => UndeliveredError::Store(error),
        }
    }
}

impl Counter {
    async fn store(&self) -> Result<Store, StoreError> {
        let store = Store::connect(&self.connect).await?;
        store.take_time().await?;
        Ok(store)
    }

    /// The list, for people.
    ///
    /// # Errors
    /// [`UndeliveredError`].
    pub async fn list(&self, listing: &Listing) -> Result<String, UndeliveredError> {
        let store = self.store().await?;
        let rows = store.undelivered(&self.slot, &listing.filter, listing.most).await?;
        let counted = store.count_undelivered(&self.slot, &listing.filter).await?;
        Ok(list::text(&self.slot, &rows, &counted, listing.width))
    }

    /// The list, a JSON object a line.
    ///
    /// # Errors
    /// [`UndeliveredError`].
    pub async fn list_json(&self, listing: &Listing) -> Result<String, UndeliveredError> {
        let store = self.store().await?;
        let rows = store.undelivered(&self.slot, &listing.filter, listing.most).await?;
        Ok(rows.iter().map(list::json).collect())
    }

    /// One message, for people.
    ///
    /// # Errors
    /// [`UndeliveredError::Unknown`] among others.
    pub async fn show(&self, id: i64) -> Result<String, UndeliveredError> {
        let shown = self.store().await?.show_undelivered(&self.slot, id).await?;
        shown.map(|shown| show::text(&shown)).ok_or_else(|| self.unknown(&[id], ""))
    }

    /// Its body.
    ///
    /// # Errors
    /// [`UndeliveredError::NoBody`] among others.
    pub async fn body(&self, id: i64) -> Result<Bytes, UndeliveredError> {
        let shown = self.store().await?.show_undelivered(&self.slot, id).await?;
        let shown = shown.ok_or_else(|| self.unknown(&[id], ""))?;
        shown.body.ok_or(UndeliveredError::NoBody(id))
    }

    /// Has messages sent again; says what was done.
    ///
    /// # Errors
    /// [`UndeliveredError`]: nothing was changed.
    pub async fn retry(&self, which: &Which) -> Result<String, UndeliveredError> {
        let store = self.store().await?;
        if let Which::Ids(ids) = which {
            let facts = self.facts(&store, ids).await?;
            let those = |is: fn(&Fact) -> bool| {
                let ids: Vec<_> =
                    facts.iter().filter(|fact| is(fact)).map(|fact| fact.id).collect();
                (!ids.is_empty()).then(|| numbers(&ids, " "))
            };
            if let Some(ids) = those(|fact| fact.state == RowState::Discarded) {
                return Err(UndeliveredError::Discarded(ids));
            }
            if let Some(ids) = those(|fact| !fact.has_destination) {
                let why = "its destination could not be made out";
                return Err(UndeliveredError::Unsendable { ids, why });
            }
            if let Some(ids) = those(|fact| !fact.has_body) {
                let why = "its body was too long to be kept";
                return Err(UndeliveredError::Unsendable { ids, why });
            }
        }
        let done = store.retry_undelivered(&self.slot, which, &self.marks).await?;
        if let Which::Destination(destination) = which
            && done.revived + done.hastened + done.left == 0
        {
            let (destination, slot) = (one_line(destination), one_line(&self.slot));
            return Err(UndeliveredError::NothingTo { destination, slot });
        }
        let mut said = String::new();
        let mut say = |number: u64, one: &str, many: &str| match number {
            0 => {}
            1 => said += &format!("1 message {one}\n"),
            _ => said += &format!("{number} messages {many}\n"),
        };
        say(done.revived, "was dead and is tried again", "were dead and are tried again");
        say(done.hastened, "that retries is due now", "that retry are due now");
        let stays = "no destination or no body is known ('walpost undelivered show ID')";
        say(
            done.left,
            &format!("can't be sent and stays: {stays}"),
            &format!("can't be sent and stay: {stays}"),
        );
        if said.is_empty() {
            said.push_str("nothing waits\n");
        }
        Ok(said + &unmarked(done.unmarked))
    }

    /// Throws messages away; says what was done.
    ///
    /// # Errors
    /// [`UndeliveredError`]: nothing was changed.
    pub async fn discard(&self, ids: &[i64]) -> Result<String, UndeliveredError> {
        let store = self.store().await?;
        let facts = self.facts(&store, ids).await?;
        let done = store.discard_undelivered(&self.slot, ids, &self.marks).await?;
        let before = facts.iter().filter(|fact| fact.state == RowState::Discarded).count();
        let mut said = match done.rows {
            1 => "1 message discarded\n".to_owned(),
            rows => format!("{rows} messages discarded\n"),
        };
        if before > 0 {
            said += &format!("{before} had been discarded before\n");
        }
        Ok(said + &unmarked(done.unmarked))
    }

    /// What is there of each of these.
    async fn facts(&self, store: &Store, ids: &[i64]) -> Result<Vec<Fact>, UndeliveredError> {
        let facts = store.undelivered_facts(&self.slot, ids).await?;
        let is_there = |id: &&i64| facts.iter().any(|fact| fact.id == **id);
        let missing: Vec<i64> = ids.iter().filter(|id| !is_there(id)).copied().collect();
        match missing[..] {
            [] => Ok(facts),
            _ => Err(self.unknown(&missing, "; nothing was changed")),
        }
    }

    fn unknown(&self, ids: &[i64], unchanged: &'static str) -> UndeliveredError {
        let (ids, slot) = (numbers(ids, ", "), one_line(&self.slot));
        UndeliveredError::Unknown { ids, slot, unchanged }
    }
}

fn numbers(ids: &[i64], between: &str) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// What the outbox table does not say, and why.
fn unmarked(why: Option<String>) -> String {
    why.map(|why| format!("note: the rows of the outbox table are not marked: {why}\n"))
        .unwrap_or_default()
}
