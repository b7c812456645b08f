//! Engines with deliberate faults: each must be caught.

use super::{Rules, run, story};
use crate::engine::Fault;

/// Within so many seeds a fault must show.
const ALL: u64 = 2_000;
const OUTSIDE: u64 = 20_000;

/// The first seed under which the fault shows; the sound engine passes it.
fn caught(fault: Fault, rules: Rules, seeds: u64) -> u64 {
    let Some(seed) = (0..seeds).find(|&seed| run(seed, Some(fault), rules).is_err()) else {
        panic!("{fault:?} is not caught in {seeds} schedules");
    };
    assert!(run(seed, None, rules).is_ok(), "\n{}", story(seed, None, rules, 80));
    seed
}

macro_rules! mutants {
    ($($name:ident => $fault:ident,)*) => {
        mod all_rules {
            use super::*;
            $(#[test] fn $name() { caught(Fault::$fault, Rules::All, ALL); })*
        }

        /// None is forgotten: a fault without a test does not compile.
        #[test]
        fn every_fault_has_its_test() {
            let tested = [$(Fault::$fault),*];
            for fault in tested {
                match fault { $(Fault::$fault => {})* }
            }
        }
    };
}

mutants! {
    confirm_at_begin => ConfirmAtBegin,
    confirm_at_commit_read => ConfirmAtCommitRead,
    confirm_keepalive_at_once => ConfirmKeepaliveAtOnce,
    keepalive_inside_transaction => KeepaliveInsideTransaction,
    confirm_change_position => ConfirmChangePosition,
    keep_watermark_across_sessions => KeepWatermarkAcrossSessions,
    no_confirmed_floor => NoConfirmedFloor,
    watermark_follows_last => WatermarkFollowsLast,
    fold_into_successor => FoldIntoSuccessor,
    stale_holds_candidates => StaleHoldsCandidates,
    empty_is_no_candidate => EmptyIsNoCandidate,
    keepalive_ignored => KeepaliveIgnored,
    recognise_by_lsn_only => RecogniseByLsnOnly,
    recognise_by_xid_only => RecogniseByXidOnly,
    forget_partial_transaction => ForgetPartialTransaction,
    partial_is_whole => PartialIsWhole,
    place_ignored => PlaceIgnored,
    forget_done => ForgetDone,
    drop_unsent_at_session_loss => DropUnsentAtSessionLoss,
    drop_resends_after_lane_loss => DropResendsAfterLaneLoss,
    cumulative_receipt => CumulativeReceipt,
    accept_any_receipt => AcceptAnyReceipt,
    resend_after_new => ResendAfterNew,
    resend_at_session_start => ResendAtSessionStart,
    send_while_standby => SendWhileStandby,
    ignore_window => IgnoreWindow,
    refusal_is_receipt => RefusalIsReceipt,
    refusals_never_halt => RefusalsNeverHalt,
    never_careful => NeverCareful,
    no_probe => NoProbe,
    send_while_probing => SendWhileProbing,
    probe_is_receipt => ProbeIsReceipt,
    missing_never_noticed => MissingNeverNoticed,
    close_on_silence => CloseOnSilence,
}

/// Faults that lose events, or hold them for ever, are seen from outside too: by what PostgreSQL
/// was told and what the broker got, with no other rule in force.
mod outside_rules {
    use super::*;

    macro_rules! losing {
        ($($name:ident => $fault:ident,)*) => {
            $(#[test] fn $name() { caught(Fault::$fault, Rules::Outside, OUTSIDE); })*
        };
    }

    losing! {
        confirm_at_commit_read => ConfirmAtCommitRead,
        confirm_keepalive_at_once => ConfirmKeepaliveAtOnce,
        keep_watermark_across_sessions => KeepWatermarkAcrossSessions,
        fold_into_successor => FoldIntoSuccessor,
        keepalive_ignored => KeepaliveIgnored,
        recognise_by_lsn_only => RecogniseByLsnOnly,
        recognise_by_xid_only => RecogniseByXidOnly,
        partial_is_whole => PartialIsWhole,
        place_ignored => PlaceIgnored,
        drop_unsent_at_session_loss => DropUnsentAtSessionLoss,
        drop_resends_after_lane_loss => DropResendsAfterLaneLoss,
        cumulative_receipt => CumulativeReceipt,
        accept_any_receipt => AcceptAnyReceipt,
        refusal_is_receipt => RefusalIsReceipt,
        refusals_never_halt => RefusalsNeverHalt,
        no_probe => NoProbe,
        probe_is_receipt => ProbeIsReceipt,
        missing_never_noticed => MissingNeverNoticed,
    }
}
