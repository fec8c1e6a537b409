//! The memory budget at start, and the connections that it allows.

use crate::config::values::Limits;
use crate::memory::{self, Shares};

/// Shares out the budget, and lowers `bound` to the connections that it allows. A bound that was asked for and cannot
/// be had is logged.
pub(super) fn connections(limits: &Limits, bound: usize) -> usize {
    let limit = memory::limit();
    let Some(budget) = limits.memory.or_else(|| limit.as_ref().map(|limit| limit.bytes / 2)) else { return bound };
    let shares = Shares::of(budget);
    shares.apply();
    let source = limit.as_ref().map(|limit| tracing::field::display(limit.source.display()));
    tracing::info!(budget, limit = limit.as_ref().map(|limit| limit.bytes), source, "memory budget");
    if limit.as_ref().is_some_and(|limit| limit.bytes < budget) {
        tracing::warn!("limits.memory is more than the process may use: it may be killed under load");
    }
    if let Some(asked) = limits.max_connections.filter(|asked| *asked <= bound && *asked > shares.connections) {
        tracing::warn!(
            asked,
            max_connections = shares.connections,
            budget,
            "limits.max_connections is more than the memory budget allows: further clients wait; raise the memory \
             limit or limits.memory, or lower max_connections",
        );
    }
    bound.min(shares.connections)
}
