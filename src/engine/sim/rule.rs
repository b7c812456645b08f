//! The rules that the judge holds, by name.

/// A rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// A position was confirmed past a committed row that has no receipt.
    Lost,
    /// All faults are over and yet not everything arrives and is confirmed.
    Stuck,
    /// Something was sent that is no committed row, or not this one.
    Invented,
    /// The watermark is not what the receipts allow, exactly.
    Watermark,
    /// A change is taken for known or new wrongly.
    Identity,
    /// Sent out of order.
    Order,
    /// Sent again without need.
    Repeat,
    /// The window or the ledger is too long, or its figures are wrong.
    Window,
    /// Sent (or not sent) although the lane may not (or must).
    Sending,
    /// A probe or a close that is not due, or is overdue.
    Silence,
    /// A receipt counted wrongly.
    Receipt,
    /// A destination is taken for refused, or tried, or told of wrongly.
    Refusal,
    /// Something is kept, or called done for it, wrongly.
    Parking,
    /// Halted without need.
    Halt,
    /// An honest stream was called malformed.
    Stream,
    /// What is not delivered is said to be.
    Certified,
    /// A row is published out of the table that must not be, or not again.
    Recovery,
    /// A position was confirmed past a committed row that is not marked, or one is never marked.
    Unmarked,
    /// A row is marked or deleted that has no receipt.
    Mismarked,
    /// What is to be marked still is told wrongly, or said to be marked.
    Owed,
}

/// A broken rule and how.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) rule: Rule,
    pub(super) what: String,
}

pub(super) type Verdict = Result<(), Violation>;
