//! Sessions by endpoint, newest first. No clock and no metrics: every call is given the time and returns what it did.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::NamedGroup;
use rustls::pki_types::ServerName;

use super::Verdict;
use super::room::Room;
use crate::credentials::certificate::{CertificateFacts, Date};
use crate::credentials::period::Period;

/// TLS 1.3 sessions of one endpoint. They are used once, so this is how many connections may begin there at once and
/// all resume.
pub const MAX_PER_ENDPOINT: usize = 256;

/// Sessions of one origin over all its endpoints: two endpoints may be full, sixteen have room for 32 each.
pub const MAX_SESSIONS: usize = 512;

/// Bytes of the sessions of one origin: 2.5 MiB. A session takes 2 to 5 KiB with the chains of public authorities, so
/// that 512 fit; of a server with a chain of 60 KiB, 40. For a full store glibc's allocator holds within 3 % of what is
/// counted (malloc_usable_size; chains of 0.3 to 60 KiB).
pub const MAX_BYTES: usize = 2_621_440;

/// Seconds in which an endpoint that did not take the session of another is given none. Endpoints that share their keys
/// later are noticed soon, and one wasted session in ten minutes is cheap.
const ALONE: i64 = 600;

/// Sessions of TLS 1.3 of which one is to spare: it is lost if its client does not come.
const SPARED: usize = 2;

/// The sessions of one origin: `A` of TLS 1.2, `B` of TLS 1.3.
pub(super) struct Shelf<A, B> {
    racks: HashMap<SocketAddr, Rack<A, B>>,
    held: usize,
    /// The group that the server chose last, and for how long that is remembered: without an end, a server that learns
    /// a better group would never be asked for it.
    pub(super) group: Option<(NamedGroup, Period)>,
    /// The facts of the newest certificate, shared by its sessions.
    server: Option<Arc<CertificateFacts>>,
    next: u64,
    retired: bool,
}

struct Rack<A, B> {
    /// One is enough: a TLS 1.2 session is used again and again.
    tls12: Option<Session<A>>,
    /// Oldest first. The newest is used first: a server that was restarted takes none of the older ones.
    tls13: VecDeque<Session<B>>,
    bytes: usize,
    /// Until then the endpoint is lent no session of another: it refused one.
    alone: Option<Period>,
}

pub(super) struct Session<T> {
    pub(super) number: u64,
    pub(super) server_name: ServerName<'static>,
    pub(super) endpoint: SocketAddr,
    pub(super) verdict: Arc<Verdict>,
    pub(super) room: Room,
    pub(super) value: T,
}

impl<T> Session<T> {
    fn is_good(&self, now: Date) -> bool {
        self.verdict.good.holds(now)
    }
}

/// The session found, and the ones removed on the way.
pub(super) struct Taken<T> {
    pub(super) session: Option<Session<T>>,
    /// The session is no longer on the shelf.
    pub(super) removed: bool,
    pub(super) expired: usize,
    /// Sessions of another server name. An origin has one name, so none is expected.
    pub(super) foreign: usize,
}

#[derive(Default)]
pub(super) struct Put {
    pub(super) kept: bool,
    pub(super) expired: usize,
    pub(super) displaced: usize,
}

impl<A, B> Default for Shelf<A, B> {
    fn default() -> Self {
        Self { racks: HashMap::new(), held: 0, group: None, server: None, next: 0, retired: false }
    }
}

impl<A: Clone, B> Shelf<A, B> {
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn held_of(&self, endpoint: SocketAddr) -> usize {
        self.racks.get(&endpoint).map_or(0, Rack::held)
    }

    /// The certificate's facts, shared with earlier sessions. For a certificate with many names they are half as long
    /// as the chain, so that a copy for each session would exceed the count of bytes.
    pub(super) fn shared(&mut self, server: Arc<CertificateFacts>) -> Arc<CertificateFacts> {
        match &self.server {
            Some(known) if known.sha256 == server.sha256 => Arc::clone(known),
            _ => Arc::clone(self.server.insert(server)),
        }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }

    /// Closes it for good; returns how many sessions were dropped.
    pub(super) fn retire(&mut self) -> usize {
        self.retired = true;
        self.racks.clear();
        self.server = None;
        std::mem::take(&mut self.held)
    }

    /// The newest session of the endpoint, else one of the endpoint that has the most.
    pub(super) fn take_tls13(&mut self, endpoint: SocketAddr, server_name: &ServerName<'_>, now: Date) -> Taken<B> {
        let mut taken = Taken { session: None, removed: false, expired: 0, foreign: 0 };
        let own = self.racks.get_mut(&endpoint);
        let alone = own.as_ref().is_some_and(|rack| rack.is_alone(now));
        if let Some(rack) = own {
            rack.take(server_name, now, &mut taken);
        }
        while taken.session.is_none() && !alone {
            let others = self.racks.values_mut().filter(|rack| !rack.tls13.is_empty());
            let Some(fullest) = others.max_by_key(|rack| rack.tls13.len()) else { break };
            fullest.take(server_name, now, &mut taken);
        }
        self.removed(taken)
    }

    fn removed(&mut self, taken: Taken<B>) -> Taken<B> {
        let removed = taken.session.is_some();
        self.held -= taken.expired + taken.foreign + usize::from(removed);
        Taken { removed, ..taken }
    }

    /// The session of the endpoint, else of any other. It is not removed.
    pub(super) fn tls12(&mut self, endpoint: SocketAddr, server_name: &ServerName<'_>, now: Date) -> Taken<A> {
        let mut expired = 0;
        for rack in self.racks.values_mut() {
            expired += usize::from(rack.take_tls12(|session| !session.is_good(now)));
        }
        self.held -= expired;
        let own = self.racks.get(&endpoint);
        let alone = own.is_some_and(|rack| rack.is_alone(now));
        let others = self.racks.values().filter(|_| !alone);
        let mut sessions = own.into_iter().chain(others).filter_map(|rack| rack.tls12.as_ref());
        let session = sessions.find(|session| session.server_name == *server_name).cloned();
        Taken { session, removed: false, expired, foreign: 0 }
    }

    pub(super) fn put_tls13(&mut self, session: Session<B>, now: Date) -> Put {
        let mut put = Put::default();
        let Some(session) = self.admit(session) else { return put };
        let rack = self.rack(session.endpoint);
        put.expired = rack.drop_expired(now);
        if rack.tls13.len() >= MAX_PER_ENDPOINT {
            put.displaced = rack.drop_oldest();
        }
        rack.bytes += session.room.bytes();
        rack.tls13.push_back(session);
        self.kept(put)
    }

    pub(super) fn put_tls12(&mut self, session: Session<A>, _now: Date) -> Put {
        let mut put = Put::default();
        let Some(session) = self.admit(session) else { return put };
        let rack = self.rack(session.endpoint);
        put.displaced = usize::from(rack.take_tls12(|_| true));
        rack.bytes += session.room.bytes();
        rack.tls12 = Some(session);
        self.kept(put)
    }

    /// Whether a ClientHello can be made ahead that is the same as one made for a client: there is a session to spare, or
    /// none at all.
    pub(super) fn has_spare(&self, endpoint: SocketAddr) -> bool {
        let Some(rack) = self.racks.get(&endpoint).filter(|rack| rack.held() > 0) else { return self.held == 0 };
        rack.tls13.len() >= SPARED || rack.tls13.is_empty()
    }

    /// As [`Self::take_tls13`], of the endpoint's own, and only if another one is left.
    pub(super) fn take_spare_tls13(
        &mut self,
        endpoint: SocketAddr,
        server_name: &ServerName<'_>,
        now: Date,
    ) -> Taken<B> {
        let mut taken = Taken { session: None, removed: false, expired: 0, foreign: 0 };
        if let Some(rack) = self.racks.get_mut(&endpoint).filter(|rack| rack.tls13.len() >= SPARED) {
            rack.take(server_name, now, &mut taken);
        }
        self.removed(taken)
    }

    /// Whether the session is there: one of TLS 1.2 is offered again and again.
    pub(super) fn holds_tls12(&self, endpoint: SocketAddr, number: u64) -> bool {
        let session = self.racks.get(&endpoint).and_then(|rack| rack.tls12.as_ref());
        session.is_some_and(|session| session.number == number)
    }

    /// Removes the TLS 1.2 session of the endpoint, and the one that was offered to it; returns how many.
    pub(super) fn remove_tls12(&mut self, endpoint: SocketAddr, offered: Option<u64>) -> usize {
        let mut removed = 0;
        for (of, rack) in &mut self.racks {
            let goes = |session: &Session<A>| *of == endpoint || Some(session.number) == offered;
            removed += usize::from(rack.take_tls12(goes));
        }
        self.held -= removed;
        removed
    }

    /// What an endpoint did with a session of another. If it refused it, it has keys of its own: it is lent no other
    /// for a while.
    pub(super) fn lent(&mut self, endpoint: SocketAddr, taken: bool, now: Date) {
        if !self.retired {
            self.rack(endpoint).alone = (!taken).then(|| Period::of(now, ALONE));
        }
    }

    fn admit<T>(&mut self, session: Session<T>) -> Option<Session<T>> {
        self.next += 1;
        (!self.retired).then_some(Session { number: self.next, ..session })
    }

    /// Counts one more, and makes room for it: with too many sessions, the endpoint with the most sessions loses one;
    /// with too many bytes, the endpoint with the most bytes. So an endpoint with long chains or tickets harms no
    /// other.
    fn kept(&mut self, mut put: Put) -> Put {
        self.held = self.held + 1 - put.expired - put.displaced;
        while self.held > MAX_SESSIONS {
            let Some(gone) = self.drop_oldest_by(|rack| rack.held()) else { break };
            put.displaced += gone;
        }
        while self.bytes() > MAX_BYTES {
            let Some(gone) = self.drop_oldest_by(|rack| rack.bytes) else { break };
            put.displaced += gone;
        }
        Put { kept: true, ..put }
    }

    /// Drops the oldest session of the endpoint that has the most of something; `None`: there is none to drop.
    fn drop_oldest_by(&mut self, most: impl Fn(&Rack<A, B>) -> usize) -> Option<usize> {
        let gone = self.racks.values_mut().max_by_key(|rack| most(rack)).map(Rack::drop_oldest)?;
        self.held -= gone;
        (gone > 0).then_some(gone)
    }

    /// Room for a session of `bytes`, and how many sessions of this origin were dropped for it. Those of other origins
    /// stay: if this origin has none to drop, there is no room.
    pub(super) fn room_for(&mut self, bytes: usize) -> (Option<Room>, usize) {
        let mut displaced = 0;
        loop {
            if let Some(room) = Room::take(bytes) {
                return (Some(room), displaced);
            }
            let Some(gone) = self.drop_oldest_by(|rack| rack.bytes) else { return (None, displaced) };
            displaced += gone;
        }
    }

    fn bytes(&self) -> usize {
        self.racks.values().map(|rack| rack.bytes).sum()
    }

    fn rack(&mut self, endpoint: SocketAddr) -> &mut Rack<A, B> {
        // Endpoints come and go with DNS: those without sessions are forgotten first.
        if self.racks.len() >= MAX_SESSIONS && !self.racks.contains_key(&endpoint) {
            self.racks.retain(|_, rack| rack.held() > 0);
        }
        self.racks.entry(endpoint).or_default()
    }
}

impl<A, B> Default for Rack<A, B> {
    fn default() -> Self {
        Self { tls12: None, tls13: VecDeque::new(), bytes: 0, alone: None }
    }
}

impl<A, B> Rack<A, B> {
    fn held(&self) -> usize {
        self.tls13.len() + usize::from(self.tls12.is_some())
    }

    fn is_alone(&self, now: Date) -> bool {
        self.alone.is_some_and(|alone| alone.holds(now))
    }

    fn take(&mut self, server_name: &ServerName<'_>, now: Date, taken: &mut Taken<B>) {
        while let Some(session) = self.tls13.pop_back() {
            self.bytes -= session.room.bytes();
            if session.server_name != *server_name {
                taken.foreign += 1;
            } else if !session.is_good(now) {
                taken.expired += 1;
            } else {
                taken.session = Some(session);
                return;
            }
        }
    }

    /// Drops the oldest that have expired; expired ones between valid ones are found later.
    fn drop_expired(&mut self, now: Date) -> usize {
        let before = self.tls13.len();
        while self.tls13.front().is_some_and(|session| !session.is_good(now)) {
            self.drop_oldest();
        }
        before - self.tls13.len()
    }

    fn drop_oldest(&mut self) -> usize {
        match self.tls13.pop_front() {
            Some(session) => self.bytes -= session.room.bytes(),
            None => return usize::from(self.take_tls12(|_| true)),
        }
        1
    }

    /// Drops the TLS 1.2 session if `goes`; returns whether it did.
    fn take_tls12(&mut self, goes: impl Fn(&Session<A>) -> bool) -> bool {
        let gone = self.tls12.take_if(|session| goes(session));
        self.bytes -= gone.as_ref().map_or(0, |session| session.room.bytes());
        gone.is_some()
    }
}

impl<T: Clone> Clone for Session<T> {
    fn clone(&self) -> Self {
        let server_name = self.server_name.clone();
        let verdict = Arc::clone(&self.verdict);
        let value = self.value.clone();
        // The copy lives as long as one handshake, which has a bound of its own.
        Self { number: self.number, server_name, endpoint: self.endpoint, verdict, room: Room::default(), value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Numbers = Shelf<u32, u32>;

    const NOW: i64 = 1_000_000;

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("server.example.com").expect("a host name")
    }

    fn session(last: u8, value: u32, good: Period, bytes: usize) -> Session<u32> {
        let verdict = Arc::new(Verdict { good, chain_bytes: 0, refusal: None, server: None, certificate_sent: None });
        let room = Room::take(bytes).expect("tests take little");
        Session { number: 0, server_name: name(), endpoint: endpoint(last), verdict, room, value }
    }

    fn hour() -> Period {
        Period::of(Date(NOW), 3_600)
    }

    #[test]
    fn what_a_certificate_says_is_in_memory_once() {
        let facts = |name: &str| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
            Arc::new(CertificateFacts::read(made.cert.der()).expect("it is one"))
        };
        let mut shelf = Numbers::default();
        let first = shelf.shared(facts("a.example.com"));
        let again = shelf.shared(Arc::new(CertificateFacts::clone(&first)));
        assert!(Arc::ptr_eq(&first, &again));
        let renewed = shelf.shared(facts("a.example.com"));
        assert!(!Arc::ptr_eq(&first, &renewed), "another certificate of the same name");
        assert!(Arc::ptr_eq(&renewed, &shelf.shared(Arc::new(CertificateFacts::clone(&renewed)))));
        shelf.retire();
        assert_eq!(Arc::strong_count(&renewed), 1, "nothing is kept for sessions that are gone");
    }

    /// The offered sessions: of TLS 1.2, of TLS 1.3.
    fn offered(shelf: &mut Numbers, last: u8, now: i64) -> [Option<u32>; 2] {
        let old = shelf.tls12(endpoint(last), &name(), Date(now)).session.map(|session| session.value);
        let new = shelf.take_tls13(endpoint(last), &name(), Date(now)).session.map(|session| session.value);
        [old, new]
    }

    #[test]
    fn a_session_is_offered_from_its_verification_to_its_end_and_not_when_the_clock_was_set_back() {
        for (now, there) in [(NOW, true), (NOW + 3_599, true), (NOW + 3_600, false), (NOW - 1, false), (0, false)] {
            let mut shelf = Numbers::default();
            shelf.put_tls12(session(1, 12, hour(), 10), Date(NOW));
            shelf.put_tls13(session(1, 13, hour(), 10), Date(NOW));
            assert_eq!(offered(&mut shelf, 1, now), [there.then_some(12), there.then_some(13)], "at {now}");
            // What was found wrong is gone, also when the clock is right again.
            if !there {
                assert_eq!(offered(&mut shelf, 1, NOW), [None, None], "after {now}");
                assert_eq!((shelf.held(), shelf.bytes()), (0, 0));
            }
        }
    }

    #[test]
    fn an_endpoint_that_took_no_session_of_another_is_lent_none_for_ten_minutes_of_any_clock() {
        for (now, lent) in [(NOW, false), (NOW + ALONE - 1, false), (NOW + ALONE, true), (NOW - 63_072_000, true)] {
            let mut shelf = Numbers::default();
            let always = Period { from: Date(i64::MIN), until: Date(i64::MAX) };
            shelf.put_tls13(session(1, 13, always, 10), Date(NOW));
            shelf.lent(endpoint(2), false, Date(NOW));
            assert_eq!(offered(&mut shelf, 2, now)[1].is_some(), lent, "at {now}");
        }
    }

    #[test]
    fn an_endpoint_with_large_sessions_takes_no_room_from_another() {
        let mut shelf = Numbers::default();
        for value in 0..50 {
            shelf.put_tls13(session(1, value, hour(), 3_000), Date(NOW));
        }
        for value in 0..100 {
            let put = shelf.put_tls13(session(2, value, hour(), 60_000), Date(NOW));
            assert!(put.kept && put.displaced <= 1, "{value}");
            assert!(shelf.bytes() <= MAX_BYTES);
        }
        assert_eq!(shelf.held_of(endpoint(1)), 50);
        assert_eq!(shelf.held_of(endpoint(2)), (MAX_BYTES - 50 * 3_000) / 60_000);
        assert_eq!(offered(&mut shelf, 2, NOW)[1], Some(99));
    }

    #[test]
    fn a_session_is_to_spare_only_if_it_leaves_another() {
        let mut shelf = Numbers::default();
        let spare = |shelf: &mut Numbers, last| {
            let taken = shelf.take_spare_tls13(endpoint(last), &name(), Date(NOW));
            taken.session.map(|session| session.value)
        };
        assert!(shelf.has_spare(endpoint(1)), "there is none at all: a hello without is what a client would get");
        shelf.put_tls13(session(1, 1, hour(), 100), Date(NOW));
        assert!(!shelf.has_spare(endpoint(1)) && !shelf.has_spare(endpoint(2)), "a client would get the only one");
        assert_eq!(spare(&mut shelf, 1), None);
        shelf.put_tls13(session(1, 2, hour(), 100), Date(NOW));
        assert!(shelf.has_spare(endpoint(1)) && !shelf.has_spare(endpoint(2)));
        assert_eq!([spare(&mut shelf, 2), spare(&mut shelf, 1), spare(&mut shelf, 1)], [None, Some(2), None]);
        assert_eq!((shelf.held(), shelf.bytes()), (1, 100));
        assert_eq!(offered(&mut shelf, 1, NOW)[1], Some(1));
        shelf.put_tls12(session(1, 3, hour(), 100), Date(NOW));
        assert!(shelf.has_spare(endpoint(1)), "one of TLS 1.2 is offered again and again");
        assert!(shelf.holds_tls12(endpoint(1), 3) && !shelf.holds_tls12(endpoint(1), 2));
    }

    #[test]
    fn bytes_are_given_back_whichever_way_a_session_goes() {
        let mut shelf = Numbers::default();
        let fill = |shelf: &mut Numbers| {
            for value in 0..3 {
                shelf.put_tls12(session(1, value, hour(), 100), Date(NOW));
                shelf.put_tls13(session(1, value, hour(), 100), Date(NOW));
            }
            assert_eq!((shelf.held(), shelf.bytes()), (4, 400));
        };
        fill(&mut shelf);
        assert_eq!(shelf.remove_tls12(endpoint(1), None), 1);
        while offered(&mut shelf, 1, NOW)[1].is_some() {}
        assert_eq!((shelf.held(), shelf.bytes()), (0, 0), "taken");
        fill(&mut shelf);
        shelf.put_tls13(session(1, 9, hour(), 100), Date(NOW + 3_600));
        assert_eq!((shelf.held(), shelf.bytes()), (2, 200), "expired, but for those that nobody has asked for");
        assert_eq!(offered(&mut shelf, 1, NOW + 3_600), [None, None]);
        assert_eq!((shelf.held(), shelf.bytes()), (0, 0), "expired");
        fill(&mut shelf);
        assert_eq!(shelf.retire(), 4);
        assert_eq!((shelf.held(), shelf.bytes()), (0, 0), "retired");
    }
}
