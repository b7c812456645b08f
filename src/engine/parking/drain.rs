//! Rows out of the table: the oldest alone, then, once that is taken, the others in their order.

use std::collections::HashSet;
use std::time::Duration;

use super::{Note, Parked, State, Stored};
use crate::engine::Engine;
use crate::engine::types::{Addressed, Notice, TxId};
use crate::engine::window::{KeptIn, Key, Origin};
use crate::lsn::Lsn;
use crate::pgtime::PgTime;

impl<M: Addressed> Engine<M> {
    fn parked_mut(&mut self, name: &str) -> Option<&mut Parked> {
        self.troubles.by_destination.get_mut(name)?.parked.as_mut()
    }

    /// A row enters the window.
    fn take_in(&mut self, name: &str, stored: Stored<M>, dead: bool) -> Key {
        let Stored { id, transaction, commit_time, outgoing, .. } = stored;
        let nobody = TxId { commit_lsn: Lsn::INVALID, xid: 0, commit_time: PgTime(0) };
        let tx = *self.parking.record.get_or_insert_with(|| self.ledger.open_aside(nobody));
        if let Some(record) = self.ledger.get_mut(tx) {
            record.unreceipted += 1;
        }
        let home = self.lane_of(outgoing.key_hash);
        let kept = Some(KeptIn { id, dead, transaction });
        let of = Origin { tx, commit_time, change: None, after: None, kept, home };
        if let Some(parked) = self.parked_mut(name) {
            parked.held += 1;
        }
        self.window.insert(of, outgoing)
    }

    /// The oldest row is there, its attempt counted: it is sent, unless the lane is gone by now.
    pub(super) fn attempted(&mut self, name: &str, row: Option<Box<Stored<M>>>, now: Duration) {
        self.parking.attempting = false;
        let retry = self.settings.retry;
        let lane = self.trial_lane();
        let ready = self.lanes[lane].up && self.session.is_some();
        let Some(trouble) = self.troubles.by_destination.get_mut(name) else { return };
        let Some(parked) = &mut trouble.parked else { return };
        let condemned = parked.state == State::Condemned;
        let Some(row) = row else {
            // Operators have done with what there was.
            self.troubles.turn = None;
            if condemned {
                parked.state = State::Draining;
            }
            parked.rows = 0;
            self.open_if_drained(name);
            return;
        };
        if !ready {
            self.troubles.turn = None;
            self.parking.notes.push_back(Note {
                id: row.id,
                attempts: row.attempts.saturating_sub(1),
                words: trouble.words.clone(),
                next: now,
            });
            return;
        }
        trouble.attempts = row.attempts;
        trouble.width = 1;
        trouble.next = now + if condemned { retry.pause } else { retry.wait };
        parked.head = Some(row.id);
        self.troubles.begin_turn();
        let key = self.take_in(name, *row, condemned);
        self.window.append(&mut self.lanes[lane].order, key, lane);
    }

    /// The next rows are there.
    pub(super) fn rows_loaded(&mut self, name: &str, rows: Vec<Stored<M>>, unread: u64) {
        if self.parked_mut(name).is_none_or(|parked| parked.state != State::Draining) {
            return;
        }
        // An operator may have had a dead one sent again that was on its way.
        let here: HashSet<i64> =
            self.window.iter().filter_map(|held| Some(held.kept?.id)).collect();
        for row in rows.into_iter().filter(|row| !here.contains(&row.id)) {
            let id = row.id;
            let key = self.take_in(name, row, false);
            if let Some(parked) = self.parked_mut(name) {
                parked.loaded.insert(id, key);
                parked.after = id;
            }
        }
        if let Some(parked) = self.parked_mut(name) {
            (parked.unread, parked.unsure) = (unread, false);
            parked.rows = parked.rows.max(parked.held as u64 + unread);
            if fault!(self, OpensWithRowsUnread)
                && let Some(parked) = self.parked_mut(name)
            {
                parked.unread = 0;
            }
        }
        self.open_if_drained(name);
    }

    /// A row has its receipt on the trial lane.
    pub(in crate::engine) fn row_taken(&mut self, name: &str, id: i64) {
        let Some(parked) = self.parked_mut(name) else { return };
        if parked.state != State::Draining {
            // Of the dead it was the newest; what an operator has sent again may have any place.
            let after = if parked.state == State::Condemned { i64::MIN } else { id };
            (parked.state, parked.after, parked.unsure) = (State::Draining, after, true);
            parked.head = None;
        }
    }

    /// The message of a row has its receipt, and where its outbox row is to be marked, that is done.
    pub(in crate::engine) fn owe_deletion(&mut self, key: Key, id: i64) {
        let Some(held) = self.window.get(key) else { return };
        let (receipt, lane) = (held.receipt, held.lane);
        if let Some(state) = self.lanes.get_mut(lane) {
            self.window.detach(&mut state.order, key, Duration::ZERO);
        }
        self.parking.delivered.push_back((id, receipt));
        #[cfg(test)]
        if fault!(self, DeliveredIsKept)
            && let Some(row) = self.parking.delivered.pop_back()
        {
            self.deleted(&[row]);
        }
    }

    /// Rows are deleted.
    pub(super) fn deleted(&mut self, rows: &[(i64, crate::engine::Receipt)]) {
        for (_, receipt) in rows {
            let Some(key) = self.window.find(*receipt) else { continue };
            let Some(held) = self.window.get(key) else { continue };
            let name: Box<str> = held.payload.destination().into();
            let counted = held.kept.is_some_and(|kept| !kept.dead);
            self.leave(key, Lsn::INVALID);
            if let Some(parked) = self.parked_mut(&name) {
                parked.held = parked.held.saturating_sub(1);
                parked.rows = parked.rows.saturating_sub(u64::from(counted));
            }
            self.open_if_drained(&name);
        }
    }

    /// What came out of the table and has no receipt leaves the window: it is there still. Whether it
    /// has one or not, where `all` does.
    pub(in crate::engine) fn unload(&mut self, name: &str, all: bool) {
        let its = |held: &&crate::engine::window::Held<M>| {
            held.kept.is_some()
                && (all || held.receipted.is_none())
                && held.payload.destination() == name
        };
        let receipts: Vec<_> = self.window.iter().filter(its).map(|held| held.receipt).collect();
        for receipt in receipts {
            let Some(key) = self.window.find(receipt) else { continue };
            self.leave(key, Lsn::INVALID);
            if let Some(parked) = self.parked_mut(name) {
                parked.held = parked.held.saturating_sub(1);
            }
        }
        if let Some(parked) = self.parked_mut(name) {
            parked.loaded.clear();
            if parked.state == State::Draining {
                parked.state = State::Parked;
            }
            (parked.unread, parked.unsure, parked.after) = (0, true, i64::MIN);
        }
    }

    /// What was refused of a parked destination is its oldest row: what is known of it is written down.
    pub(in crate::engine) fn note_refusal(&mut self, name: &str, id: i64) {
        let Some(trouble) = self.troubles.by_destination.get_mut(name) else { return };
        let (attempts, words, next) = (trouble.attempts, trouble.words.clone(), trouble.next);
        self.parking.notes.retain(|note| note.id != id);
        self.parking.notes.push_back(Note { id, attempts, words, next });
    }

    /// A row's attempt was none.
    pub(in crate::engine) fn note_forgiven(&mut self, name: &str) {
        let head = self.parked_mut(name).and_then(|parked| parked.head);
        if let Some(id) = head {
            self.note_refusal(name, id);
        }
    }

    /// Where all rows are delivered the destination is open again: what waited goes to its lanes.
    pub(in crate::engine) fn open_if_drained(&mut self, name: &str) {
        let Some(trouble) = self.troubles.by_destination.get(name) else { return };
        let Some(parked) = &trouble.parked else { return };
        let nothing_under_way = parked.held == 0 && parked.keeping == 0 && trouble.out == 0;
        let drained = match parked.state {
            State::Draining => parked.unread == 0 && !parked.unsure,
            // Somebody has done with its rows.
            State::Parked => parked.rows == 0 && trouble.waiting.is_empty(),
            State::Condemned => false,
        };
        if !nothing_under_way || !drained {
            return;
        }
        self.reopen(name);
    }

    /// The destination is open again.
    pub(in crate::engine) fn reopen(&mut self, name: &str) {
        let Some(trouble) = self.troubles.by_destination.remove(name) else { return };
        if self.troubles.turn.take_if(|turn| **turn == *name).is_some() {
            self.parking.attempting = false;
        }
        for key in trouble.waiting.into_values() {
            let Some(home) = self.window.get(key).map(|held| held.home) else { continue };
            if let Some(state) = self.lanes.get_mut(home) {
                self.window.append(&mut state.order, key, home);
            }
        }
        self.notice(Notice::Opened { destination: name.to_owned() });
    }
}
