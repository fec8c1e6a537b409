//! Panics that a test asks for, in debug builds only: `EGRET_TEST_PANICS="listener=3,pool=1"` makes the first three runs of
//! listeners panic, and the first run of a pool.

use std::env;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::park;

use super::Task;

/// `EGRET_TEST_BLOCKS=connection` makes the first run of a connection block its thread for the rest of the process.
static BLOCK: LazyLock<Mutex<Option<String>>> = LazyLock::new(|| Mutex::new(env::var("EGRET_TEST_BLOCKS").ok()));

/// Panics that are left, by the place of the task in `Task::ALL`.
static LEFT: LazyLock<[AtomicU32; Task::ALL.len()]> = LazyLock::new(|| {
    let asked = env::var("EGRET_TEST_PANICS").unwrap_or_default();
    Task::ALL.map(|task| AtomicU32::new(asked_for(task, &asked)))
});

fn asked_for(task: Task, asked: &str) -> u32 {
    let mut counts = asked.split(',').filter_map(|part| part.split_once('='));
    counts.find(|(name, _)| *name == task.as_str()).map_or(0, |(_, count)| count.parse().unwrap_or(0))
}

pub(super) fn fail_if_asked(task: Task) {
    let place = Task::ALL.iter().position(|other| *other == task).expect("the list has every kind");
    let take = |left: u32| left.checked_sub(1);
    if LEFT[place].fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
        panic!("a test has asked for this");
    }
    let asked = BLOCK.lock().unwrap_or_else(PoisonError::into_inner).take_if(|asked| asked == task.as_str());
    while asked.is_some() {
        park();
    }
}
