//! What happened: to see that schedules are worth their name.

/// What happened in a schedule: to see that schedules are worth their name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) known: u64,
    pub(super) full: u64,
    pub(super) receipts: u64,
    pub(super) garbage: u64,
    pub(super) probes: u64,
    pub(super) closes: u64,
    pub(super) refusals: u64,
    pub(super) halts: u64,
    pub(super) closed: u64,
    pub(super) tried: u64,
    pub(super) opened: u64,
    pub(super) broken_off: u64,
    pub(super) failovers: u64,
    pub(super) kills: u64,
    pub(super) recovered: u64,
    pub(super) recoveries: u64,
    pub(super) slots_lost: u64,
    pub(super) guarded: u64,
    pub(super) awaited: u64,
    pub(super) certified: u64,
    pub(super) deleted: u64,
    pub(super) large: u64,
    pub(super) resumed: u64,
    pub(super) thawed: u64,
    pub(super) refused_writes: u64,
    pub(super) marked: u64,
    pub(super) marks_again: u64,
    pub(super) marks_found: u64,
    pub(super) marks_refused: u64,
    pub(super) marks_unanswered: u64,
    pub(super) marks_forgotten: u64,
    pub(super) parked: u64,
    pub(super) kept: u64,
    pub(super) condemned: u64,
    pub(super) sent_again: u64,
    pub(super) jobs_failed: u64,
    pub(super) full_up: u64,
}

impl Tally {
    /// Adds what happened in another schedule.
    pub(super) fn add(&mut self, other: &Tally) {
        self.accepted += other.accepted;
        self.known += other.known;
        self.full += other.full;
        self.receipts += other.receipts;
        self.garbage += other.garbage;
        self.probes += other.probes;
        self.closes += other.closes;
        self.refusals += other.refusals;
        self.halts += other.halts;
        self.closed += other.closed;
        self.tried += other.tried;
        self.opened += other.opened;
        self.broken_off += other.broken_off;
        self.failovers += other.failovers;
        self.kills += other.kills;
        self.recovered += other.recovered;
        self.recoveries += other.recoveries;
        self.slots_lost += other.slots_lost;
        self.guarded += other.guarded;
        self.awaited += other.awaited;
        self.certified += other.certified;
        self.deleted += other.deleted;
        self.large += other.large;
        self.resumed += other.resumed;
        self.thawed += other.thawed;
        self.refused_writes += other.refused_writes;
        self.marked += other.marked;
        self.marks_again += other.marks_again;
        self.marks_found += other.marks_found;
        self.marks_refused += other.marks_refused;
        self.marks_unanswered += other.marks_unanswered;
        self.marks_forgotten += other.marks_forgotten;
        self.parked += other.parked;
        self.kept += other.kept;
        self.condemned += other.condemned;
        self.sent_again += other.sent_again;
        self.jobs_failed += other.jobs_failed;
        self.full_up += other.full_up;
    }
}
