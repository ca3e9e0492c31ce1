//! The list of cases, once.

/// Calls a macro with the list of all cases of the [conformance
/// suite](crate::store::conformance), for those who run them otherwise than
/// [`store_conformance!`](crate::store_conformance) does.
///
/// `store_conformance_cases!(call [any tokens])` becomes
/// the items `call! { [any tokens] subject { case … } … }`, where each `case` is the name of a function of
/// [`store::conformance`](crate::store::conformance).
///
/// ```
/// macro_rules! names {
///     ([] $($subject:ident { $($case:ident)* })*) => {
///         const NAMES: &[&str] = &[$($(stringify!($case)),*),*];
///     };
/// }
/// respond_async::store_conformance_cases!(names);
/// assert!(NAMES.contains(&"c34_a_stale_worker_is_refused"));
/// ```
#[macro_export]
macro_rules! store_conformance_cases {
    ($call:path) => { $crate::store_conformance_cases! { $call [] } };
    ($call:path [$($tokens:tt)*]) => {
        $call! {
            [$($tokens)*]
            acceptance {
                c01_what_was_accepted_is_found_as_it_was_given
                c06_a_body_over_the_limit_is_refused
                c07_an_id_in_use_is_never_overwritten
            }
            crashes {
                c02_what_was_acknowledged_survives_a_crash
                c03_of_a_cut_acceptance_there_is_all_or_nothing
                c05_an_acceptance_without_an_answer_can_be_repeated
                c83_a_key_never_stands_without_its_operation
            }
            histories {
                c11_reads_and_writes_have_one_order
                c12_a_write_without_an_answer_took_place_or_did_not
                c16_a_change_without_an_answer_is_made_once
                c17_what_cannot_be_found_out_stays_in_doubt
            }
            register {
                c10_no_update_is_lost
                c13_a_write_over_another_version_is_a_conflict
                c14_a_write_is_seen_through_every_handle
                c15_one_of_several_writes_over_a_version_wins
            }
            finished {
                c20_what_is_finished_never_changes
                c21_one_of_several_ends_is_recorded
                c22_an_end_and_its_settlement_do_not_both_take_place
                c23_an_end_survives_a_crash
                c24_an_outcome_is_kept_byte_for_byte
            }
            leases {
                c30_attempts_grow_and_never_repeat
                c31_one_of_many_claims_gets_an_operation
                c32_many_workers_share_the_work
                c33_a_passed_lease_that_nobody_took_still_holds
                c34_a_stale_worker_is_refused
                c35_a_worker_is_known_by_its_attempt_only
                c36_renewal_and_claim_do_not_both_take_place
                c37_what_is_released_can_be_claimed_at_once
                c38_a_worker_that_was_paused_is_told
            }
            clocks {
                c40_a_callers_clock_decides_nothing
                c41_a_clock_that_is_put_back_makes_nothing_immortal
                c42_a_clock_that_runs_ahead_breaks_no_fence
                c39_the_time_that_is_known_is_never_ahead
            }
            due {
                c43_delayed_work_is_given_out_in_time
                c44_a_passed_deadline_ends_the_work
                c45_work_of_a_vanished_worker_is_given_out_again
                c50_used_up_attempts_end_the_work
                c52_a_claim_is_counted_before_a_crash
                c55_work_is_given_out_by_kind
                c56_the_longest_due_comes_first
            }
            progress {
                c60_readers_never_see_progress_fall
                c61_progress_does_not_undo_an_end
                c62_progress_of_an_earlier_attempt_is_refused
                c63_one_revision_looks_one_way
            }
            cancellation {
                c70_canceled_while_pending_it_never_runs
                c71_a_running_worker_sees_the_request
                c72_cancellation_and_claim_agree
                c73_cancellation_and_completion_agree
                c74_a_vanished_worker_ends_a_requested_cancellation
                c75_no_attempt_follows_a_request
                c76_there_is_nothing_to_cancel
            }
            idempotency {
                c80_the_same_request_gives_the_same_operation
                c81_another_request_under_the_key_is_refused
                c82_many_requests_at_once_make_one_operation
                c84_owners_and_scopes_keep_keys_apart
                c85_a_key_lives_as_long_as_its_operation
                c86_the_key_of_a_finished_operation_still_counts
                c87_a_refused_request_does_not_use_up_its_key
                c88_every_valid_key_is_its_own
            }
            retention {
                c90_expired_is_absent
                c91_live_operations_are_never_purged
                c92_an_operation_goes_as_a_whole
                c93_what_is_gone_does_not_come_back
                c89_what_is_forgotten_is_gone
                c57_the_longest_expired_is_purged_first
            }
            purging {
                c94_claims_go_on_during_a_purge
                c95_a_steady_flow_leaves_nothing
            }
            limits {
                c96_a_limit_holds_under_a_rush
                c97_an_owners_limit_is_its_own
                c98_a_refusal_says_whose_limit_is_reached
                c99_the_end_of_work_makes_room
            }
            outbox {
                c100_what_follows_comes_with_the_write_or_not_at_all
                c101_one_of_many_senders_gets_a_delivery
                c102_a_delivery_keeps_its_id_over_attempts
            }
            workers {
                c46_hints_are_only_hints
                c47_without_hints_workers_look_by_themselves
                c48_a_sweep_that_is_cut_off_is_made_good
                c51_work_that_fails_is_tried_again_in_time
                c53_an_outage_costs_no_attempt
                c54_work_that_misbehaves_stops_nobody
                c64_progress_is_written_once_an_interval
            }
            versions {
                c106_members_of_a_newer_version_are_kept
                c107_an_unknown_state_is_left_alone
                c108_two_versions_share_the_work
            }
            owners {
                c110_a_foreign_operation_is_an_unknown_one
                c111_lists_do_not_cross_owners
                c112_names_are_never_interpreted
            }
            pages {
                c113_pages_hold_everything_once
                c114_pages_do_not_shift_while_others_write
            }
        }
    };
}

/// Makes a test of each case of the [conformance suite](crate::store::conformance), for the store
/// that a [`Fixture`](crate::store::conformance::Fixture) gives. The tests stand where the macro is
/// called; more than one store in a file wants a module for each.
///
/// `store_conformance!(Fixture, ignore = "reason")` makes tests that run when they are asked for
/// (`cargo test -- --ignored`): for a store that takes a server.
///
/// The caller's dev-dependencies must have `tokio` with the features `macros` and
/// `rt-multi-thread`.
#[macro_export]
macro_rules! store_conformance {
    ($fixture:ty) => {
        $crate::store_conformance_cases!($crate::__store_conformance_tests[$fixture; []]);
    };
    ($fixture:ty, ignore = $reason:literal) => {
        $crate::store_conformance_cases!(
            $crate::__store_conformance_tests[$fixture; [#[ignore = $reason]]]
        );
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance_tests {
    ([$fixture:ty; $attributes:tt] $($subject:ident { $($case:ident)* })*) => {
        $($( $crate::__store_conformance_test!($fixture, $case, $attributes); )*)*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance_test {
    ($fixture:ty, $case:ident, [$($attribute:tt)*]) => {
        #[::tokio::test(flavor = "multi_thread", worker_threads = 4)]
        $($attribute)*
        async fn $case() {
            let fixture = <$fixture as $crate::store::conformance::Fixture>::empty().await;
            $crate::store::conformance::$case(&fixture).await;
        }
    };
}
