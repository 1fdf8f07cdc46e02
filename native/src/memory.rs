//! How much memory evaluations may take: what is live when they begin, and a budget for each.
//!
//! regorus holds the bytes of the whole process against one limit, so evaluations in several threads share it: the
//! limit is a floor, taken when the first of them starts, plus the budgets of all that run. The floor is not read anew
//! while any runs, or one that grows would lift it for itself. Loading a bundle lifts the limit while it lasts, and
//! what it leaves is added to the floor: data and policies are the operator's, and count against no evaluation.

use std::sync::{Mutex, MutexGuard, PoisonError};

use regorus::{flush_thread_memory_counters, set_global_memory_limit};
use regorus_mimalloc::{current_thread_live_bytes, global_allocation_stats_snapshot};

extern "C" {
    /// Of the allocator: pages without anything live go back to the system, at once.
    fn mi_collect(force: bool);
}

/// Give back what this thread has freed. Loading and testing take many times what they leave.
pub fn give_back() {
    // SAFETY: it takes no pointer, and may be called by any thread at any time (mimalloc.h, "Extended functionality").
    unsafe { mi_collect(true) }
}

struct Shared {
    running: u32,
    /// How many evaluations have started, ever.
    started: u64,
    loading: u32,
    /// Bytes that count against nobody.
    floor: u64,
    /// The budgets of those that run.
    granted: u64,
}

static SHARED: Mutex<Shared> = Mutex::new(Shared { running: 0, started: 0, loading: 0, floor: 0, granted: 0 });

fn shared() -> MutexGuard<'static, Shared> {
    // No code that holds the lock panics; were it to, the numbers are still whole.
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn enforce(&self) {
        let limited = self.running > 0 && self.loading == 0;
        set_global_memory_limit(limited.then(|| self.floor.saturating_add(self.granted)));
    }
}

/// The right of one evaluation to its budget, until it is dropped.
pub struct Grant {
    bytes: u64,
    started: u64,
    first: bool,
}

impl Grant {
    pub fn of(bytes: u64) -> Self {
        let mut shared = shared();
        let first = shared.running == 0;
        if first {
            shared.floor = global_allocation_stats_snapshot().allocated;
        }
        shared.running = shared.running.saturating_add(1);
        shared.started = shared.started.wrapping_add(1);
        shared.granted = shared.granted.saturating_add(bytes);
        shared.enforce();
        Self { bytes, started: shared.started, first }
    }

    /// Whether no other evaluation has run beside this one: what was taken, this one took.
    pub fn alone(&self) -> bool {
        self.first && shared().started == self.started
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        // A thread that ends must not take what it has not yet reported with it.
        flush_thread_memory_counters();
        let mut shared = shared();
        shared.running = shared.running.saturating_sub(1);
        shared.granted = shared.granted.saturating_sub(self.bytes);
        shared.enforce();
    }
}

/// Do what is nobody's evaluation, as loading a bundle, without a limit.
pub fn unlimited<T>(work: impl FnOnce() -> T) -> T {
    struct Loading {
        before: i64,
    }
    impl Drop for Loading {
        fn drop(&mut self) {
            flush_thread_memory_counters();
            let left = current_thread_live_bytes().saturating_sub(self.before);
            let mut shared = shared();
            shared.loading = shared.loading.saturating_sub(1);
            shared.floor = shared.floor.saturating_add(u64::try_from(left).unwrap_or(0));
            shared.enforce();
            drop(shared);
            give_back();
        }
    }
    let mut shared = shared();
    shared.loading = shared.loading.saturating_add(1);
    shared.enforce();
    drop(shared);
    let _loading = Loading { before: current_thread_live_bytes() };
    work()
}
