//! Servers of an upstream: what was typed of them, and what holds where nothing was.

use std::collections::HashMap;

use crate::config::file;
use crate::config::resolve::{Resolver, list};
use crate::config::values::{ActiveCheck, Balance, CheckKind, Ejection, Server, Share, Strategy};

/// The servers; reports what is wrong with their list.
pub(super) fn servers(section: &file::Upstream, resolver: &mut Resolver<'_>) -> Vec<Server> {
    resolver.refuse_repeated(&section.servers, "server");
    resolver.need(&section.servers, &section.at, "servers", "servers = [\"db.example.com:443\"]");
    if let Some((span, _)) = section.servers.located().filter(|(_, servers)| servers.is_empty()) {
        resolver.report(span, "there is no server", "nothing in it", "write `servers = [\"db.example.com:443\"]`");
    }
    for table in tables(section) {
        resolver.need(&table.address, &table.at, "address", "address = \"db.example.com:443\"");
    }
    addresses(section)
}

/// The servers; reports nothing.
pub(super) fn addresses(section: &file::Upstream) -> Vec<Server> {
    list(&section.servers).iter().filter_map(file::Listed::server).cloned().collect()
}

fn tables(section: &file::Upstream) -> Vec<file::ServerTable> {
    let listed = list(&section.servers).into_iter();
    let tables = listed.filter_map(|listed| match listed {
        file::Listed::Table(table) => Some(*table),
        file::Listed::Address(_) => None,
    });
    tables.collect()
}

pub(super) fn balance(section: &file::Upstream) -> Balance {
    let strategy = section.balance.or(Strategy::default());
    let shares: HashMap<_, _> =
        tables(section).iter().filter_map(|table| Some((table.address.value()?.clone(), share(table)))).collect();
    if strategy != Strategy::Priority {
        return Balance { strategy, shares };
    }
    // The list is the order, where servers do not say otherwise.
    let typed: HashMap<_, _> = tables(section)
        .iter()
        .filter_map(|table| Some((table.address.value()?.clone(), count(table.priority.value()?.0))))
        .collect();
    let ordered = addresses(section).into_iter().enumerate().map(|(place, server)| {
        let priority = typed.get(&server).copied().unwrap_or_else(|| count(place + 1));
        let share = Share { priority, ..shares.get(&server).copied().unwrap_or_default() };
        (server, share)
    });
    Balance { strategy, shares: ordered.collect() }
}

fn share(table: &file::ServerTable) -> Share {
    let default = Share::default();
    Share {
        weight: table.weight.value().map_or(default.weight, |weight| count(weight.0)),
        priority: table.priority.value().map_or(default.priority, |priority| count(priority.0)),
        max_connections: table.max_connections.value().map(|bound| bound.0),
    }
}

/// A count is read within 32 bits.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn ejection(section: &file::Upstream, resolver: &mut Resolver<'_>) -> Ejection {
    let typed = section.ejection.or_empty();
    for given in [&typed.backoff, &typed.max_backoff] {
        if let Some((span, _)) = given.located().filter(|(_, duration)| duration.is_zero()) {
            let repair = "write a longer duration; `max_share = 0` switches ejection off";
            resolver.report(span, "no time at all: nothing would be ejected", "zero", repair);
        }
    }
    let mut ejection = typed.settings();
    let Ejection { backoff, max_backoff, .. } = ejection;
    match typed.max_backoff.span().filter(|_| max_backoff < backoff) {
        Some(span) => {
            let title = format!("`max_backoff` ({max_backoff:?}) is shorter than `backoff` ({backoff:?})");
            resolver.report(span, title, "shorter than the first time", "make it longer, or `backoff` shorter");
        }
        None => ejection.max_backoff = max_backoff.max(backoff),
    }
    ejection
}

pub(super) fn active_check(section: &file::Upstream, resolver: &mut Resolver<'_>) -> Option<ActiveCheck> {
    let typed = section.active_check.value()?;
    if let Some((span, _)) = typed.interval.located().filter(|(_, interval)| interval.is_zero()) {
        resolver.report(span, "checks without a pause between them", "zero", "write a longer duration");
    }
    let mut check = typed.settings();
    if section.passthrough.or(false) {
        check.kind = typed.kind.or(CheckKind::Tcp);
        if let Some(span) = typed.kind.span().filter(|_| check.kind == CheckKind::Tls) {
            let title = "egret speaks no TLS to an upstream with `passthrough`, so it cannot check with it";
            resolver.report(span, title, "not with `passthrough`", "write `kind = \"tcp\"`");
        }
    }
    Some(check)
}
