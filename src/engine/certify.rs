//! The certified snapshot: how it is known that everything visible in a snapshot was delivered.
//!
//! A snapshot S is taken, and then the position L up to which WAL has been written. Whatever is visible
//! in S was committed before L. So once the watermark of the session that was open then has passed L,
//! every transaction visible in S is delivered.
//!
//! Not if a connection to PostgreSQL ended meanwhile: the server may have crashed, and a transaction that
//! was visible in S and not yet on disk is gone then; its id is used again, by one that is not
//! delivered. And not if the publication was changed meanwhile: the slot may have passed over rows. See
//! `docs/design.md`, "What walpost keeps".

use crate::lsn::Lsn;

/// Which connections to PostgreSQL are open: each number is used for one connection only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// The replication session.
    pub session: u64,
    /// The SQL connection.
    pub sql: u64,
}

/// The snapshot that waits for the watermark; one at a time.
#[derive(Clone, Debug)]
pub struct Certifier<S> {
    pending: Option<Pending<S>>,
    #[cfg(test)]
    faults: super::fault::Faults,
}

#[derive(Clone, Debug)]
struct Pending<S> {
    snapshot: S,
    position: Lsn,
    taken_on: Connections,
}

impl<S> Default for Certifier<S> {
    fn default() -> Self {
        Certifier {
            pending: None,
            #[cfg(test)]
            faults: super::fault::Faults::default(),
        }
    }
}

#[cfg(test)]
impl<S> Certifier<S> {
    /// A certifier with a deliberate fault.
    pub(super) fn with_fault(fault: super::Fault) -> Self {
        Certifier { faults: super::fault::Faults(Some(fault)), ..Certifier::default() }
    }
}

impl<S> Certifier<S> {
    /// A snapshot was taken, and after it the position; a guard check had ended before, and was good.
    pub fn taken(&mut self, on: Connections, snapshot: S, position: Lsn) {
        self.pending = Some(Pending { snapshot, position, taken_on: on });
    }

    /// Whether a snapshot waits for the watermark.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The watermark of the session that is open now. `true`: a guard check that *begins now* may
    /// certify the snapshot. A snapshot of earlier connections is dropped.
    pub fn is_passed(&mut self, on: Connections, watermark: Lsn) -> bool {
        let anywhere = fault!(self, CertifyIgnoresConnections);
        self.pending.take_if(|pending| pending.taken_on != on && !anywhere);
        let at_once = fault!(self, CertifyNotPassed);
        self.pending.as_ref().is_some_and(|pending| watermark >= pending.position || at_once)
    }

    /// The guard check that began after [`is_passed`](Self::is_passed) has ended. Answers the snapshot
    /// and its position where it is certified: the guard found what it had found before the snapshot,
    /// on the same connections.
    pub fn checked(&mut self, on: Connections, same: bool) -> Option<(S, Lsn)> {
        let same = same || fault!(self, CertifyIgnoresGuard);
        let anywhere = fault!(self, CertifyIgnoresConnections);
        let pending = self.pending.take()?;
        if !same || (pending.taken_on != on && !anywhere) {
            return None;
        }
        Some((pending.snapshot, pending.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: Connections = Connections { session: 1, sql: 1 };

    #[test]
    fn a_snapshot_is_certified_when_the_watermark_has_passed_its_position() {
        let mut certifier = Certifier::default();
        certifier.taken(ON, "S", Lsn(100));
        assert!(!certifier.is_passed(ON, Lsn(99)));
        assert!(certifier.is_passed(ON, Lsn(100)));
        assert_eq!(certifier.checked(ON, true), Some(("S", Lsn(100))));
        assert!(!certifier.is_pending());
    }

    #[test]
    fn a_lost_connection_or_a_changed_publication_certifies_nothing() {
        for on in [Connections { session: 2, ..ON }, Connections { sql: 2, ..ON }] {
            let mut certifier = Certifier::default();
            certifier.taken(ON, "S", Lsn(100));
            assert!(!certifier.is_passed(on, Lsn(200)));
            assert!(!certifier.is_pending());
            certifier.taken(ON, "S", Lsn(100));
            assert!(certifier.is_passed(ON, Lsn(200)));
            assert_eq!(certifier.checked(on, true), None);
        }
        let mut certifier = Certifier::default();
        certifier.taken(ON, "S", Lsn(100));
        assert_eq!(certifier.checked(ON, false), None);
        assert!(!certifier.is_pending());
    }
}
