//! Upstreams as a document: servers, TLS, limits.

use serde_json::{Value, json};

use super::{tls, with};
use crate::config::values::{ActiveCheck, Pool, Server, Upstream};

pub(super) fn upstream(spec: &Upstream) -> Value {
    let own = json!({
        "servers": spec.servers.iter().map(|one| server(spec, one)).collect::<Vec<_>>(),
        "balance": spec.balance.strategy.word(),
        "ejection": spec.ejection.document(),
        "active_check": spec.active_check.as_ref().map(ActiveCheck::document),
        // With passthrough, egret has no TLS of its own.
        "tls": (!spec.passthrough).then(|| tls(&spec.tls)),
        "upgrade": spec.upgrade.map(|protocol| protocol.word),
        "answer": spec.answer.map(|format| format.word),
        "pool": spec.pool.as_ref().map(Pool::document),
        "tcp": spec.tcp.document(),
    });
    with(own, spec.settings.document())
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
