//! Metrics and logs, and how they leave the process without blocking it.
//!
//! | file | idea |
//! | --- | --- |
//! | [`metrics`] | every metric family, declared once |
//! | [`logging`] | the log: text or JSON, floods summed up |
//! | [`writer`] | a bounded queue and a thread for what leaves the process besides traffic |
//! | [`tasks`] | tasks that run as long as the process: an early end is logged, counted, repaired |

pub mod logging;
pub mod metrics;
pub(crate) mod tasks;
pub mod writer;
