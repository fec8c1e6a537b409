//! The memory budget at start, and the connections that it allows.

use crate::config::values::{Config, Limits};
use crate::control::snapshot;
use crate::memory::{self, Shares};

/// Shares out the budget. `None`: nothing says how much memory there is.
pub(super) fn share_out(config: &Config) -> Option<Shares> {
    let limit = memory::limit();
    let budget = config.limits.memory.or_else(|| limit.as_ref().map(|limit| limit.bytes / 2))?;
    let pools = config.upstreams.values().any(|upstream| upstream.pool.is_some());
    let warm = if pools { config.limits.max_warm.unwrap_or(snapshot::WARM) } else { 0 };
    let shares = Shares::of(budget, warm);
    shares.apply();
    let source = limit.as_ref().map(|limit| tracing::field::display(limit.source.display()));
    tracing::info!(budget, limit = limit.as_ref().map(|limit| limit.bytes), source, "memory budget");
    if limit.as_ref().is_some_and(|limit| limit.bytes < budget) {
        tracing::warn!("limits.memory is more than the process may use: it may be killed under load");
    }
    Some(shares)
}

/// Lowers `bound` to the connections that the budget allows. A configured bound that cannot be granted is logged.
pub(super) fn connections(shares: Option<Shares>, limits: &Limits, bound: usize) -> usize {
    let Some(Shares { connections, .. }) = shares else { return bound };
    if let Some(asked) = limits.max_connections.filter(|asked| *asked <= bound && *asked > connections) {
        tracing::warn!(
            asked,
            max_connections = connections,
            "limits.max_connections is more than the memory budget allows: further clients wait; raise the memory \
             limit or limits.memory, or lower max_connections",
        );
    }
    bound.min(connections)
}
