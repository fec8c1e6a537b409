//! Upstreams as a document: servers, TLS, limits.

use serde_json::{Value, json};

use super::{seconds, tls};
use crate::config::values::{ActiveCheck, Ejection, Pool, Server, Tcp, Upstream};

pub(super) fn upstream(spec: &Upstream) -> Value {
    json!({
        "servers": spec.servers.iter().map(|one| server(spec, one)).collect::<Vec<_>>(),
        "balance": spec.balance.strategy.word(),
        "ejection": ejection(&spec.ejection),
        "active_check": spec.active_check.as_ref().map(active_check),
        "close_on_removal": spec.close_on_removal,
        "passthrough": spec.passthrough,
        // With passthrough, egret has no TLS of its own.
        "tls": (!spec.passthrough).then(|| tls(&spec.tls)),
        "upgrade": spec.upgrade.map(|protocol| protocol.word),
        "originate_timeout": seconds(spec.originate_timeout),
        "pool": spec.pool.as_ref().map(pool),
        "idle_timeout": spec.stream.idle.map(seconds),
        "max_lifetime": spec.stream.lifetime.map(seconds),
        "half_closed_timeout": seconds(spec.stream.half_closed),
        "eof": spec.stream.eof.word(),
        "tcp": tcp(&spec.tcp),
    })
}

fn server(spec: &Upstream, server: &Server) -> Value {
    let share = spec.balance.share(server);
    json!({
        "address": server.to_string(),
        "weight": share.weight,
        "priority": share.priority,
        "max_connections": share.max_connections,
    })
}

fn ejection(spec: &Ejection) -> Value {
    json!({
        "failures": spec.failures,
        "backoff": seconds(spec.backoff),
        "max_backoff": seconds(spec.max_backoff),
        "max_share": spec.max_share,
    })
}

fn active_check(spec: &ActiveCheck) -> Value {
    json!({ "interval": seconds(spec.interval), "kind": spec.kind.word() })
}

fn pool(spec: &Pool) -> Value {
    json!({
        "min_idle": spec.min_idle,
        "max_idle": spec.max_idle,
        "max_idle_age": seconds(spec.max_idle_age),
    })
}

pub(super) fn tcp(spec: &Tcp) -> Value {
    json!({
        "keepalive": spec.keepalive.map(seconds),
        "user_timeout": spec.user_timeout.map(seconds),
        "fast_open": spec.fast_open,
        "multipath": spec.multipath,
        "congestion": spec.congestion,
    })
}
