//! Events that repeat: the first is logged in full, and what repeats within a second becomes one line with the count.
//! A server that refuses 1,250 connections a second makes two lines a second, and not 2,500.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::seconds;
use crate::config::values::Name;

/// An event that may repeat often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    OriginationFailed,
    FillFailed,
    ProofFailed,
    Unproven,
    /// A connection whose upstream was never ready.
    Unserved,
    ClientDenied,
    AcceptingPauses,
    /// The limit on connections is reached.
    AcceptingWaits,
    EndpointEjected,
    EndpointBack,
    RenegotiationDeclined,
    AdminAcceptingPauses,
    AdminClientDenied,
    AdminRequestRefused,
}

impl Event {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OriginationFailed => "origination failed",
            Self::FillFailed => "filling the pool failed",
            Self::ProofFailed => "upstream not proven yet",
            Self::Unproven => "upstream not proven in time",
            Self::Unserved => "connection",
            Self::ClientDenied => "client denied",
            Self::AcceptingPauses => "accepting pauses",
            Self::AcceptingWaits => "accepting waits",
            Self::EndpointEjected => "endpoint ejected",
            Self::EndpointBack => "endpoint is back",
            Self::RenegotiationDeclined => "renegotiation declined",
            Self::AdminAcceptingPauses => "admin cannot accept, pausing",
            Self::AdminClientDenied => "admin client denied",
            Self::AdminRequestRefused => "admin request refused",
        }
    }

    fn is_warning(self) -> bool {
        !matches!(self, Self::Unserved | Self::EndpointBack | Self::AdminClientDenied)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    event: Event,
    reason: &'static str,
    upstream: Option<Name>,
    listener: Option<Name>,
    endpoint: Option<SocketAddr>,
}

impl Key {
    pub(crate) fn new(event: Event, reason: &'static str) -> Self {
        Self { event, reason, upstream: None, listener: None, endpoint: None }
    }

    pub(crate) fn upstream(self, name: &Name) -> Self {
        Self { upstream: Some(name.clone()), ..self }
    }

    pub(crate) fn listener(self, name: &Name) -> Self {
        Self { listener: Some(name.clone()), ..self }
    }

    pub(crate) fn endpoint(self, address: Option<SocketAddr>) -> Self {
        Self { endpoint: address, ..self }
    }
}

/// Whether this event is to be logged in full. If not, it is counted for the summary line of its second.
pub(crate) fn is_first(key: Key) -> bool {
    table().admits(key, Instant::now())
}

/// Logs the summaries that are due, at the end of the process all of them; returns how long until the next is due.
pub(super) fn report(is_last: bool) -> Option<Duration> {
    let now = Instant::now();
    let (sums, next) = table().take(now, is_last);
    sums.iter().for_each(Sum::log);
    next.map(|next| next.saturating_duration_since(now))
}

fn table() -> MutexGuard<'static, Table> {
    static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An event that repeats is logged at most this often.
const WINDOW: Duration = Duration::from_secs(1);
/// How often a flood shows one of its events in full again: the last minutes of a log then hold the facts and the
/// repair.
const FULL_EVERY: Duration = Duration::from_secs(60);
/// Kinds of events that are kept apart, some 200 bytes each. Beyond this bound, those of one class share an entry.
const MAX_ENTRIES: usize = 1024;

#[derive(Default)]
struct Table(HashMap<Key, Entry>);

/// An event that was logged within the last second, or repeats.
struct Entry {
    began: Instant,
    last_full: Instant,
    due: Instant,
    /// Events since the last line.
    count: u64,
    /// Events since `began`, those in full included.
    total: u64,
}

/// The summary of events that were not logged in full.
struct Sum {
    key: Key,
    count: u64,
    total: u64,
    lasted: Duration,
}

impl Table {
    fn admits(&mut self, key: Key, now: Instant) -> bool {
        let key = match self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&key) {
            true => Key::new(key.event, key.reason),
            false => key,
        };
        let new = Entry { began: now, last_full: now, due: now + WINDOW, count: 0, total: 0 };
        let entry = self.0.entry(key).or_insert(new);
        entry.total += 1;
        // A quiet second ends a flood, even if no call has removed the entry.
        let is_over = entry.count == 0 && now >= entry.due + WINDOW;
        if is_over {
            *entry = Entry { began: now, last_full: now, due: now + WINDOW, count: 0, total: 1 };
        }
        let is_full = entry.total == 1 || now >= entry.last_full + FULL_EVERY;
        if is_full {
            entry.last_full = now;
        } else {
            entry.count += 1;
        }
        is_full
    }

    fn take(&mut self, now: Instant, is_last: bool) -> (Vec<Sum>, Option<Instant>) {
        let mut sums = Vec::new();
        self.0.retain(|key, entry| {
            if now < entry.due && !is_last {
                return true;
            }
            if entry.count == 0 {
                return false;
            }
            let lasted = now.saturating_duration_since(entry.began);
            sums.push(Sum { key: key.clone(), count: entry.count, total: entry.total, lasted });
            entry.count = 0;
            entry.due = now + WINDOW;
            true
        });
        let next = self.0.values().map(|entry| entry.due).min();
        (sums, next)
    }
}

impl Sum {
    fn log(&self) {
        let Self { key, count, total, lasted } = self;
        let seconds = seconds(*lasted);
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    listener = key.listener.as_ref().map(display),
                    upstream = key.upstream.as_ref().map(display),
                    endpoint = key.endpoint.map(display),
                    reason = key.reason,
                    count,
                    total,
                    seconds,
                    "{}, repeated",
                    key.event.as_str(),
                )
            };
        }
        if key.event.is_warning() { log!(warn) } else { log!(info) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(endpoint: &str) -> Key {
        Key::new(Event::OriginationFailed, "connect_refused").endpoint(endpoint.parse().ok())
    }

    fn counts(sums: &[Sum]) -> Vec<(u64, u64)> {
        sums.iter().map(|sum| (sum.count, sum.total)).collect()
    }

    #[test]
    fn a_flood_has_one_line_in_full_and_one_each_second() {
        let mut table = Table::default();
        let start = Instant::now();
        let full: Vec<u32> =
            (0..3_000).filter(|n| table.admits(key("192.0.2.1:1"), start + *n * Duration::from_micros(800))).collect();
        assert_eq!(full, [0], "the first only");
        let (sums, next) = table.take(start + WINDOW, false);
        assert_eq!(counts(&sums), [(2_999, 3_000)]);
        assert_eq!(next, Some(start + 2 * WINDOW));
        assert!(!table.admits(key("192.0.2.1:1"), start + WINDOW), "the flood goes on");
        assert_eq!(counts(&table.take(start + 2 * WINDOW, false).0), [(1, 3_001)]);
        let (sums, next) = table.take(start + 3 * WINDOW, false);
        assert!(sums.is_empty() && next.is_none(), "a quiet second ends it");
        assert!(table.admits(key("192.0.2.1:1"), start + 3 * WINDOW));
    }

    #[test]
    fn events_that_differ_in_class_upstream_or_endpoint_are_all_logged_in_full() {
        let mut table = Table::default();
        let now = Instant::now();
        let one = Name::new("one");
        let other = Name::new("other");
        for key in [
            key("192.0.2.1:1"),
            key("192.0.2.2:1"),
            key("192.0.2.1:1").upstream(&one),
            key("192.0.2.1:1").upstream(&other),
            Key::new(Event::OriginationFailed, "connect_timeout"),
            Key::new(Event::Unserved, "connect_timeout"),
            Key::new(Event::Unserved, "connect_timeout").listener(&one),
        ] {
            assert!(table.admits(key.clone(), now), "{key:?}");
            assert!(!table.admits(key.clone(), now), "{key:?}");
        }
    }

    #[test]
    fn slow_events_are_all_logged_in_full() {
        let mut table = Table::default();
        let start = Instant::now();
        for n in 0..5 {
            assert!(table.admits(key("192.0.2.1:1"), start + n * 2 * WINDOW), "event {n}, with no look in between");
        }
    }

    #[test]
    fn a_long_flood_shows_an_event_in_full_each_minute() {
        let mut table = Table::default();
        let start = Instant::now();
        let mut full = 0;
        for second in 0..180 {
            let now = start + second * WINDOW;
            full += (0..100).filter(|_| table.admits(key("192.0.2.1:1"), now)).count();
            table.take(now + WINDOW, false);
        }
        assert_eq!(full, 3);
    }

    #[test]
    fn entries_are_bounded_and_every_event_is_counted() {
        let mut table = Table::default();
        let now = Instant::now();
        let events = 3 * MAX_ENTRIES as u64;
        let mut full = 0;
        for n in 0..events {
            let address = SocketAddr::from(([192, 0, 2, 1], u16::try_from(n).expect("few")));
            let key = Key::new(Event::OriginationFailed, "connect_refused").endpoint(Some(address));
            full += u64::from(table.admits(key, now));
        }
        assert_eq!(table.0.len(), MAX_ENTRIES + 1);
        let (sums, _) = table.take(now, true);
        assert_eq!(full + sums.iter().map(|sum| sum.count).sum::<u64>(), events);
    }
}
