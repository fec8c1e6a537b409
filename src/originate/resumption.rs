//! What an origin remembers of its servers: TLS sessions, bounded in number and age.
//!
//! A store belongs to exactly one origin, so no session can reach another identity, trust or server name.
//! Each handshake gets a view of its own: it prefers sessions of its endpoint, keeps the account of what
//! was offered, and ties every session to the verification it descends from. A session never outlives
//! that verification, however often it is continued.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

use crate::originate::certificate::Date;
use crate::originate::observe::Observed;
use crate::originate::refusal::Refusal;

/// Seconds after which a server is verified in full again. OpenSSL's servers keep TLS 1.3 tickets so long
/// by default (7200 s), so that hardly a session is lost by it; RFC 8446 section 4.6.1 allows seven days.
pub const MAX_AGE: i64 = 7_200;

/// Sessions of one origin. TLS 1.3 sessions are used once and servers send two at a time, so this is
/// how many connections may begin at once and all resume; a session with its chain takes 3 to 5 KiB.
pub const MAX_SESSIONS: usize = 256;

/// What became of resumption in one handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// A session was offered, and the server took it.
    Resumed,
    /// A session was offered, and the server wanted a full handshake.
    Refused,
    /// There was no session to offer.
    Starved,
    /// The upstream says `resumption = false`.
    Off,
}

impl Resumption {
    /// The word for log and metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Refused => "refused",
            Self::Starved => "starved",
            Self::Off => "off",
        }
    }
}

/// The sessions of one origin.
pub struct Store {
    shelf: Mutex<Shelf>,
    limit: Date,
}

#[derive(Default)]
struct Shelf {
    /// Oldest first.
    sessions: VecDeque<Session>,
    /// The group that the server chose last, and when the note of it is torn up: without an end, a server
    /// that learns a better group would never be asked for it.
    group: Option<(NamedGroup, Date)>,
    next: u64,
}

struct Session {
    number: u64,
    server_name: ServerName<'static>,
    endpoint: SocketAddr,
    verdict: Arc<Verdict>,
    value: Value,
}

enum Value {
    Tls12(Box<Tls12ClientSessionValue>),
    Tls13(Box<Tls13ClientSessionValue>),
}

/// The verification that a session descends from.
#[derive(Debug)]
struct Verdict {
    until: Date,
    /// What it would have objected to, under `verify = "report"`.
    refusal: Option<Refusal>,
}

impl Store {
    /// An empty store whose sessions end at `limit` at the latest (the end of the identity).
    pub fn new(limit: Date) -> Arc<Self> {
        Arc::new(Self { shelf: Mutex::default(), limit })
    }

    /// The view of one handshake with `endpoint`.
    pub fn view(self: &Arc<Self>, endpoint: SocketAddr, observed: &Arc<Observed>) -> Arc<View> {
        let (store, observed) = (Arc::clone(self), Arc::clone(observed));
        Arc::new(View { store, endpoint, observed, offered: Mutex::default() })
    }

    /// Sessions held now.
    pub fn held(&self) -> usize {
        self.shelf().sessions.len()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Every change is a single push or remove: a poisoned shelf is a whole shelf.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn put(&mut self, session: Session) {
        if self.sessions.len() >= MAX_SESSIONS {
            self.sessions.pop_front();
        }
        self.sessions.push_back(session);
    }

    /// The newest session that `fits`: of the endpoint, else of any.
    fn find(&mut self, endpoint: SocketAddr, now: Date, fits: impl Fn(&Session) -> bool) -> Option<usize> {
        self.sessions.retain(|session| session.verdict.until > now);
        let newest = |same: bool| {
            self.sessions.iter().rposition(|session| fits(session) && (!same || session.endpoint == endpoint))
        };
        newest(true).or_else(|| newest(false))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Sessions are secrets.
        f.debug_struct("Store").field("held", &self.held()).finish_non_exhaustive()
    }
}

/// The store as one handshake sees it.
#[derive(Debug)]
pub struct View {
    store: Arc<Store>,
    endpoint: SocketAddr,
    observed: Arc<Observed>,
    offered: Mutex<Option<Offered>>,
}

#[derive(Debug)]
struct Offered {
    number: u64,
    verdict: Arc<Verdict>,
}

impl View {
    /// What became of resumption, once the handshake is over.
    pub fn outcome(&self, resumed: bool) -> Resumption {
        match (resumed, self.offered().is_some()) {
            (true, _) => Resumption::Resumed,
            (false, true) => Resumption::Refused,
            (false, false) => Resumption::Starved,
        }
    }

    /// What the verification that a resumed session descends from would have objected to.
    pub fn inherited_refusal(&self) -> Option<Refusal> {
        self.offered().as_ref()?.verdict.refusal.clone()
    }

    fn offered(&self) -> MutexGuard<'_, Option<Offered>> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verification that a new session of this connection descends from: its own if it made one,
    /// else that of the session it resumed.
    fn verdict(&self) -> Option<Arc<Verdict>> {
        let verified = self.observed.read(|facts| facts.passed.then(|| (facts.valid_until, facts.refusal.clone())));
        let Some((valid_until, refusal)) = verified else {
            return self.offered().as_ref().map(|offered| Arc::clone(&offered.verdict));
        };
        let aged = Date(Date::now().0.saturating_add(MAX_AGE));
        let until = valid_until.unwrap_or(aged).min(aged).min(self.store.limit);
        Some(Arc::new(Verdict { until, refusal }))
    }

    fn keep(&self, server_name: ServerName<'static>, value: Value) {
        let Some(verdict) = self.verdict() else { return };
        if verdict.until <= Date::now() {
            return;
        }
        let mut shelf = self.store.shelf();
        if matches!(value, Value::Tls12(_)) {
            // A TLS 1.2 session is used again and again: one an endpoint is enough.
            shelf.sessions.retain(|session| !(session.is_tls12() && session.endpoint == self.endpoint));
        }
        let number = shelf.next;
        shelf.next += 1;
        shelf.put(Session { number, server_name, endpoint: self.endpoint, verdict, value });
    }

    fn offer(&self, session: &Session) {
        *self.offered() = Some(Offered { number: session.number, verdict: Arc::clone(&session.verdict) });
    }
}

impl Session {
    fn is_tls12(&self) -> bool {
        matches!(self.value, Value::Tls12(_))
    }
}

impl ClientSessionStore for View {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, group: NamedGroup) {
        self.store.shelf().group = Some((group, Date(Date::now().0.saturating_add(MAX_AGE))));
    }

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        let now = Date::now();
        self.store.shelf().group.filter(|(_, until)| *until > now).map(|(group, _)| group)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.keep(server_name, Value::Tls12(Box::new(value)));
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let mut shelf = self.store.shelf();
        let fits = |session: &Session| session.is_tls12() && session.server_name == *server_name;
        let index = shelf.find(self.endpoint, Date::now(), fits)?;
        let session = shelf.sessions.get(index)?;
        self.offer(session);
        match &session.value {
            Value::Tls12(value) => Some((**value).clone()),
            Value::Tls13(_) => None,
        }
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {
        // Asked for when the server turned out to speak TLS 1.3, and when a resumption broke.
        let offered = self.offered().as_ref().map(|offered| offered.number);
        self.store.shelf().sessions.retain(|session| {
            !session.is_tls12() || (session.endpoint != self.endpoint && Some(session.number) != offered)
        });
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.keep(server_name, Value::Tls13(Box::new(value)));
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut shelf = self.store.shelf();
        let fits = |session: &Session| !session.is_tls12() && session.server_name == *server_name;
        let index = shelf.find(self.endpoint, Date::now(), fits)?;
        let session = shelf.sessions.remove(index)?;
        self.offer(&session);
        match session.value {
            Value::Tls13(value) => Some(*value),
            Value::Tls12(_) => None,
        }
    }
}
