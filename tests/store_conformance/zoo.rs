//! Stores that are broken in one way each, and the cases that find them out.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use respond_async::operation::{
    Change, Due, NewOperation, Operation, OperationId, Outcome, Owner, Status,
};
use respond_async::store::conformance::{self, Fixture};
use respond_async::store::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Durability, Fingerprint, Full, ListQuery,
    MemoryStore, Observed, OperationStore, Page, Submission, Swap, Swapped,
};
use respond_async::time::Timestamp;

use super::broken::{Answer, Cage, Defect};

mod bounds;
mod crashes;
mod fences;
mod keys;
mod sound;
mod work;
mod writes;

use bounds::*;
use crashes::*;
use fences::*;
use keys::*;
use work::*;
use writes::*;

/// A test for each line: the defect is caught by each of the cases that it names.
macro_rules! caught {
    ($($test:ident: $defect:ident by $($case:ident)+;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $test() {
            $({
                let cage = Cage::<$defect>::empty().await;
                let run = tokio::spawn(async move { conformance::$case(&cage).await });
                let name = stringify!($case);
                match tokio::time::timeout(Duration::from_secs(60), run).await {
                    Ok(Err(error)) => assert!(error.is_panic(), "{name} was canceled"),
                    Ok(Ok(())) => panic!("{name} does not see the defect"),
                    Err(_) => panic!("{name} does not end"),
                }
            })+
        }
    )+};
}

caught! {
    // Acceptance.
    input_cut_at_nul: InputCutAtNul by c01_what_was_accepted_is_found_as_it_was_given;
    limit_of_bodies_not_kept: BodyLimitIgnored by c06_a_body_over_the_limit_is_refused;
    id_overwritten: IdOverwritten by c05_an_acceptance_without_an_answer_can_be_repeated
        c07_an_id_in_use_is_never_overwritten;
    // Crashes.
    ack_before_commit: AckBeforeCommit by c02_what_was_acknowledged_survives_a_crash
        c23_an_end_survives_a_crash;
    ambiguous_as_failure: AmbiguousAsFailure by c03_of_a_cut_acceptance_there_is_all_or_nothing;
    key_after_operation: KeyAfterOperation by c03_of_a_cut_acceptance_there_is_all_or_nothing
        c83_a_key_never_stands_without_its_operation;
    input_after_operation: InputAfterOperation by c03_of_a_cut_acceptance_there_is_all_or_nothing;
    reused_epoch: ReusedEpoch by c30_attempts_grow_and_never_repeat;
    attempt_on_failure: AttemptOnFailure by c52_a_claim_is_counted_before_a_crash;
    cancel_not_durable: CancelNotDurable by c74_a_vanished_worker_ends_a_requested_cancellation;
    // What follows from a write.
    outbox_separate: OutboxSeparate by c100_what_follows_comes_with_the_write_or_not_at_all;
    outbox_volatile: OutboxVolatile by c100_what_follows_comes_with_the_write_or_not_at_all
        c102_a_delivery_keeps_its_id_over_attempts;
    outbox_first: OutboxFirst by c100_what_follows_comes_with_the_write_or_not_at_all;
    rollback_swallowed: RollbackSwallowed by c100_what_follows_comes_with_the_write_or_not_at_all;
    renamed_by_retry: RenamedByRetry by c102_a_delivery_keeps_its_id_over_attempts;
    // The register.
    fence_ignored: FenceIgnored by c13_a_write_over_another_version_is_a_conflict
        c15_one_of_several_writes_over_a_version_wins c34_a_stale_worker_is_refused
        c42_a_clock_that_runs_ahead_breaks_no_fence;
    lost_update: CheckThenWrite by c10_no_update_is_lost c11_reads_and_writes_have_one_order
        c12_a_write_without_an_answer_took_place_or_did_not
        c15_one_of_several_writes_over_a_version_wins;
    stale_read: StaleRead by c11_reads_and_writes_have_one_order
        c14_a_write_is_seen_through_every_handle;
    write_id_dropped: WriteIdDropped by c12_a_write_without_an_answer_took_place_or_did_not
        c16_a_change_without_an_answer_is_made_once c14_a_write_is_seen_through_every_handle;
    removal_unfenced: RemovalUnfenced by c13_a_write_over_another_version_is_a_conflict;
    // What is finished.
    terminal_rewrite: TerminalRewrite by c20_what_is_finished_never_changes
        c21_one_of_several_ends_is_recorded;
    reaper_by_id: ReaperById by c22_an_end_and_its_settlement_do_not_both_take_place;
    fields_merged: FieldsMerged by c24_an_outcome_is_kept_byte_for_byte;
    opaque_fields_dropped: OpaqueFieldsDropped by c24_an_outcome_is_kept_byte_for_byte;
    lost_outcome: LostOutcome by c24_an_outcome_is_kept_byte_for_byte;
    // Leases and what is due.
    double_claim: DoubleClaim by c31_one_of_many_claims_gets_an_operation
        c32_many_workers_share_the_work c101_one_of_many_senders_gets_a_delivery;
    renew_unfenced: RenewUnfenced by c34_a_stale_worker_is_refused
        c36_renewal_and_claim_do_not_both_take_place;
    fence_by_worker_name: FenceByWorkerName by c34_a_stale_worker_is_refused
        c35_a_worker_is_known_by_its_attempt_only;
    caller_clock: CallerClock by c40_a_callers_clock_decides_nothing;
    clock_back_ends_leases: ClockBackEndsLeases
        by c41_a_clock_that_is_put_back_makes_nothing_immortal;
    poison_row_blocks_sweep: PoisonRowBlocksSweep by c44_a_passed_deadline_ends_the_work;
    hint_required: HintRequired by c43_delayed_work_is_given_out_in_time
        c45_work_of_a_vanished_worker_is_given_out_again;
    clock_ahead: ClockAhead by c43_delayed_work_is_given_out_in_time
        c45_work_of_a_vanished_worker_is_given_out_again;
    known_ahead: KnownAhead by c39_the_time_that_is_known_is_never_ahead;
    leases_for_ever: LeasesForEver by c34_a_stale_worker_is_refused
        c45_work_of_a_vanished_worker_is_given_out_again;
    kinds_ignored: KindsIgnored by c55_work_is_given_out_by_kind;
    ties_backwards: TiesBackwards by c56_the_longest_due_comes_first;
    newest_due_first: NewestDueFirst by c56_the_longest_due_comes_first;
    // Progress and cancellation.
    acknowledged_and_not_written: CancelNotWritten by c71_a_running_worker_sees_the_request;
    cancel_from_snapshot: CancelFromSnapshot by c72_cancellation_and_claim_agree;
    cancel_blind: CancelBlind by c73_cancellation_and_completion_agree;
    progress_backwards: ProgressFromCache by c60_readers_never_see_progress_fall;
    // Idempotency keys.
    key_ignores_payload: KeyIgnoresPayload by c81_another_request_under_the_key_is_refused;
    key_not_atomic: KeyNotAtomic by c82_many_requests_at_once_make_one_operation;
    key_before_operation: KeyBeforeOperation by c83_a_key_never_stands_without_its_operation;
    key_across_owners: KeyAcrossOwners by c84_owners_and_scopes_keep_keys_apart;
    key_outlives_operation: KeyOutlivesOperation by c85_a_key_lives_as_long_as_its_operation;
    key_burnt: KeyBurnt by c87_a_refused_request_does_not_use_up_its_key;
    // Retention.
    expired_still_visible: ExpiredVisible by c85_a_key_lives_as_long_as_its_operation
        c90_expired_is_absent;
    purge_of_unfinished: PurgeUnfinished by c91_live_operations_are_never_purged;
    purge_too_much: PurgeUnbounded by c92_an_operation_goes_as_a_whole;
    purge_holds_claims: PurgeHoldsClaims by c94_claims_go_on_during_a_purge;
    tombstones_for_ever: TombstonesForEver by c95_a_steady_flow_leaves_nothing;
    resurrection: Resurrection by c93_what_is_gone_does_not_come_back;
    // Two versions.
    unknown_members_dropped: UnknownDropped by c106_members_of_a_newer_version_are_kept
        c108_two_versions_share_the_work;
    unknown_state_forgotten: UnknownForgotten by c107_an_unknown_state_is_left_alone;
    // Limits.
    limits_ignored: LimitsIgnored by c96_a_limit_holds_under_a_rush
        c97_an_owners_limit_is_its_own c99_the_end_of_work_makes_room;
    limits_racy: LimitRacy by c96_a_limit_holds_under_a_rush;
    anonymous_limited: AnonymousLimited by c97_an_owners_limit_is_its_own;
    owner_before_total: OwnerBeforeTotal by c98_a_refusal_says_whose_limit_is_reached;
    full_before_key: FullBeforeKey by c98_a_refusal_says_whose_limit_is_reached;
    // Owners.
    list_across_owners: ListAcrossOwners by c110_a_foreign_operation_is_an_unknown_one
        c111_lists_do_not_cross_owners;
    pages_repeat: PagesRepeat by c113_pages_hold_everything_once;
    pages_by_offset: PagesByOffset by c114_pages_do_not_shift_while_others_write;
}

/// What lies between two steps that should be one: long enough that, in a race, others get there.
async fn gap() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// Writes whatever the version is.
async fn write_over(store: &MemoryStore, mut swap: Swap) -> Answer<Swapped> {
    loop {
        let Some(current) = store.get(swap.next.id()).await? else { return Ok(Swapped::Gone) };
        swap.expected = current.operation.version();
        match store.swap(swap.clone()).await? {
            Swapped::Conflict(_) => {}
            answer => return Ok(answer),
        }
    }
}

/// What a key is unique in: owner, scope and key.
type KeyName = (Owner, String, String);

fn key_name(submission: &Submission) -> Option<KeyName> {
    let idempotency = submission.idempotency.as_ref()?;
    let key = idempotency.key.as_str().to_owned();
    Some((submission.operation.owner().clone(), idempotency.scope.to_string(), key))
}
