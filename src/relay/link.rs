//! The way to a session: connect, wait as a standby while another holds the slot, take over.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Sleep;
use tracing::{debug, info, warn};

use super::clock::rounded;
use super::first_start::{GRANT_REMEDY, LOGIN_REMEDY, TLS_REMEDY};
use super::guarding::{self, Entry};
use super::needs::Needs;
use super::recovery::Job;
use super::standby::Standby;
use super::standing::{self, LookError, SlotStanding, Standing, Unfit};
use super::stop::Stop;
use super::timeline::{self, Turn};
use super::{first_start, former, supervisor};
use crate::lsn::Lsn;
use crate::net::Logins;
use crate::source::{self, Origin, Remedy, Session, SourceError, Started};
use crate::store::guard::KeptGuard;
use crate::store::keeping::LastReceipted;
use crate::store::setup::Event;
use crate::store::{RelayState, Server, Store, StoreError};
use crate::telemetry::status::Phase;
use crate::telemetry::throttle::Throttle;

/// After a server that shuts down or starts.
const COME_BACK: Duration = Duration::from_secs(5);
/// How often the allowed silence is doubled at most.
const MOST_PATIENT: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The slot is ours.
pub(super) struct Opened {
    pub(super) session: Box<Session>,
    /// The slot's position when it became ours.
    pub(super) confirmed: Lsn,
    /// Goes with everything that is written.
    pub(super) epoch: i64,
    /// Of the outbox tables, with their names.
    pub(super) oids: Vec<(String, u32)>,
    /// How far a large transaction was delivered before, and where the WAL ends.
    pub(super) last_receipted: Option<(LastReceipted, Lsn)>,
    /// Rows that are to be published out of the table before the stream is read.
    pub(super) recovery: Option<Job>,
    /// The server is on another timeline than before.
    pub(super) turn: Option<Turn>,
}

type Opening = Pin<Box<dyn Future<Output = Result<Opened, OpenError>>>>;

/// Why the slot could not be opened.
enum OpenError {
    /// What can be said of the replication connection.
    Source(SourceError),
    /// An operator must act.
    Stop(Stop),
}

impl From<SourceError> for OpenError {
    fn from(error: SourceError) -> Self {
        OpenError::Source(error)
    }
}

enum State {
    Waiting(Pin<Box<Sleep>>),
    Opening(Opening),
    /// The session is the pump's; nothing to do until [`Link::lost`].
    Up,
    Closed,
}

/// Opens sessions, one after the other.
pub(super) struct Link {
    needs: Needs,
    state: State,
    /// Where the last session was.
    last: Option<Origin>,
    backoff: ExponentialBackoff,
    logins: Logins,
    /// Sessions in a row that ended in silence and delivered nothing.
    silences: u32,
    throttle: Throttle,
}

impl Link {
    /// Begins at once.
    pub(super) fn new(needs: Needs) -> Self {
        let state = State::Opening(Box::pin(open(needs.clone(), None)));
        Link {
            needs,
            state,
            last: None,
            backoff: backoff(),
            logins: Logins::new(1),
            silences: 0,
            throttle: Throttle::new(Duration::from_secs(10)),
        }
    }

    /// `Ready` when the slot is ours, or when an operator must act.
    pub(super) fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
    ) -> Poll<Result<Opened, Stop>> {
        loop {
            match &mut self.state {
                State::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.state = State::Opening(Box::pin(open(self.needs.clone(), self.last)));
                }
                State::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(mut opened) => {
                        // Perhaps it was not dead but busy: the next one gets more time, so that
                        // there is no work which is begun again and again.
                        opened.session.be_patient(1 << self.silences.min(MOST_PATIENT));
                        self.state = State::Up;
                        self.last = Some(opened.session.origin);
                        self.logins.accepted();
                        return Poll::Ready(Ok(opened));
                    }
                    Err(OpenError::Source(error)) => self.lost(&error, now)?,
                    Err(OpenError::Stop(stop)) => {
                        self.state = State::Closed;
                        return Poll::Ready(Err(stop));
                    }
                },
                State::Up | State::Closed => return Poll::Pending,
            }
        }
    }

    /// The session delivered something: the next failure is a first one again.
    pub(super) fn progressed(&mut self) {
        self.backoff = backoff();
        self.silences = 0;
    }

    /// So far the slot was confirmed by us.
    pub(super) fn reported(&self, position: Lsn) {
        self.needs.reported.reached(position);
    }

    /// The next session is to publish what is not known to be delivered.
    pub(super) fn recover(&self) {
        self.needs.settled.store(true, Ordering::Relaxed);
    }

    /// The server shuts down, and a session that is just being opened would hold it up, too: whether
    /// the slot is already held shows only at its end.
    ///
    /// # Errors
    /// As [`Link::lost`].
    pub(super) fn give_up_opening(&mut self, now: Duration) -> Result<(), Stop> {
        match self.state {
            State::Opening(_) => self.lost(&SourceError::ShuttingDown, now),
            State::Waiting(_) | State::Up | State::Closed => Ok(()),
        }
    }

    /// The session ended or could not be opened: comes back after a while.
    ///
    /// # Errors
    /// [`Stop`]: coming back would not help.
    pub(super) fn lost(&mut self, error: &SourceError, now: Duration) -> Result<(), Stop> {
        let remedy = error.remedy();
        let is_login = matches!(remedy, Remedy::Login | Remedy::Tls);
        let refused = is_login && self.logins.refused(now);
        if !is_login {
            self.logins.other();
        }
        self.silences += u32::from(matches!(error, SourceError::Silent(_)));
        let next = self.backoff.next().unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        let wait = match remedy {
            Remedy::Operator(remedy) => {
                self.state = State::Closed;
                return Err(Stop::for_good(error, remedy));
            }
            Remedy::Login | Remedy::Tls if refused => {
                self.state = State::Closed;
                let tls = remedy == Remedy::Tls;
                return Err(Stop::for_good(error, if tls { TLS_REMEDY } else { LOGIN_REMEDY }));
            }
            Remedy::ComeBack => COME_BACK,
            Remedy::Retry | Remedy::Login | Remedy::Tls => next,
        };
        if let Some(more) = self.throttle.allow("source", now) {
            warn!(again_in = %rounded(wait), "{error}{more}");
        }
        let text = error.to_string();
        self.needs.telemetry.update(|status, lag| {
            status.phase = Phase::Connecting;
            status.source.connected = false;
            status.source.last_error = Some(text);
            lag.disconnected();
        });
        self.state = State::Waiting(Box::pin(tokio::time::sleep(wait)));
        Ok(())
    }
}

async fn open(needs: Needs, last: Option<Origin>) -> Result<Opened, OpenError> {
    loop {
        if let Some(session) = start(&needs).await? {
            return take(&needs, session, last).await;
        }
        make_again(&needs).await?;
    }
}

/// Starts a session, waiting as a standby while another holds the slot. None: the slot is lost, and may
/// be made again.
async fn start(needs: &Needs) -> Result<Option<Box<Session>>, OpenError> {
    let settings = &needs.first_start.source;
    let mut connection = source::connect(settings).await?;
    needs.telemetry.metrics.connects.postgresql.inc();
    let (host, walsender) = (&connection.address, connection.process_id);
    debug!(%host, walsender, "connected to PostgreSQL; asking for slot {}", needs.slot());
    let mut standby: Option<Standby<'_>> = None;
    loop {
        match source::start(settings, connection).await {
            Ok(Started::Session(session)) => return Ok(Some(session)),
            Ok(Started::InUse(again, words)) => {
                connection = *again;
                if standby.is_none() {
                    info!("standby until the slot is free: {words}");
                    needs.telemetry.update(|status, _| status.phase = Phase::Standby);
                }
            }
            Err(error) => return refused(needs, error).await.map(|()| None),
        }
        let sql = &needs.first_start.sql;
        standby.get_or_insert_with(|| Standby::new(sql, needs.slot())).wait().await;
    }
}

/// The slot could not be read. Where it is lost, what is known of the gap is said; `Ok`: it may be made
/// again.
async fn refused(needs: &Needs, error: SourceError) -> Result<(), OpenError> {
    if !matches!(error, SourceError::Server { .. }) {
        return Err(error.into());
    }
    let looked = async {
        let store = Store::connect(&needs.first_start.sql).await?;
        standing::look(&store, &needs.first_start).await
    };
    match looked.await {
        Ok(standing) if standing.lost.is_some() => allowed(needs, standing).map(drop),
        Ok(standing) if standing.slot == SlotStanding::Missing => Ok(()),
        Ok(_) => Err(error.into()),
        Err(LookError::Unfit(unfit)) => Err(operator(unfit)),
        Err(LookError::Store(unknown)) => {
            debug!("whether the slot is lost can't be read: {unknown}");
            Err(error.into())
        }
    }
}

/// A slot that is lost is made again where that is allowed.
fn allowed(needs: &Needs, standing: Standing) -> Result<Standing, OpenError> {
    standing.allowed(needs.first_start.may_remake()).map_err(operator)
}

fn operator(unfit: Unfit) -> OpenError {
    OpenError::Stop(Stop::for_good(unfit, "then start walpost again"))
}

/// Makes the slot again that was lost, or that was not finished.
async fn make_again(needs: &Needs) -> Result<(), OpenError> {
    let mut say = |event: Event<'_>| supervisor::say(&event, &needs.telemetry);
    let made = first_start::prepare_for_run(&needs.first_start, &mut say).await;
    made.map_err(|error| match error.remedy() {
        Some(remedy) if !error.is_login() => OpenError::Stop(Stop::for_good(error, remedy)),
        _ => OpenError::Source(SourceError::Recovery(error.to_string())),
    })
}

/// The slot's position, read now that it is ours and nobody else moves it (rule 2). The epoch is
/// raised: whoever had the slot before, and was only stopped, writes nothing any more.
async fn take(
    needs: &Needs,
    session: Box<Session>,
    last: Option<Origin>,
) -> Result<Opened, OpenError> {
    let (slot, first_start) = (needs.slot(), &needs.first_start);
    let store = Store::connect(&first_start.sql).await.map_err(unknown)?;
    let server = store.server().await.map_err(unknown)?;
    // Both connections look for the host that accepts writes, each by itself.
    let Server { system_identifier, timeline, .. } = server;
    if session.origin != (Origin { system_identifier, timeline }) {
        return Err(SourceError::OtherServer(session.address.to_string()).into());
    }
    let standing = standing::look(&store, first_start).await.map_err(|error| match error {
        LookError::Unfit(unfit) => operator(unfit),
        LookError::Store(error) => unknown(error),
    })?;
    let standing = allowed(needs, standing)?;
    let row = standing.row;
    let creating = row.is_some_and(|row| row.state == RelayState::Creating);
    if creating || standing.lost.is_some() {
        // Another walpost began to make it again, and did not get to its end; or it is lost just now.
        drop(session);
        make_again(needs).await?;
        return Err(SourceError::Reopen("the slot was made again").into());
    }
    let on = row.map(|row| row.timeline);
    former::check(&first_start.source, &session, last, on).await.map_err(OpenError::Stop)?;
    let turned = on.is_some_and(|on| on != timeline);
    let state = store.slot(slot).await.map_err(unknown)?;
    let (guard, told) = guard(needs, &store).await?;
    // A row that somebody has deleted knew what waits.
    let forgotten = row.is_none() && first_start.backfill;
    let doubt =
        needs.reported.doubt(&store, slot, state.as_ref(), row.map(|row| row.epoch), &guard);
    let doubt = doubt.await.map_err(unknown)?;
    if let Some(why) = doubt {
        warn!("what is not known to be delivered is published again: {why}");
    }
    let recover = told || turned || forgotten || doubt.is_some();
    let taken = store.take_relay(slot, &server, recover, &guard).await.map_err(unknown)?;
    first_start.told.store(false, Ordering::Relaxed);
    needs.settled.store(false, Ordering::Relaxed);
    debug!(epoch = taken.epoch, "the slot is ours");
    let turn = timeline::turn(&first_start.source, last, on, &session).await;
    let gone = || SourceError::Confirmed("the slot is gone".to_owned());
    let state = state.ok_or_else(gone)?;
    let recovery = taken.recovering.then(|| Job {
        sql: first_start.sql.clone(),
        origin: session.origin,
        slot: slot.to_owned(),
        epoch: taken.epoch,
        tables: Arc::clone(&first_start.tables),
        max_row: first_start.source.max_row,
    });
    let confirmed = state.confirmed_flush_lsn.unwrap_or(Lsn::INVALID);
    needs.reported.taken(taken.epoch, confirmed);
    let epoch = taken.epoch;
    let last_receipted = taken.last_receipted.map(|last| (last, taken.end_of_wal));
    let oids = guard.found.oids();
    Ok(Opened { session, oids, confirmed, epoch, last_receipted, recovery, turn })
}

/// What the guard says before anything is read, and whether what may be missing is to be published.
async fn guard(needs: &Needs, store: &Store) -> Result<(KeptGuard, bool), OpenError> {
    let told = needs.first_start.told.load(Ordering::Relaxed);
    let settled = needs.settled.load(Ordering::Relaxed);
    match guarding::enter(store, &needs.first_start, told, settled).await.map_err(unknown)? {
        Entry::Same(guard) => Ok((guard, false)),
        Entry::Recover(guard, why) => {
            warn!("what is not known to be delivered is published again: {why}");
            Ok((guard, true))
        }
        Entry::Stop(stop) => Err(OpenError::Stop(stop)),
    }
}

/// The slot is ours, and SQL does not say what is to be known of it.
fn unknown(error: StoreError) -> OpenError {
    match error.code() {
        Some("42501") => OpenError::Stop(Stop::for_good(error, GRANT_REMEDY)),
        _ => OpenError::Source(SourceError::Confirmed(error.to_string())),
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .without_max_times()
        .with_jitter()
        .build()
}
