//! What consumers have handled: `walpost.inbox`, or the predecessor's table `received`.
//!
//! A function is called in the transaction that puts the message into the inbox, so that its effect
//! and the knowledge of it commit together.

mod blame;
mod sql;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type};

pub use blame::{Blame, blame};
use sql::Sql;

use super::connect::{ConnectSettings, Store};
use super::error::StoreError;

const CALLING: &str = "calling the function";
const KEEPING: &str = "writing the inbox";
const LOOKING: &str = "reading the inbox";

/// Which table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboxTable {
    /// `walpost.inbox`, by queue and message id.
    Walpost,
    /// `public.received` of django-outbox-pattern, by message id alone.
    Received,
}

/// A message as the inbox keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Its identity.
    pub id: &'a str,
    /// Where it was sent to.
    pub destination: &'a str,
    /// Its headers, a JSON object.
    pub headers: &'a str,
    /// Its body as JSON, where it is that.
    pub json: Option<&'a str>,
    /// Its body, where it is no JSON and not empty.
    pub bytes: Option<&'a [u8]>,
    /// Whether it is handled again although it is known.
    pub replay: bool,
    /// What the function gets: JSON in any case.
    pub arguments: (&'a str, &'a str),
}

/// Why there is no inbox.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// PostgreSQL can't be reached, or says no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The schema is not there, or an older one.
    #[error("there is no table walpost.inbox in the database; run walpost init")]
    NoTable,
    /// No function of that name and these arguments.
    #[error(
        "there is no function {0}(jsonb, jsonb) in the database, as the role's search_path finds it; create it, \
         with the parameters (body jsonb, headers jsonb), or name its schema, too"
    )]
    NoFunction(String),
    /// The role may not do what is needed.
    #[error("the role may not use {what}; run: {remedy}")]
    Rights {
        /// What it may not use.
        what: String,
        /// The statement that allows it.
        remedy: String,
    },
}

impl InboxError {
    /// Whether trying again changes nothing, unless somebody is just changing it.
    #[must_use]
    pub fn needs_an_operator(&self) -> bool {
        match self {
            InboxError::Store(error) => error.is_login() || error.class() == super::Class::Operator,
            _ => true,
        }
    }
}

/// The inbox of one queue, over a connection of its own.
#[derive(Debug)]
pub struct Inbox {
    store: Store,
    queue: String,
    table: InboxTable,
    function: Option<String>,
    known: Statement,
    keep: Statement,
    call: Option<Statement>,
}

impl Inbox {
    /// Connects, and finds the table and the function. With `django` the table `received` is taken if
    /// it is there.
    ///
    /// # Errors
    /// [`InboxError`].
    pub async fn open(
        settings: &ConnectSettings,
        queue: &str,
        django: bool,
        function: Option<&str>,
    ) -> Result<Inbox, InboxError> {
        let store = Store::connect_as_role(settings).await?;
        let table = find_table(&store, django).await?;
        let called = match function {
            Some(name) => Some(find_function(&store, name).await?),
            None => None,
        };
        let sql = Sql::of(table);
        let prepare = async |text: &str, types: &[Type]| {
            let prepared = store.client().prepare_typed(text, types).await;
            prepared.map_err(|error| StoreError::from_client("preparing the inbox", &error))
        };
        let known = prepare(&sql.known, &sql::ID).await?;
        let keep = prepare(&sql.keep(), &sql::MESSAGE).await?;
        let call = match &called {
            Some(called) => Some(prepare(&sql.call(called), &sql::MESSAGE).await?),
            None => None,
        };
        let function = function.map(str::to_owned);
        Ok(Inbox { store, queue: queue.to_owned(), table, function, known, keep, call })
    }

    /// Which table it is.
    #[must_use]
    pub fn table(&self) -> InboxTable {
        self.table
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.store.is_closed()
    }

    /// Whether what [`Inbox::open`] has found is still there.
    ///
    /// # Errors
    /// [`InboxError`].
    pub async fn check(&self) -> Result<(), InboxError> {
        find_table(&self.store, self.table == InboxTable::Received).await?;
        if let Some(name) = &self.function {
            find_function(&self.store, name).await?;
        }
        Ok(())
    }

    /// Whether the message was handled before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn knows(&self, id: &str) -> Result<bool, StoreError> {
        let rows = self.store.client().query(&self.known, &[&self.queue, &id]).await;
        Ok(!rows.map_err(|error| StoreError::from_client(LOOKING, &error))?.is_empty())
    }

    /// Notes that the message was handled.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remember(&self, message: &Received<'_>) -> Result<(), StoreError> {
        self.execute(KEEPING, &self.keep, std::slice::from_ref(message)).await.map(|_| ())
    }

    /// Calls the function for several messages, in their order, in one transaction with the inbox: for
    /// all of them or for none. False: the message is known, and nothing was called.
    ///
    /// # Errors
    /// [`StoreError`]; [`blame()`] says whose fault it is. Nothing has happened then, unless the
    /// connection ended: call again to find out.
    pub async fn call(&self, messages: &[Received<'_>]) -> Result<Vec<bool>, StoreError> {
        match &self.call {
            Some(call) => self.execute(CALLING, call, messages).await,
            None => Ok(Vec::new()),
        }
    }

    /// Whether `jsonb` takes the text: it has limits that JSON has not.
    ///
    /// # Errors
    /// [`StoreError`] other than that.
    pub async fn takes_json(&self, text: &str) -> Result<bool, StoreError> {
        const WHAT: &str = "trying the body";
        let sql = "SELECT $1::text::jsonb IS NULL";
        match self.store.rows(WHAT, sql, &[(&text, Type::TEXT)]).await {
            Ok(_) => Ok(true),
            Err(error) if blame(&error) == Blame::Message => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes some of the queue's rows that are older than `age`; how many. Rows of `received` are the
    /// application's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune(&self, age: Duration, most: i64) -> Result<u64, StoreError> {
        if self.table == InboxTable::Received {
            return Ok(0);
        }
        let (sql, seconds) = (sql::PRUNE, age.as_secs_f64());
        let parameters: [super::query::Param<'_>; 3] =
            [(&self.queue, Type::TEXT), (&seconds, Type::FLOAT8), (&most, Type::INT8)];
        self.store.one("deleting old rows of the inbox", sql, &parameters).await?.count(0)
    }

    /// All at once, in their order; how many rows each has made tells whether it is new.
    async fn execute(
        &self,
        what: &'static str,
        statement: &Statement,
        messages: &[Received<'_>],
    ) -> Result<Vec<bool>, StoreError> {
        type Step<'a> = Pin<Box<dyn Future<Output = Result<Option<bool>, StoreError>> + Send + 'a>>;
        // A statement by itself is a transaction; the lock must be had before its snapshot is taken.
        let locks = self.table == InboxTable::Received;
        if let ([message], false) = (messages, locks) {
            return Ok(vec![self.one(what, statement, message).await?]);
        }
        let plain = |sql| async move { self.store.run(what, sql).await.map(|()| None) };
        let mut steps: Vec<Step<'_>> = Vec::with_capacity(2 * messages.len() + 2);
        steps.push(Box::pin(plain("BEGIN ISOLATION LEVEL READ COMMITTED")));
        for message in messages {
            if locks {
                let lock = async move {
                    let id: super::query::Param<'_> = (&message.id, Type::TEXT);
                    self.store.rows(what, sql::LOCK, &[id]).await.map(|_| None)
                };
                steps.push(Box::pin(lock));
            }
            steps.push(Box::pin(async move { self.one(what, statement, message).await.map(Some) }));
        }
        // Rolls back where one of them failed.
        steps.push(Box::pin(plain("COMMIT")));
        let done: Result<Vec<Option<bool>>, StoreError> =
            in_order(steps).await.into_iter().collect();
        Ok(done?.into_iter().flatten().collect())
    }

    async fn one(
        &self,
        what: &'static str,
        statement: &Statement,
        message: &Received<'_>,
    ) -> Result<bool, StoreError> {
        let Received { id, destination, headers, json, bytes, replay, arguments } = message;
        let parameters: [&(dyn ToSql + Sync); 9] = [
            &self.queue,
            id,
            destination,
            headers,
            json,
            bytes,
            replay,
            &arguments.0,
            &arguments.1,
        ];
        let failed = |error: tokio_postgres::Error| StoreError::from_client(what, &error);
        let row = self.store.client().query_one(statement, &parameters).await.map_err(failed)?;
        Ok(row.try_get::<_, i64>(0).map_err(failed)? > 0)
    }
}

/// The table, if the role may use it.
async fn find_table(store: &Store, django: bool) -> Result<InboxTable, InboxError> {
    const WHAT: &str = "looking for the inbox";
    for (table, name) in
        [(InboxTable::Received, "public.received"), (InboxTable::Walpost, "walpost.inbox")]
    {
        if table == InboxTable::Received && !django {
            continue;
        }
        let found = store.first(WHAT, sql::TABLE, &[(&name, Type::TEXT)]).await?;
        let Some(found) = found else { continue };
        if found.get::<bool>(0)? {
            return Ok(table);
        }
        let (role, schema) = (found.get::<String>(1)?, name.split('.').next().unwrap_or_default());
        return Err(InboxError::Rights {
            what: format!("the table {name}"),
            remedy: format!(
                "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {role}"
            ),
        });
    }
    Err(InboxError::NoTable)
}

/// The function's whole name, quoted, if the role may call it.
async fn find_function(store: &Store, name: &str) -> Result<String, InboxError> {
    let found =
        store.first("looking for the function", sql::FUNCTION, &[(&name, Type::TEXT)]).await?;
    let found = found.ok_or_else(|| InboxError::NoFunction(name.to_owned()))?;
    let (quoted, schema): (String, String) = (found.get(0)?, found.get(1)?);
    if found.get(2)? {
        return Ok(quoted);
    }
    let role: String = found.get(3)?;
    Err(InboxError::Rights {
        what: format!("the function {quoted}(jsonb, jsonb)"),
        remedy: format!(
            "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT EXECUTE ON FUNCTION {quoted}(jsonb, jsonb) TO {role}"
        ),
    })
}

/// Begins all of them at once, in their order, and waits for each. The client sends in the order of
/// beginning, and the server answers in it.
async fn in_order<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output>
where
    F::Output: Unpin,
{
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut all = true;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match Pin::new(future).poll(cx) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => all = false,
                }
            }
        }
        if all { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
