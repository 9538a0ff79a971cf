//! What every store must do, written against the port alone.
//!
//! A new implementation brings a [`Harness`] and calls [`store_conformance!`] with a function that makes one.

pub mod accepting;
pub mod beginning;
pub mod finishing;
pub mod healing;
pub mod keeping;
pub mod lining;
pub mod pausing;
pub mod walk;
pub mod world;

/// Makes a test of every case; `$harness` is an async function without arguments that yields a [`world::Harness`].
macro_rules! store_conformance {
    ($harness:path) => {
        crate::conformance::store_conformance!($harness, accepting: a_new_command_is_durable_and_due_after_its_hold,
            acceptance_and_claim_are_one_call,
            a_final_outcome_is_replayed,
            a_replay_answers_the_address_that_asks,
            a_rejection_and_a_supersession_are_replayed,
            other_parameters_conflict_in_every_state,
            a_key_belongs_to_its_requester,
            a_duplicate_finds_the_first_in_progress,
            the_first_one_who_asked_is_kept,
            addresses_of_duplicates_are_kept_once,
            a_failed_command_is_reopened_under_its_identity,
            a_repeat_makes_a_deferred_command_due,
            an_issue_time_counts_but_never_a_later_one_than_acceptance,
            without_issue_times_effective_times_rise_even_if_the_clock_steps_back);
        crate::conformance::store_conformance!($harness, beginning: an_older_command_is_superseded_without_a_claim,
            a_deferred_command_is_superseded_by_a_newer_one,
            a_command_in_flight_makes_others_wait,
            a_maybe_applied_command_blocks_until_it_is_final,
            a_command_certainly_not_applied_blocks_nothing,
            waiting_commands_are_woken_by_the_end_of_the_claim,
            an_unanswered_attempt_leaves_a_quiet_time,
            a_later_answer_does_not_clear_the_quiet_time_of_an_earlier_attempt,
            an_ended_lease_counts_as_sent,
            a_claim_in_force_is_not_given_twice,
            an_expired_command_ends_unsent,
            an_unknown_command_is_an_error);
        crate::conformance::store_conformance!($harness, finishing: a_success_is_told_once_with_everything,
            a_stale_claim_writes_nothing_but_suspicion,
            a_stale_claim_that_sent_nothing_raises_no_suspicion,
            sequences_have_no_gaps,
            a_rejection_after_an_unknown_fate_is_indeterminate,
            a_command_is_given_up_in_the_end,
            a_transient_failure_is_told_to_the_caller_who_waits,
            a_maybe_applied_command_is_deferred_even_if_a_caller_waits,
            dead_letters_are_for_commands_that_nobody_hears_of,
            everyone_who_asked_gets_a_reply);
        crate::conformance::store_conformance!($harness, keeping: the_outbox_is_read_in_order_and_confirmed_once, since_when_what_is_not_done_waits_is_known,
            due_commands_come_longest_due_first_and_page_by_page,
            a_purge_forgets_commands_and_keeps_connections,
            a_purge_spares_what_is_not_told,
            a_crash_keeps_everything_and_makes_work_due,
            what_is_forgotten_keeps_its_facts_and_is_told_without_a_body,
            forgetting_goes_on_after_a_crash,
            acts_are_kept_and_read_newest_first,
            a_probe_writes);
        crate::conformance::store_conformance!($harness, lining: a_command_is_begun_after_those_that_arrived_before,
            what_the_upstream_deferred_has_left_the_line,
            a_command_of_unknown_fate_goes_before_those_ahead_of_it,
            the_line_lists_what_is_not_begun_in_order_of_arrival,
            what_nobody_sets_to_work_is_due_when_it_is_the_first_in_line,
            after_a_crash_the_first_of_each_line_is_due);
        crate::conformance::store_conformance!($harness, pausing: a_new_command_of_a_paused_requester_waits_beside_the_line,
            a_repeat_leaves_a_paused_command_where_it_is,
            a_failed_command_that_comes_again_has_no_pauses_of_earlier,
            a_paused_command_leaves_the_line_to_those_behind,
            while_the_api_is_down_commands_keep_their_place,
            only_what_nobody_works_on_is_put_off,
            what_must_not_be_sent_any_more_ends_instead_of_being_put_off,
            paused_time_does_not_count_towards_give_up_after,
            deferred_commands_that_are_due_are_put_off_together,
            what_was_put_off_is_resumed,
            what_is_put_off_counts_for_a_tenth,
            a_deferral_while_nothing_is_sent_is_a_pause);
        crate::conformance::store_conformance!($harness, healing: a_suspect_connection_is_healed_once_and_without_an_event,
            healing_waits_for_a_command_in_flight,
            healing_that_died_with_its_process_is_done_again);
        crate::conformance::store_conformance!($harness, walk: a_random_walk_keeps_the_books_and_the_rules);
    };
    ($harness:path, $module:ident: $($case:ident),+) => {
        $(#[tokio::test]
        async fn $case() {
            crate::conformance::$module::$case(crate::conformance::world::World::new($harness().await)).await;
        })+
    };
}
pub(crate) use store_conformance;
