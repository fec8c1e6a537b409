//! The process itself: log, threads, limits, names, reload.

use std::time::Duration;

use crate::config::file;
use crate::config::read::{Count, Given};
use crate::config::resolve::{Resolver, list};
use crate::config::values::{Dns, KernelTls, Limits, Log, LogFormat, Reload, Runtime};

/// What container platforms give a process between SIGTERM and SIGKILL by default.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Answers with a time to live of zero are not asked for again by each of many connections at once.
const MIN_TTL: Duration = Duration::from_secs(1);
/// A moved server is found after five minutes, whatever its zone says.
const MAX_TTL: Duration = Duration::from_secs(300);
/// Beyond this a number of threads is a slip, not a machine.
const MOST_WORKERS: usize = 1024;

pub(super) fn log(section: Option<&file::Log>) -> Log {
    let format = section.map_or(LogFormat::Text, |log| log.format.or(LogFormat::Text));
    let level = section.and_then(|log| log.level.value()).map_or("info", |level| &level.0);
    Log { format, level: level.to_owned() }
}

pub(super) fn runtime(section: Option<&file::Runtime>, resolver: &mut Resolver<'_>) -> Runtime {
    let workers = section.and_then(|runtime| runtime.workers.located());
    if let Some((span, _)) = workers.filter(|(_, count)| count.0 > MOST_WORKERS) {
        let repair = format!("write at most {MOST_WORKERS}, or leave the key out for one per processor");
        resolver.report(span, "more worker threads than any machine can use", "too many", repair);
    }
    let affinity = section.map(|runtime| &runtime.affinity);
    if let Some(affinity) = affinity {
        resolver.refuse_empty(affinity, "affinity", "the system chooses");
        resolver.refuse_repeated(affinity, "processor");
    }
    let affinity = affinity.map(list).unwrap_or_default().into_iter().map(|processor| processor.0).collect();
    let kernel_tls = section.map_or(KernelTls::Off, |runtime| runtime.kernel_tls.or(KernelTls::Off));
    Runtime { workers: workers.map(|(_, count)| count.0), affinity, kernel_tls }
}

pub(super) fn limits(section: Option<&file::Limits>) -> Limits {
    let count = |given: fn(&file::Limits) -> &Given<Count>| section.and_then(|limits| given(limits).value());
    Limits {
        max_connections: count(|limits| &limits.max_connections).map(|count| count.0),
        memory: section.and_then(|limits| limits.memory.value()).map(|bytes| bytes.0),
        max_warm: count(|limits| &limits.max_warm).map(|count| count.0),
    }
}

pub(super) fn dns(section: Option<&file::Dns>, resolver: &mut Resolver<'_>) -> Dns {
    let Some(section) = section else {
        return Dns { servers: Vec::new(), min_ttl: MIN_TTL, max_ttl: MAX_TTL };
    };
    resolver.refuse_repeated(&section.servers, "name server");
    let min_ttl = section.min_ttl.or(MIN_TTL);
    let max_ttl = section.max_ttl.or(MAX_TTL);
    // One of the two was typed, else the defaults would hold, which do not contradict.
    let typed = section.min_ttl.span().or_else(|| section.max_ttl.span());
    if let Some(span) = typed.filter(|_| min_ttl > max_ttl) {
        let title = format!("`min_ttl` ({min_ttl:?}) is longer than `max_ttl` ({max_ttl:?})");
        resolver.report(span, title, "contradicts the other", "make `min_ttl` the shorter of the two");
    }
    let servers = list(&section.servers).into_iter().map(|server| server.0).collect();
    Dns { servers, min_ttl, max_ttl }
}

pub(super) fn reload(section: Option<&file::Reload>) -> Reload {
    Reload { watch: section.is_none_or(|reload| reload.watch.or(true)) }
}
