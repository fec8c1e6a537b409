//! Where sessions stand: by endpoint, newest first. No clock and no metrics: every call is told the time and
//! tells what it did.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::NamedGroup;
use rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

use super::Verdict;
use crate::originate::certificate::Date;

/// TLS 1.3 sessions of one endpoint. They are used once, so this is how many connections may begin there at once and
/// all resume; a session with its chain takes 2 to 5 KiB.
pub const MAX_PER_ENDPOINT: usize = 256;

/// Sessions of one origin over all its endpoints: two endpoints may be full, sixteen have room for 32 each, and the
/// memory of an origin ends at 2.5 MiB.
pub const MAX_SESSIONS: usize = 512;

/// Seconds in which an endpoint that did not take the session of another is given none. Endpoints that share their keys
/// by and by are noticed soon, and one session wasted in ten minutes is nothing.
const ALONE: i64 = 600;

/// The sessions of one origin.
#[derive(Default)]
pub(super) struct Shelf {
    racks: HashMap<SocketAddr, Rack>,
    held: usize,
    /// The group that the server chose last, and when the note of it is torn up: without an end, a server
    /// that learns a better group would never be asked for it.
    pub(super) group: Option<(NamedGroup, Date)>,
    next: u64,
    retired: bool,
}

/// The sessions of one endpoint.
struct Rack {
    /// One is enough: a TLS 1.2 session is used again and again.
    tls12: Option<Session<Tls12>>,
    /// Oldest first. The newest is used first: a server that was restarted takes none of the older ones.
    tls13: VecDeque<Session<Tls13>>,
    /// Until then it is given no session of another endpoint: it took none.
    alone: Date,
}

type Tls12 = Box<Tls12ClientSessionValue>;
type Tls13 = Box<Tls13ClientSessionValue>;

pub(super) struct Session<T> {
    pub(super) number: u64,
    pub(super) server_name: ServerName<'static>,
    pub(super) endpoint: SocketAddr,
    pub(super) verdict: Arc<Verdict>,
    pub(super) value: T,
}

/// What was found, and what else had to go.
pub(super) struct Taken<T> {
    pub(super) session: Option<Session<T>>,
    /// The session is no longer on the shelf.
    pub(super) removed: bool,
    pub(super) expired: usize,
    /// Sessions of another server name. An origin has one name, so there are none; if there were, they would end here.
    pub(super) foreign: usize,
}

/// What became of a session that was brought, and what had to go for it.
#[derive(Default)]
pub(super) struct Put {
    pub(super) kept: bool,
    pub(super) expired: usize,
    pub(super) displaced: usize,
}

impl Shelf {
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn held_of(&self, endpoint: SocketAddr) -> usize {
        self.racks.get(&endpoint).map_or(0, Rack::held)
    }

    /// Empties it for good; says how many sessions went.
    pub(super) fn retire(&mut self) -> usize {
        self.retired = true;
        self.racks.clear();
        std::mem::take(&mut self.held)
    }

    /// The newest session of the endpoint, else one of the endpoint that has the most.
    pub(super) fn take_tls13(&mut self, endpoint: SocketAddr, server_name: &ServerName<'_>, now: Date) -> Taken<Tls13> {
        let mut taken = Taken { session: None, removed: false, expired: 0, foreign: 0 };
        let own = self.racks.get_mut(&endpoint);
        let alone = own.as_ref().is_some_and(|rack| rack.alone > now);
        if let Some(rack) = own {
            rack.take(server_name, now, &mut taken);
        }
        while taken.session.is_none() && !alone {
            let others = self.racks.values_mut().filter(|rack| !rack.tls13.is_empty());
            let Some(fullest) = others.max_by_key(|rack| rack.tls13.len()) else { break };
            fullest.take(server_name, now, &mut taken);
        }
        taken.removed = taken.session.is_some();
        self.held -= taken.expired + taken.foreign + usize::from(taken.removed);
        taken
    }

    /// The session of the endpoint, else of any. It stays.
    pub(super) fn tls12(&mut self, endpoint: SocketAddr, server_name: &ServerName<'_>, now: Date) -> Taken<Tls12> {
        let mut expired = 0;
        for rack in self.racks.values_mut() {
            expired += usize::from(rack.tls12.take_if(|session| session.verdict.until <= now).is_some());
        }
        self.held -= expired;
        let own = self.racks.get(&endpoint);
        let alone = own.is_some_and(|rack| rack.alone > now);
        let others = self.racks.values().filter(|_| !alone);
        let mut sessions = own.into_iter().chain(others).filter_map(|rack| rack.tls12.as_ref());
        let session = sessions.find(|session| session.server_name == *server_name).cloned();
        Taken { session, removed: false, expired, foreign: 0 }
    }

    pub(super) fn put_tls13(&mut self, session: Session<Tls13>, now: Date) -> Put {
        let mut put = Put::default();
        let Some(session) = self.admit(session) else { return put };
        let rack = self.rack(session.endpoint);
        put.expired = rack.drop_expired(now);
        if rack.tls13.len() >= MAX_PER_ENDPOINT {
            rack.tls13.pop_front();
            put.displaced = 1;
        }
        rack.tls13.push_back(session);
        self.kept(put)
    }

    pub(super) fn put_tls12(&mut self, session: Session<Tls12>, _now: Date) -> Put {
        let mut put = Put::default();
        let Some(session) = self.admit(session) else { return put };
        let before = self.rack(session.endpoint).tls12.replace(session);
        put.displaced = usize::from(before.is_some());
        self.kept(put)
    }

    /// Removes the TLS 1.2 session of the endpoint, and the one that was offered to it; says how many those were.
    pub(super) fn remove_tls12(&mut self, endpoint: SocketAddr, offered: Option<u64>) -> usize {
        let mut removed = 0;
        for (of, rack) in &mut self.racks {
            let goes = |session: &mut Session<Tls12>| *of == endpoint || Some(session.number) == offered;
            removed += usize::from(rack.tls12.take_if(goes).is_some());
        }
        self.held -= removed;
        removed
    }

    /// What an endpoint did with a session of another. If it took none, it has keys of its own: another session
    /// would be wasted on it, for a while.
    pub(super) fn lent(&mut self, endpoint: SocketAddr, taken: bool, now: Date) {
        if !self.retired {
            self.rack(endpoint).alone = if taken { Date(0) } else { Date(now.0.saturating_add(ALONE)) };
        }
    }

    fn admit<T>(&mut self, session: Session<T>) -> Option<Session<T>> {
        self.next += 1;
        (!self.retired).then_some(Session { number: self.next, ..session })
    }

    /// Counts one more, and makes room for it: the endpoint that has the most gives.
    fn kept(&mut self, mut put: Put) -> Put {
        self.held = self.held + 1 - put.expired - put.displaced;
        while self.held > MAX_SESSIONS {
            let fullest = self.racks.values_mut().max_by_key(|rack| rack.held());
            let Some(gone) = fullest.map(Rack::drop_oldest).filter(|gone| *gone > 0) else { break };
            self.held -= gone;
            put.displaced += gone;
        }
        Put { kept: true, ..put }
    }

    fn rack(&mut self, endpoint: SocketAddr) -> &mut Rack {
        // Endpoints come and go with DNS; what is known of those that have nothing here is not worth more than room.
        if self.racks.len() >= MAX_SESSIONS && !self.racks.contains_key(&endpoint) {
            self.racks.retain(|_, rack| rack.held() > 0);
        }
        self.racks.entry(endpoint).or_insert_with(|| Rack { tls12: None, tls13: VecDeque::new(), alone: Date(0) })
    }
}

impl Rack {
    fn held(&self) -> usize {
        self.tls13.len() + usize::from(self.tls12.is_some())
    }

    fn take(&mut self, server_name: &ServerName<'_>, now: Date, taken: &mut Taken<Tls13>) {
        while let Some(session) = self.tls13.pop_back() {
            if session.server_name != *server_name {
                taken.foreign += 1;
            } else if session.verdict.until <= now {
                taken.expired += 1;
            } else {
                taken.session = Some(session);
                return;
            }
        }
    }

    /// The oldest that have expired; those between good ones are found when their turn comes.
    fn drop_expired(&mut self, now: Date) -> usize {
        let before = self.tls13.len();
        while self.tls13.front().is_some_and(|session| session.verdict.until <= now) {
            self.tls13.pop_front();
        }
        before - self.tls13.len()
    }

    fn drop_oldest(&mut self) -> usize {
        let gone = self.tls13.pop_front().is_some() || self.tls12.take().is_some();
        usize::from(gone)
    }
}

impl<T: Clone> Clone for Session<T> {
    fn clone(&self) -> Self {
        let (server_name, verdict, value) = (self.server_name.clone(), Arc::clone(&self.verdict), self.value.clone());
        Self { number: self.number, server_name, endpoint: self.endpoint, verdict, value }
    }
}
