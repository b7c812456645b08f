//! Whether a message that came late was put out of order by a killed broker, and not by walpost.

use super::model::Late;
use super::tap::Connection;

/// The broker had the late message and those that overtook it in the right order on a connection that
/// was lost, had given no receipt for it, and kept only the later ones. On no connection was one of
/// these sent before it, so walpost kept the order each time.
///
/// # Errors
/// What speaks against that.
pub fn dropped_by_broker(late: &Late, connections: &[Connection]) -> Result<(), String> {
    let place = |connection: &Connection, serial: u64| {
        connection.sends.iter().position(|send| send.serial == serial)
    };
    for other in &late.overtaken_by {
        let mut explained = false;
        for connection in connections {
            let Some(theirs) = place(connection, *other) else { continue };
            let Some(ours) = place(connection, late.serial) else { continue };
            if theirs < ours {
                return Err(format!("row {other} was sent before it on one connection"));
            }
            let unreceipted = connection.sends[ours].receipted.is_none();
            explained |= unreceipted && connection.closed.is_some();
        }
        if !explained {
            return Err(format!("no lost connection explains that row {other} overtook it"));
        }
    }
    Ok(())
}

#[test]
fn only_the_broker_is_excused() {
    let lost = |sends: &[(u64, bool)]| Connection::for_test(sends, true);
    let live = |sends: &[(u64, bool)]| Connection::for_test(sends, false);
    let late = Late { serial: 1, overtaken_by: vec![2] };
    let judged = |connections: &[Connection]| dropped_by_broker(&late, connections).is_ok();
    assert!(judged(&[lost(&[(1, false), (2, false)]), live(&[(1, true), (2, true)])]));
    assert!(judged(&[lost(&[(1, false), (2, true)]), live(&[(1, true)])]));
    // Sent again in the wrong order.
    assert!(!judged(&[lost(&[(1, false), (2, false)]), live(&[(2, true), (1, true)])]));
    // Receipted, or never on a connection that was lost.
    assert!(!judged(&[lost(&[(1, true), (2, false)]), live(&[(1, true), (2, true)])]));
    assert!(!judged(&[live(&[(1, false), (2, true)])]));
    assert!(!judged(&[lost(&[(2, false)]), live(&[(1, true)])]));
}
