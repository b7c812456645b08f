//! Engines with deliberate faults: each must be caught.

use super::misstep::{Defect, Misstep};
use super::schedule::Shape;
use super::{Rules, run, story};
use crate::engine::Fault;

/// Within so many seeds a fault must show.
const ALL: u64 = 5_000;
const OUTSIDE: u64 = 40_000;
/// Of which one in thirteen is of a certain shape.
const IN_SHAPE: u64 = 200_000;

/// The fault shows in one of the schedules, which the sound engine passes.
fn caught(defect: Defect, rules: Rules, seeds: u64) {
    caught_in(None, defect, rules, seeds);
}

/// The fault shows in one of the schedules of a shape.
fn caught_in(shape: Option<Shape>, defect: Defect, rules: Rules, seeds: u64) {
    let mut which = (0..seeds).filter(|&seed| shape.is_none_or(|shape| Shape::of(seed) == shape));
    let Some(seed) = which.find(|&seed| run(seed, Some(defect), rules).is_err()) else {
        panic!("{defect:?} is not caught in {seeds} schedules");
    };
    assert!(run(seed, None, rules).is_ok(), "\n{}", story(seed, None, rules, 80));
}

macro_rules! mutants {
    ($($name:ident => $fault:ident,)*) => {
        mod all_rules {
            use super::*;
            $(#[test] fn $name() { caught(Defect::Engine(Fault::$fault), Rules::All, ALL); })*
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
    silent_close_is_innocent => SilentCloseIsInnocent,
    only_the_oldest_is_suspect => OnlyTheOldestIsSuspect,
    down_is_an_attempt => DownIsAnAttempt,
    what_is_out_is_not_awaited => WhatIsOutIsNotAwaited,
    all_are_tried_together => AllAreTriedTogether,
    no_probe => NoProbe,
    send_while_probing => SendWhileProbing,
    probe_is_receipt => ProbeIsReceipt,
    missing_never_noticed => MissingNeverNoticed,
    held_trial_is_closed_at_once => HeldTrialIsClosedAtOnce,
    close_on_silence => CloseOnSilence,
    drop_recovered_at_session_loss => DropRecoveredAtSessionLoss,
    drained_without_recovered => DrainedWithoutRecovered,
    recovered_holds_candidates => RecoveredHoldsCandidates,
    progress_is_what_was_read => ProgressIsWhatWasRead,
    resume_is_whole => ResumeIsWhole,
    resume_is_unfenced => ResumeIsUnfenced,
    resume_ignored => ResumeIgnored,
    certify_ignores_connections => CertifyIgnoresConnections,
    certify_ignores_guard => CertifyIgnoresGuard,
    certify_not_passed => CertifyNotPassed,
    confirm_before_mark => ConfirmBeforeMark,
    failed_mark_is_forgotten => FailedMarkIsForgotten,
    marks_of_the_old_timeline => MarksOfTheOldTimeline,
    progress_ignores_owed => ProgressIgnoresOwed,
    fence_ignored => FenceIgnored,
    table_of_the_old_timeline => TableOfTheOldTimeline,
    parked_is_open => ParkedIsOpen,
    opens_with_rows_unread => OpensWithRowsUnread,
    max_parked_ignored => MaxParkedIgnored,
    pause_ignored => PauseIgnored,
    delivered_is_kept => DeliveredIsKept,
    never_condemned => NeverCondemned,
}

/// The relay's protocol with a deliberate fault.
mod protocol {
    use super::*;

    /// All of them are caught; those of the second list, by which something never arrives, from outside, too.
    macro_rules! missteps {
        ({$($strict:ident => $by_rules:ident in $strict_shape:ident,)*} {$($name:ident => $misstep:ident in $shape:ident,)*}) => {
            $(#[test] fn $strict() { caught_by(Misstep::$by_rules, Shape::$strict_shape, Rules::All); })*
            $(#[test] fn $name() { caught_by(Misstep::$misstep, Shape::$shape, Rules::All); })*

            mod outside_rules {
                use super::*;
                $(#[test] fn $name() { caught_by(Misstep::$misstep, Shape::$shape, Rules::Outside); })*
            }

            #[test]
            fn every_misstep_has_its_test() {
                for tested in [$(Misstep::$by_rules,)* $(Misstep::$misstep),*] {
                    match tested { $(Misstep::$by_rules => {})* $(Misstep::$misstep => {})* }
                }
            }
        };
    }

    fn caught_by(misstep: Misstep, shape: Shape, rules: Rules) {
        caught_in(Some(shape), Defect::Protocol(misstep), rules, IN_SHAPE);
    }

    missteps! {
        {
            slot_before_row => SlotBeforeRow in Slots,
            unfinished_slot_kept => UnfinishedSlotKept in Slots,
            kept_twice => KeptTwice in Parking,
            keeps_unchecked => KeepsUnchecked in Parking,
        }
        {
            snapshot_before_slot => SnapshotBeforeSlot in Slots,
            streaming_before_snapshot => StreamingBeforeSnapshot in Slots,
            cursor_before_receipts => CursorBeforeReceipts in Slots,
            cursor_kept => CursorKept in Slots,
            recovered_too_early => RecoveredTooEarly in Slots,
            unseen_passed_over => UnseenPassedOver in Slots,
            position_before_snapshot => PositionBeforeSnapshot in Certified,
            connections_alike => ConnectionsAlike in Certified,
            old_primarys_snapshot => OldPrimarysSnapshot in Certified,
            timeline_ignored => TimelineIgnored in Certified,
            slot_ahead_kept => SlotAheadKept in Certified,
            guard_of_session => GuardOfSession in Guard,
            guard_after_snapshot => GuardAfterSnapshot in Guard,
            older_not_awaited => OlderNotAwaited in Guard,
            epoch_ignored => EpochIgnored in Slots,
            epoch_of_session => EpochOfSession in Slots,
            retention_by_age => RetentionByAge in Certified,
            locked_is_deleted => LockedIsDeleted in Marks,
            unseen_is_deleted => UnseenIsDeleted in Marks,
            seen_afterwards => SeenAfterwards in Marks,
            marked_is_locked => MarkedIsLocked in Marks,
            unanswered_is_marked => UnansweredIsMarked in Marks,
            marks_unchecked => MarksUnchecked in Marks,
            marks_of_earlier_session => MarksOfEarlierSession in Marks,
            marks_not_flushed => MarksNotFlushed in Marks,
            latest_end_only => LatestEndOnly in Marks,
            unanswered_is_kept => UnansweredIsKept in Parking,
        }
    }
}

/// Faults that lose events, or hold them for ever, are seen from outside too: by what PostgreSQL
/// was told and what the broker got, with no other rule in force.
mod outside_rules {
    use super::*;

    macro_rules! losing {
        ($($name:ident => $fault:ident,)*) => {
            $(#[test] fn $name() { caught(Defect::Engine(Fault::$fault), Rules::Outside, OUTSIDE); })*
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
        no_probe => NoProbe,
        probe_is_receipt => ProbeIsReceipt,
        missing_never_noticed => MissingNeverNoticed,
        drained_without_recovered => DrainedWithoutRecovered,
        recovered_holds_candidates => RecoveredHoldsCandidates,
        progress_is_what_was_read => ProgressIsWhatWasRead,
        resume_is_whole => ResumeIsWhole,
        certify_ignores_connections => CertifyIgnoresConnections,
        certify_ignores_guard => CertifyIgnoresGuard,
        certify_not_passed => CertifyNotPassed,
        confirm_before_mark => ConfirmBeforeMark,
        failed_mark_is_forgotten => FailedMarkIsForgotten,
        marks_of_the_old_timeline => MarksOfTheOldTimeline,
        progress_ignores_owed => ProgressIgnoresOwed,
    }
}
