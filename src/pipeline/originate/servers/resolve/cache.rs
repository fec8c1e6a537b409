//! The cache of look-ups. No clock and no socket: every call is given the time.

use std::collections::HashMap;
use std::time::Duration;

use rustls::pki_types::DnsName;
use tokio::sync::watch;
use tokio::time::Instant;

use super::lookup::{Found, Miss};
use super::{Error, LookupResult};

/// A look-up under way, to wait for.
pub(super) type Pending<A> = watch::Receiver<Option<LookupResult<A>>>;

/// All names with answers of one kind `A`, bounded.
pub(super) struct Names<A> {
    entries: HashMap<DnsName<'static>, Entry<A>>,
    min_ttl: Duration,
    max_ttl: Duration,
}

struct Entry<A> {
    fresh: Option<Fresh<A>>,
    bad: Option<Bad>,
    pending: Option<Pending<A>>,
}

impl<A> Default for Entry<A> {
    fn default() -> Self {
        Self { fresh: None, bad: None, pending: None }
    }
}

/// The last answer. It outlives `until` as a stale one.
struct Fresh<A> {
    answer: A,
    until: Instant,
}

/// The last error, believed until then.
struct Bad {
    error: Error,
    until: Instant,
}

pub(super) enum Ask<A> {
    Known(LookupResult<A>),
    Join {
        pending: Pending<A>,
        stale: Option<A>,
    },
    /// Look up, send the result to `sender`, and wait as others do.
    Start {
        sender: watch::Sender<Option<LookupResult<A>>>,
        pending: Pending<A>,
        stale: Option<A>,
    },
}

/// Names at once. Those of a configuration are far fewer; the bound is for names that clients choose.
const MAX_NAMES: usize = 1024;

/// An answer is served this long after it expired: the lower end of what RFC 8767 section 5 suggests.
const MAX_STALE: Duration = Duration::from_secs(24 * 3600);

/// "No such name" is cached at most this long, so that a record that was just added is soon seen.
const MAX_NEGATIVE: Duration = Duration::from_secs(5);

/// After a failure DNS is not asked for this time. RFC 8767 suggests 30 s for a resolver with many clients' names; here
/// the end of an outage should be noticed at once, and one query a second is no load.
const RECHECK: Duration = Duration::from_secs(1);

impl<A: Clone> Names<A> {
    pub(super) fn new(min_ttl: Duration, max_ttl: Duration) -> Self {
        Self { entries: HashMap::new(), min_ttl, max_ttl: max_ttl.max(min_ttl) }
    }

    pub(super) fn ask(&mut self, name: &DnsName<'static>, now: Instant) -> Ask<A> {
        if !self.entries.contains_key(name) && !self.make_room(now) {
            return Ask::Known(Err(Error::failure(name, "too many names are being looked up")));
        }
        let entry = self.entries.entry(name.clone()).or_default();
        if let Some(known) = entry.known(now) {
            return Ask::Known(known);
        }
        let stale = entry.stale(now);
        match entry.pending() {
            Some(pending) => Ask::Join { pending, stale },
            None => {
                let (sender, pending) = watch::channel(None);
                entry.pending = Some(pending.clone());
                Ask::Start { sender, pending, stale }
            }
        }
    }

    /// Until when the last good answer holds, or held.
    pub(super) fn good_until(&self, name: &DnsName<'static>) -> Option<Instant> {
        self.entries.get(name)?.fresh.as_ref().map(|fresh| fresh.until)
    }

    /// Stores the result of a look-up; returns the result for its callers.
    pub(super) fn settle(
        &mut self,
        name: &DnsName<'static>,
        reply: Result<Found<A>, Miss>,
        now: Instant,
    ) -> LookupResult<A> {
        let entry = self.entries.entry(name.clone()).or_default();
        entry.pending = None;
        match reply {
            Ok(Found { answer, ttl }) => {
                let until = now + ttl.clamp(self.min_ttl, self.max_ttl);
                entry.fresh = Some(Fresh { answer: answer.clone(), until });
                entry.bad = None;
                Ok(answer)
            }
            Err(Miss { error, ttl }) => {
                let kept = match ttl {
                    _ if !error.is_answer() => RECHECK,
                    Some(ttl) => ttl.max(self.min_ttl).min(MAX_NEGATIVE),
                    None => RECHECK,
                };
                if error.is_answer() {
                    entry.fresh = None;
                }
                entry.bad = Some(Bad { error: error.clone(), until: now + kept });
                entry.stale(now).ok_or(error)
            }
        }
    }

    /// Room for one more; false if every name is being looked up right now.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.entries.len() < MAX_NAMES {
            return true;
        }
        self.entries.retain(|_, entry| entry.pending().is_some() || entry.last_use() > Some(now));
        if self.entries.len() < MAX_NAMES {
            return true;
        }
        let idle = self.entries.iter_mut().filter_map(|(name, entry)| match entry.pending() {
            Some(_) => None,
            None => Some((entry.last_use(), name.clone())),
        });
        let Some((_, oldest)) = idle.min_by_key(|(last_use, _)| *last_use) else { return false };
        self.entries.remove(&oldest).is_some()
    }
}

impl<A: Clone> Entry<A> {
    fn known(&self, now: Instant) -> Option<LookupResult<A>> {
        if let Some(fresh) = self.fresh.as_ref().filter(|fresh| now < fresh.until) {
            return Some(Ok(fresh.answer.clone()));
        }
        let bad = self.bad.as_ref().filter(|bad| now < bad.until)?;
        Some(self.stale(now).ok_or_else(|| bad.error.clone()))
    }

    /// The last answer, if it may still be served.
    fn stale(&self, now: Instant) -> Option<A> {
        let fresh = self.fresh.as_ref().filter(|fresh| now < fresh.until + MAX_STALE)?;
        Some(fresh.answer.clone())
    }

    /// The look-up under way. One whose task is gone (it panicked) is none.
    fn pending(&self) -> Option<Pending<A>> {
        self.pending.clone().filter(|pending| pending.has_changed().is_ok())
    }

    /// The end of its use, as a stale answer too. `None`, which sorts first: it never had an answer.
    fn last_use(&self) -> Option<Instant> {
        let fresh = self.fresh.as_ref().map(|fresh| fresh.until + MAX_STALE);
        fresh.max(self.bad.as_ref().map(|bad| bad.until))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;

    type Addresses = Arc<[IpAddr]>;

    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(300);

    fn name(text: &str) -> DnsName<'static> {
        DnsName::try_from(text.to_owned()).unwrap()
    }

    fn found(last: u8, ttl: u64) -> Result<Found<Addresses>, Miss> {
        Ok(Found { answer: Arc::new([IpAddr::from([192, 0, 2, last])]), ttl: Duration::from_secs(ttl) })
    }

    fn failed() -> Result<Found<Addresses>, Miss> {
        Err(Miss::from(Error::Timeout { name: "a.example.com".into() }))
    }

    fn missing() -> Result<Found<Addresses>, Miss> {
        Err(Miss { error: Error::NoSuchName { name: "a.example.com".into() }, ttl: Some(Duration::from_secs(3600)) })
    }

    fn known(names: &mut Names<Addresses>, now: Instant) -> Option<LookupResult<Addresses>> {
        match names.ask(&name("a.example.com"), now) {
            Ask::Known(landed) => Some(landed),
            Ask::Join { .. } | Ask::Start { .. } => None,
        }
    }

    fn settle(
        names: &mut Names<Addresses>,
        reply: Result<Found<Addresses>, Miss>,
        now: Instant,
    ) -> LookupResult<Addresses> {
        names.settle(&name("a.example.com"), reply, now)
    }

    #[test]
    fn ttl_is_clamped_on_both_sides() {
        let mut names = Names::<Addresses>::new(MIN, MAX);
        let start = Instant::now();
        settle(&mut names, found(1, 0), start).unwrap();
        assert!(known(&mut names, start + MIN - Duration::from_millis(1)).is_some());
        assert!(known(&mut names, start + MIN).is_none());
        settle(&mut names, found(1, 86400), start).unwrap();
        assert!(known(&mut names, start + MAX - MIN).is_some());
        assert!(known(&mut names, start + MAX).is_none());
    }

    #[test]
    fn stale_answer_is_served_for_a_day_and_not_longer() {
        let mut names = Names::<Addresses>::new(MIN, MAX);
        let start = Instant::now();
        let fresh = settle(&mut names, found(1, 60), start);
        let later = start + Duration::from_secs(60) + MAX_STALE - Duration::from_secs(2);
        assert_eq!(settle(&mut names, failed(), later), fresh, "the failure is not shown");
        assert_eq!(known(&mut names, later), Some(fresh), "nor is DNS asked again at once");
        assert_eq!(settle(&mut names, failed(), later + Duration::from_secs(3)).unwrap_err().reason(), "dns_timeout");
    }

    #[test]
    fn no_such_name_ends_an_older_answer_and_is_forgotten_soon() {
        let mut names = Names::<Addresses>::new(MIN, MAX);
        let start = Instant::now();
        settle(&mut names, found(1, 60), start).unwrap();
        let later = start + MAX;
        assert_eq!(settle(&mut names, missing(), later).unwrap_err().reason(), "dns_no_such_name");
        assert!(matches!(known(&mut names, later + MAX_NEGATIVE - MIN), Some(Err(_))));
        assert!(known(&mut names, later + MAX_NEGATIVE).is_none());
    }

    #[test]
    fn second_caller_joins_the_look_up_of_the_first() {
        let mut names = Names::<Addresses>::new(MIN, MAX);
        let now = Instant::now();
        let Ask::Start { sender, .. } = names.ask(&name("a.example.com"), now) else { panic!("nobody looks up") };
        assert!(matches!(names.ask(&name("a.example.com"), now), Ask::Join { .. }));
        drop(sender);
        assert!(matches!(names.ask(&name("a.example.com"), now), Ask::Start { .. }), "a dead look-up blocks no one");
    }

    #[test]
    fn names_are_bounded_and_those_in_flight_stay() {
        let mut names = Names::<Addresses>::new(MIN, MAX);
        let now = Instant::now();
        let flights: Vec<Ask<Addresses>> =
            (0..MAX_NAMES).map(|n| names.ask(&name(&format!("n{n}.example.com")), now)).collect();
        let Ask::Known(Err(error)) = names.ask(&name("more.example.com"), now) else { panic!("not bounded") };
        assert_eq!(error.reason(), "dns_failure");
        drop(flights);
        assert!(matches!(names.ask(&name("more.example.com"), Instant::now()), Ask::Start { .. }));
        assert!(names.entries.len() <= MAX_NAMES);
    }
}
