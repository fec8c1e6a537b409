//! The process itself: threads and names.

use std::time::Duration;

use crate::config::file;
use crate::config::resolve::Resolver;
use crate::config::values::{Dns, Runtime};

/// What container platforms give a process between SIGTERM and SIGKILL by default.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Beyond this a number of threads is a slip, not a machine.
const MOST_WORKERS: usize = 1024;

pub(super) fn runtime(section: &file::Runtime, resolver: &mut Resolver<'_>) -> Runtime {
    if let Some((span, _)) = section.workers.located().filter(|(_, count)| count.0 > MOST_WORKERS) {
        let repair = format!("write at most {MOST_WORKERS}, or leave the key out for one per processor");
        resolver.report(span, "more worker threads than any machine can use", "too many", repair);
    }
    resolver.refuse_empty(&section.affinity, "affinity", "the system chooses");
    resolver.refuse_repeated(&section.affinity, "processor");
    section.settings()
}

pub(super) fn dns(section: &file::Dns, resolver: &mut Resolver<'_>) -> Dns {
    resolver.refuse_repeated(&section.servers, "name server");
    let dns = section.settings();
    // One of the two was typed, else the defaults would hold, which do not contradict.
    let typed = section.min_ttl.span().or_else(|| section.max_ttl.span());
    if let Some(span) = typed.filter(|_| dns.min_ttl > dns.max_ttl) {
        let title = format!("`min_ttl` ({:?}) is longer than `max_ttl` ({:?})", dns.min_ttl, dns.max_ttl);
        resolver.report(span, title, "contradicts the other", "make `min_ttl` the shorter of the two");
    }
    dns
}
