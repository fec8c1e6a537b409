//! The TLS sessions of an origin, bounded in number, bytes and age.
//!
//! A store belongs to exactly one origin, so no session can reach another identity, trust or server name.
//! Each handshake gets a view of its own: it prefers sessions of its endpoint, keeps the account of what
//! was offered, and ties every session to the verification it descends from. A session never outlives
//! that verification, however often it is continued.
//!
//! A TLS 1.3 session is used once, so under parallel connections a store runs empty unless every connection puts a new
//! session back: sessions are kept wherever a stream reads them, on a warm connection that waits as well.

mod room;
mod shelf;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

pub use self::shelf::{MAX_BYTES, MAX_PER_ENDPOINT, MAX_SESSIONS};
use self::shelf::{Session, Taken};
use crate::credentials::certificate::{CertificateFacts, Date};
use crate::credentials::observation::{Facts, Observed};
use crate::credentials::period::Period;
use crate::credentials::refusal::Refusal;
use crate::observe::metrics::{OriginMetrics, SessionMetrics};
use crate::tls::handed;

/// Seconds after which a server is verified in full again. OpenSSL's servers keep TLS 1.3 tickets this long by default
/// (7200 s), so that hardly a session is lost by it; RFC 8446 section 4.6.1 allows seven days.
pub(crate) const MAX_AGE: i64 = 7_200;

/// Bytes of a TLS 1.3 ticket that is kept. It comes back in a ClientHello, which then stays far below the 16 KiB of one
/// record: many servers read no longer one. OpenSSL's tickets have 200 bytes, with a client's certificate in them 2 KiB;
/// those that hold a whole chain have 6 KiB.
pub(crate) const MAX_TICKET: usize = 8_192;

/// Bytes of a server's handshake in TLS 1.2, without its chain, of which the session is kept: its ticket is one message
/// among others, of which a list of authorities may be the longest. A ClientHello is measured before it is sent.
const MAX_FLIGHT: usize = 32_768;

/// What a session takes besides ticket and chain: secrets, names, the memory of a dozen small allocations.
const FIXED: usize = 512;

type Shelf = shelf::Shelf<Box<Tls12ClientSessionValue>, Box<Tls13ClientSessionValue>>;

/// What became of resumption in one handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// A session was offered, and the server took it.
    Resumed,
    /// A session was offered, and the server wanted a full handshake.
    Refused,
    /// There was no session to offer.
    NoSession,
    /// None was offered since a handshake with the endpoint that offered one broke lately.
    Withheld,
    /// The upstream says `resumption = false`.
    Off,
}

impl Resumption {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Refused => "refused",
            Self::NoSession => "no_session",
            Self::Withheld => "withheld",
            Self::Off => "off",
        }
    }
}

/// Which sessions a ClientHello may offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    Any,
    /// One that leaves another for the clients that come meanwhile: the ClientHello is made ahead, and may never be sent.
    /// [`View::claim`] has to be called before it is.
    Spare,
}

/// The sessions of one origin.
pub struct Store {
    shelf: Mutex<Shelf>,
    limit: Date,
    metrics: Arc<OriginMetrics>,
}

#[derive(Debug)]
struct Verdict {
    good: Period,
    /// Bytes of the chain that was verified. rustls keeps a copy of it with each session.
    chain_bytes: usize,
    /// What `verify = "report"` only reported.
    refusal: Option<Refusal>,
    server: Option<Arc<CertificateFacts>>,
    /// The server asked for a client certificate; `Some(true)`: it got one.
    certificate_sent: Option<bool>,
}

impl Verdict {
    fn of(facts: &Facts, limit: Date) -> Self {
        let valid = facts.valid.unwrap_or_else(|| Period::of(Date::now(), MAX_AGE));
        let good = Period::of(valid.from, MAX_AGE).cut_at(valid.until).cut_at(limit);
        Self {
            good,
            chain_bytes: facts.chain_bytes,
            refusal: facts.refusal.clone(),
            server: facts.server(),
            certificate_sent: facts.certificate_sent(),
        }
    }
}

impl Store {
    /// An empty store whose sessions end at `limit` at the latest (the end of the identity).
    pub fn new(limit: Date) -> Arc<Self> {
        Self::counted(limit, OriginMetrics::silent())
    }

    pub(crate) fn counted(limit: Date, metrics: Arc<OriginMetrics>) -> Arc<Self> {
        Arc::new(Self { shelf: Mutex::default(), limit, metrics })
    }

    /// The view for one handshake with `endpoint`.
    pub fn view(self: &Arc<Self>, endpoint: SocketAddr, observed: &Arc<Observed>) -> Arc<View> {
        self.view_for(endpoint, observed, true, None, Taking::Any)
    }

    /// As [`Self::view`]; without `resumes` it finds no session and keeps none. `share`: the group of the key share,
    /// whatever the server chose before.
    pub(crate) fn view_for(
        self: &Arc<Self>,
        endpoint: SocketAddr,
        observed: &Arc<Observed>,
        resumes: bool,
        share: Option<NamedGroup>,
        taking: Taking,
    ) -> Arc<View> {
        let store = Arc::clone(self);
        let observed = Arc::clone(observed);
        let learns_share = share.is_none();
        let share =
            share.or_else(|| self.shelf().group.filter(|(_, known)| known.holds(Date::now())).map(|known| known.0));
        Arc::new(View { store, endpoint, observed, resumes, share, learns_share, taking, offered: Mutex::default() })
    }

    /// Whether a ClientHello made ahead would offer what one made for a client would.
    pub(crate) fn has_spare(&self, endpoint: SocketAddr) -> bool {
        self.shelf().has_spare(endpoint)
    }

    /// Sessions held now.
    pub fn held(&self) -> usize {
        self.shelf().held()
    }

    /// Sessions held now that came from `endpoint`.
    pub(crate) fn held_of(&self, endpoint: SocketAddr) -> usize {
        self.shelf().held_of(endpoint)
    }

    /// Drops every session and takes none from now on: the origin's key is another in the running generation, or its
    /// upstream is gone. Connections of the old generation may still bring some.
    pub(crate) fn retire(&self) {
        let dropped = self.shelf().retire();
        self.account().foreign.increment(dropped as u64);
        self.account().held.decrement(dropped as f64);
    }

    fn account(&self) -> &SessionMetrics {
        &self.metrics.sessions
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Every change is a single push or remove: a poisoned shelf is a whole shelf.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Sessions are secrets.
        f.debug_struct("Store").field("held", &self.held()).finish_non_exhaustive()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.account().held.decrement(self.held() as f64);
    }
}

/// The store in one handshake: prefers sessions of its endpoint, and counts.
#[derive(Debug)]
pub struct View {
    store: Arc<Store>,
    endpoint: SocketAddr,
    observed: Arc<Observed>,
    resumes: bool,
    share: Option<NamedGroup>,
    learns_share: bool,
    taking: Taking,
    offered: Mutex<Option<Offered>>,
}

#[derive(Debug)]
struct Offered {
    number: u64,
    /// The offered session came from another endpoint of the same origin.
    borrowed: bool,
    verdict: Arc<Verdict>,
    /// It is no longer in the store: one of TLS 1.2 stays.
    removed: bool,
    /// False in a ClientHello that was made ahead and not sent.
    claimed: bool,
}

impl Drop for View {
    fn drop(&mut self) {
        let offered = self.offered.get_mut().unwrap_or_else(PoisonError::into_inner);
        if offered.as_ref().is_some_and(|offered| offered.removed && !offered.claimed) {
            let is_foreign = self.store.shelf().is_retired();
            let account = self.store.account();
            let dropped = if is_foreign { &account.foreign } else { &account.expired };
            dropped.increment(1);
            account.held.decrement(1.0);
        }
    }
}

impl View {
    /// To be called once, when the handshake is over: it is counted.
    pub(crate) fn outcome(&self, resumed: bool) -> Resumption {
        let account = self.store.account();
        account.ratio.add(resumed);
        let Some(borrowed) = self.offered().as_ref().map(|offered| offered.borrowed) else {
            account.no_session.increment(1);
            return if self.resumes { Resumption::NoSession } else { Resumption::Withheld };
        };
        if borrowed {
            self.store.shelf().lent(self.endpoint, resumed, Date::now());
        }
        match resumed {
            true => {
                account.accepted.increment(1);
                Resumption::Resumed
            }
            false => {
                account.refused.increment(1);
                Resumption::Refused
            }
        }
    }

    /// To be called once, before a ClientHello is sent that was made ahead. False: it must not be sent, since its session
    /// has expired meanwhile, or there is one now and it has none.
    pub(crate) fn claim(&self) -> bool {
        let mut offered = self.offered();
        let shelf = self.store.shelf();
        let Some(offered) = &mut *offered else { return shelf.held() == 0 };
        let is_good = offered.verdict.good.holds(Date::now());
        if !is_good || !(offered.removed || shelf.holds_tls12(self.endpoint, offered.number)) {
            return false;
        }
        drop(shelf);
        offered.claimed = true;
        let account = self.store.account();
        account.offered.increment(1);
        account.held.decrement(f64::from(u8::from(offered.removed)));
        true
    }

    /// The group whose key share is sent; `None`: the first of the settings.
    pub(crate) fn share(&self) -> Option<NamedGroup> {
        self.share
    }

    /// `Some(true)`: a session of another endpoint was offered; `None`: none was.
    pub(crate) fn has_offered(&self) -> Option<bool> {
        self.offered().as_ref().map(|offered| offered.borrowed)
    }

    /// The handshake that offered a session broke before the server had gone over to a full one. The session is not
    /// offered again: it is dropped, or if it is another endpoint's, this one is lent none for a while.
    pub(crate) fn broke(&self) {
        let Some((number, borrowed)) = self.offered().as_ref().map(|offered| (offered.number, offered.borrowed)) else {
            return;
        };
        let account = self.store.account();
        account.broken.increment(1);
        if borrowed {
            return self.store.shelf().lent(self.endpoint, false, Date::now());
        }
        let removed = self.store.shelf().remove_tls12(self.endpoint, Some(number));
        account.held.decrement(removed as f64);
    }

    pub(crate) fn inherited_refusal(&self) -> Option<Refusal> {
        self.offered().as_ref()?.verdict.refusal.clone()
    }

    pub(crate) fn inherited_server(&self) -> Option<Arc<CertificateFacts>> {
        self.offered().as_ref()?.verdict.server.clone()
    }

    pub(crate) fn inherited_certificate(&self) -> Option<bool> {
        self.offered().as_ref()?.verdict.certificate_sent
    }

    fn offered(&self) -> MutexGuard<'_, Option<Offered>> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verification that a new session of this connection descends from: its own if it made one,
    /// else that of the session it resumed.
    fn verdict(&self) -> Option<Arc<Verdict>> {
        let verified = self.observed.read(|facts| facts.passed.then(|| Verdict::of(facts, self.store.limit)));
        match verified {
            Some(mut verdict) => {
                verdict.server = verdict.server.map(|server| self.store.shelf().shared(server));
                Some(Arc::new(verdict))
            }
            None => self.offered().as_ref().map(|offered| Arc::clone(&offered.verdict)),
        }
    }

    fn offer<T>(&self, take: impl FnOnce(&mut Shelf, Date) -> Taken<T>) -> Option<T> {
        let taken = take(&mut self.store.shelf(), Date::now());
        let account = self.store.account();
        let gone = taken.expired + taken.foreign;
        account.expired.increment(taken.expired as u64);
        account.foreign.increment(taken.foreign as u64);
        let (removed, claimed) = (taken.removed, self.taking == Taking::Any);
        account.held.decrement((gone + usize::from(removed && claimed)) as f64);
        let session = taken.session?;
        account.offered.increment(u64::from(claimed));
        let borrowed = session.endpoint != self.endpoint;
        *self.offered() =
            Some(Offered { number: session.number, borrowed, verdict: session.verdict, removed, claimed });
        Some(session.value)
    }

    /// Keeps a session: `put` adds it to the shelf.
    fn keep<T>(
        &self,
        server_name: ServerName<'static>,
        value: T,
        bytes: usize,
        put: impl FnOnce(&mut Shelf, Session<T>, Date) -> shelf::Put,
    ) {
        let (Some(verdict), now, true) = (self.verdict(), Date::now(), self.resumes) else { return };
        let account = self.store.account();
        if !verdict.good.holds(now) {
            return;
        }
        let mut shelf = self.store.shelf();
        let (room, displaced) = shelf.room_for(bytes + verdict.chain_bytes + FIXED);
        account.displaced.increment(displaced as u64);
        account.held.decrement(displaced as f64);
        let Some(room) = room else { return account.over_budget.increment(1) };
        let session = Session { number: 0, server_name, endpoint: self.endpoint, verdict, room, value };
        let put = put(&mut shelf, session, now);
        drop(shelf);
        account.expired.increment(put.expired as u64);
        account.displaced.increment(put.displaced as u64);
        account.held.decrement((put.expired + put.displaced) as f64);
        match put.kept {
            true => {
                account.kept.increment(1);
                account.held.increment(1.0);
            }
            false => account.foreign.increment(1),
        }
    }
}

impl ClientSessionStore for View {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, group: NamedGroup) {
        // An intolerance of one endpoint must not affect the others.
        if self.learns_share {
            self.store.shelf().group = Some((group, Period::of(Date::now(), MAX_AGE)));
        }
    }

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.share
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        // The length of a ticket that came within a handshake is only bounded by this.
        let bytes = handed::bytes();
        let chain = self.observed.read(|facts| facts.chain_bytes);
        if bytes.saturating_sub(chain) > MAX_FLIGHT {
            return self.store.account().oversized.increment(1);
        }
        self.keep(server_name, Box::new(value), bytes, Shelf::put_tls12);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let found = |shelf: &mut Shelf, now| shelf.tls12(self.endpoint, server_name, now);
        self.resumes.then(|| self.offer(found)).flatten().map(|value| *value)
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {
        // rustls asks for it when the server turned out to speak TLS 1.3, and when a resumption broke.
        let offered = self.offered().as_ref().map(|offered| offered.number);
        let removed = self.store.shelf().remove_tls12(self.endpoint, offered);
        self.store.account().held.decrement(removed as f64);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        let ticket = handed::bytes();
        if ticket > MAX_TICKET {
            return self.store.account().oversized.increment(1);
        }
        self.keep(server_name, Box::new(value), ticket, Shelf::put_tls13);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let found = |shelf: &mut Shelf, now| match self.taking {
            Taking::Any => shelf.take_tls13(self.endpoint, server_name, now),
            Taking::Spare => shelf.take_spare_tls13(self.endpoint, server_name, now),
        };
        self.resumes.then(|| self.offer(found)).flatten().map(|value| *value)
    }
}

/// No sessions, but the group of the key share, for an upstream without resumption.
#[derive(Debug)]
pub(crate) struct ShareOnly(pub(crate) NamedGroup);

impl ClientSessionStore for ShareOnly {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        Some(self.0)
    }

    fn set_tls12_session(&self, _server_name: ServerName<'static>, _value: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _server_name: ServerName<'static>, _value: Tls13ClientSessionValue) {}

    fn take_tls13_ticket(&self, _server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_a_hello_made_ahead_is_claimed_while_its_verification_is_good() {
        let endpoint = SocketAddr::from(([192, 0, 2, 1], 443));
        let now = Date::now();
        let ended = Period { from: Date(now.0 - 10), until: Date(now.0 - 1) };
        for (good, removed, claimed) in [
            (Period::of(now, 60), true, true),
            (ended, true, false),
            // One of TLS 1.2 that is not in the store any more.
            (Period::of(now, 60), false, false),
        ] {
            let store = Store::new(Date(i64::MAX));
            let view = store.view_for(endpoint, &Arc::default(), true, None, Taking::Spare);
            assert!(view.claim(), "neither has a session");
            let verdict = Verdict { good, chain_bytes: 0, refusal: None, server: None, certificate_sent: None };
            let verdict = Arc::new(verdict);
            *view.offered() = Some(Offered { number: 1, borrowed: false, verdict, removed, claimed: false });
            assert_eq!(view.claim(), claimed, "{good:?} {removed}");
        }
    }

    /// A cached verification adds nothing to the age of its sessions.
    #[test]
    fn a_verdict_counts_from_the_verification_and_ends_with_the_first_thing_that_it_rests_on() {
        let valid = Period { from: Date(1_000), until: Date(100_000) };
        for (valid, limit, until) in [
            (valid, Date(i64::MAX), 1_000 + MAX_AGE),
            (Period { until: Date(1_500), ..valid }, Date(i64::MAX), 1_500),
            (valid, Date(1_400), 1_400),
            (Period { until: Date(1_600), ..valid }, Date(1_400), 1_400),
        ] {
            let facts = Facts { passed: true, valid: Some(valid), ..Facts::default() };
            assert_eq!(Verdict::of(&facts, limit).good, Period { from: Date(1_000), until: Date(until) });
        }
    }
}
