//! Times and counts: what contradicts another, or what others may be known not to bear.

use std::time::Duration;

use super::{Lint, sections};
use crate::config::file;
use crate::config::source::Span;
use crate::config::values::{Eof, Host, Server, Upstream};

impl Lint<'_> {
    pub(super) fn streams(&mut self, section: &file::Upstream, upstream: &Upstream) {
        if let Some(span) = section.eof.span().filter(|_| upstream.eof == Eof::Lenient) {
            let title = "an answer that was cut off looks like a complete one";
            self.advise("eof-lenient", span, title, "lenient", "remove it, unless the server never sends close_notify");
        }
        let endless = upstream.idle_timeout.is_none() && upstream.max_lifetime.is_none();
        if let Some(span) = section.idle_timeout.span().filter(|_| endless) {
            let title = "a stream whose ends were forgotten stays for ever";
            self.advise("endless-stream", span, title, "never", "write a long `idle_timeout`, or a `max_lifetime`");
        }
        self.times(section, upstream);
    }

    /// Limits that another limit makes pointless. `config::resolve` has refused those that are always wrong.
    fn times(&mut self, section: &file::Upstream, upstream: &Upstream) {
        let limits = upstream.stream_limits();
        let half_closed = section.half_closed_timeout.span();
        self.outlived(half_closed, "half_closed_timeout", limits.half_closed, "max_lifetime", limits.lifetime);
        if let (Some(tcp), Some(probes)) = (section.tcp.value(), upstream.tcp.keepalive) {
            self.outlived(tcp.keepalive.span(), "keepalive", probes, "idle_timeout", limits.idle);
        }
        if let (Some(typed), Some(pool)) = (section.pool.value(), &upstream.pool) {
            // A typed `idle_timeout` says how long the network keeps a silent connection, and a warm connection crosses
            // the same network.
            let typed = typed.max_idle_age.span().or_else(|| section.idle_timeout.span());
            self.outlived(typed, "max_idle_age", pool.max_idle_age, "idle_timeout", limits.idle);
        }
    }

    fn outlived(&mut self, at: Option<&Span>, key: &str, time: Duration, other: &str, limit: Option<Duration>) {
        if let (Some(at), Some(limit)) = (at, limit.filter(|limit| *limit < time)) {
            let title = format!("`{key}` ({time:?}) is longer than `{other}` ({limit:?})");
            let repair = format!("make `{key}` shorter, or `{other}` longer");
            self.advise("timeouts-contradict", at, title, "contradicts the other", &repair);
        }
    }

    /// Warns about more warm connections than the servers or the process may have.
    pub(super) fn pool(&mut self, section: &file::Upstream, upstream: &Upstream) {
        let Some((typed, pool)) = section.pool.value().zip(upstream.pool.as_ref()) else { return };
        let Some(at) = typed.max_idle.span().or_else(|| typed.min_idle.span()).or_else(|| section.pool.span()) else {
            return;
        };
        let most = pool.max_idle;
        if let Some(bound) = known_bound(upstream).filter(|bound| *bound < most) {
            let title = format!("up to {most} connections are kept warm, and the servers take {bound} at most");
            let repair = "make `max_idle` smaller, or `max_connections` of the servers larger if they bear it";
            self.advise("pool-too-large", at, title, "more than the servers take", repair);
        }
        let limits = &self.loaded.config.limits;
        for (key, bound) in [("max_warm", limits.max_warm), ("max_connections", limits.max_connections)] {
            if let Some(bound) = bound.filter(|bound| *bound < most) {
                let title = format!("up to {most} connections are to be kept warm, and `{key}` allows {bound}");
                let repair = format!("make `max_idle` smaller, or `{key}` of `limits` larger");
                self.advise("pool-too-large", at, title, "more than the process may have", &repair);
            }
        }
    }

    /// Warns if the sum of `min_idle` over all pools is too large.
    pub(super) fn pools(&mut self) {
        let config = &self.loaded.config;
        let kept: usize =
            config.upstreams.values().filter_map(|upstream| upstream.pool.as_ref()).map(|pool| pool.min_idle).sum();
        let typed = self.loaded.file.limits.value().and_then(|limits| limits.max_warm.located());
        let Some((span, bound)) = typed.filter(|(_, bound)| bound.0 < kept) else { return };
        let alone = sections(&self.loaded.file.upstreams).any(|(_, section)| {
            section.pool.value().and_then(|pool| pool.min_idle.value()).is_some_and(|idle| idle.0 > bound.0)
        });
        // One that is too large by itself is already reported.
        if !alone {
            let title = format!("the pools are to keep {kept} connections, and `max_warm` allows {}", bound.0);
            self.advise(
                "pool-too-large",
                span,
                title,
                "fewer than the pools ask for",
                "make it larger, or `min_idle` of the pools smaller",
            );
        }
    }
}

/// Streams that all servers together take, if the configuration bounds each of them. A name counts as one address; only
/// DNS knows how many servers a service has.
fn known_bound(upstream: &Upstream) -> Option<usize> {
    let bound = |server: &Server| match server.host {
        Host::Service(_) => None,
        Host::Dns(_) | Host::Ip(_) => upstream.balance.share(server).max_connections,
    };
    upstream.servers.iter().map(bound).sum()
}
