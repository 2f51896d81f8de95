//! One suite for every store.
//!
//! Each function takes a [`Testbed`] with an empty store and panics with what it expected. [`run_all`] runs them all.

mod asides;
mod commits;
pub mod fixtures;
mod logs;
mod reads;
mod residency;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::Store;

/// Closes a store and opens what it kept, as the next process would.
pub type Reopen = Box<dyn Fn(Arc<dyn Store>) -> Pin<Box<dyn Future<Output = Arc<dyn Store>>>>>;

/// An empty store and the way to open it again.
pub struct Testbed {
    /// The store.
    pub store: Arc<dyn Store>,
    /// How to open it again.
    pub reopen: Reopen,
}

impl Testbed {
    /// The store as the next process finds it.
    async fn reopened(&self) -> Arc<dyn Store> {
        (self.reopen)(Arc::clone(&self.store)).await
    }
}

/// Runs the whole suite, each test on a store of its own.
pub async fn run_all<F: Future<Output = Testbed>>(empty: impl Fn() -> F) {
    macro_rules! run {
        ($($part:ident::$test:ident),+ $(,)?) => {
            $(
                println!("conformance: {}", stringify!($test));
                let testbed = empty().await;
                $part::$test(&testbed).await;
            )+
        };
    }
    run!(
        commits::an_empty_store_loads_nothing,
        commits::everything_in_a_commit_survives_a_reopen,
        commits::a_commit_that_fails_leaves_nothing,
        commits::of_two_rows_under_one_key_the_last_wins,
        commits::an_operation_id_keeps_its_first_row,
        commits::lists_take_effect_in_their_order,
        logs::a_log_is_paged_by_count_and_by_bytes,
        logs::a_truncated_tail_takes_its_operation_ids_along,
        logs::trimming_raises_the_floor_and_keeps_operation_ids,
        logs::a_forgotten_timeline_leaves_records_and_operation_ids,
        logs::a_snapshot_moves_the_floor_to_the_position,
        reads::records_answer_in_the_order_of_the_keys,
        reads::a_scan_pages_through_one_home_or_all,
        reads::tombstones_are_listed_oldest_first_up_to_a_version,
        reads::operation_ids_are_paged_in_order,
        reads::counts_follow_the_rows,
        reads::a_reader_beside_the_writer_sees_whole_commits,
        asides::a_conflict_is_kept_once_and_listed_newest_first,
        asides::a_quarantined_row_is_updated_in_place,
        residency::a_purge_leaves_the_home_and_the_kept_positions,
        residency::bytes_are_found_in_every_place_until_they_are_purged,
    );
}
