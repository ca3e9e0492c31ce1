//! Stores that are broken in one way each, and the cases that find them out.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use respond_async::operation::{Change, Due, NewOperation, Operation, OperationId, Owner};
use respond_async::store::conformance::{self, Fixture};
use respond_async::store::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Durability, Fingerprint, Full, ListQuery,
    MemoryStore, Observed, OperationStore, Page, Submission, Swap, Swapped,
};

use super::broken::{Answer, Cage, Defect};

mod bounds;
mod keys;
mod work;
mod writes;

use bounds::*;
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
    id_overwritten: IdOverwritten by c07_an_id_in_use_is_never_overwritten;
    // The register.
    fence_ignored: FenceIgnored by c13_a_write_over_another_version_is_a_conflict
        c15_one_of_several_writes_over_a_version_wins c34_a_stale_worker_is_refused;
    lost_update: CheckThenWrite by c10_no_update_is_lost c11_reads_and_writes_have_one_order
        c15_one_of_several_writes_over_a_version_wins;
    stale_read: StaleRead by c11_reads_and_writes_have_one_order
        c14_a_write_is_seen_through_every_handle;
    write_id_dropped: WriteIdDropped by c12_a_write_without_an_answer_took_place_or_did_not
        c14_a_write_is_seen_through_every_handle;
    removal_unfenced: RemovalUnfenced by c13_a_write_over_another_version_is_a_conflict;
    // What is finished.
    terminal_rewrite: TerminalRewrite by c20_what_is_finished_never_changes
        c21_one_of_several_ends_is_recorded;
    lost_outcome: LostOutcome by c24_an_outcome_is_kept_byte_for_byte;
    // Leases and what is due.
    double_claim: DoubleClaim by c31_one_of_many_claims_gets_an_operation
        c32_many_workers_share_the_work;
    clock_ahead: ClockAhead by c43_delayed_work_is_given_out_in_time
        c45_work_of_a_vanished_worker_is_given_out_again;
    leases_for_ever: LeasesForEver by c34_a_stale_worker_is_refused
        c45_work_of_a_vanished_worker_is_given_out_again;
    kinds_ignored: KindsIgnored by c55_work_is_given_out_by_kind;
    newest_due_first: NewestDueFirst by c56_the_longest_due_comes_first;
    // Progress and cancellation.
    acknowledged_and_not_written: CancelNotWritten by c71_a_running_worker_sees_the_request;
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
    resurrection: Resurrection by c93_what_is_gone_does_not_come_back;
    // Limits.
    limits_ignored: LimitsIgnored by c96_a_limit_holds_under_a_rush
        c97_an_owners_limit_is_its_own c99_the_end_of_work_makes_room;
    limits_racy: LimitRacy by c96_a_limit_holds_under_a_rush;
    // Owners.
    list_across_owners: ListAcrossOwners by c110_a_foreign_operation_is_an_unknown_one
        c111_lists_do_not_cross_owners;
    pages_repeat: PagesRepeat by c113_pages_hold_everything_once;
}

/// Nothing is wrong: what the others have in common passes.
mod sound {
    use super::*;

    #[derive(Debug, Default)]
    struct NoDefect;

    impl Defect for NoDefect {}

    respond_async::store_conformance!(Cage<NoDefect>);
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
