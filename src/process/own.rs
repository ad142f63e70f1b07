//! Which processes are ours: whoever started one waits for it, and nobody else may take its exit status.

use std::cell::RefCell;
use std::collections::BTreeSet;

use tokio::sync::Notify;

// All children are started and reaped by the one thread of our runtime.
thread_local! {
    static PIDS: RefCell<BTreeSet<i32>> = const { RefCell::new(BTreeSet::new()) };
}

/// Tells that one of ours was waited for, and no longer hides what may have ended behind it.
pub(super) static WAITED_FOR: Notify = Notify::const_new();

pub(super) fn add(pid: i32) {
    PIDS.with_borrow_mut(|pids| pids.insert(pid));
}

pub(super) fn remove(pid: i32) {
    PIDS.with_borrow_mut(|pids| pids.remove(&pid));
    WAITED_FOR.notify_one();
}

pub(super) fn contains(pid: i32) -> bool {
    PIDS.with_borrow(|pids| pids.contains(&pid))
}
