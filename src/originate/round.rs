//! The tries of one stream: which endpoints, in which order, with how much of the time each.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::originate::endpoint::{Endpoint, InFlight};
use crate::originate::endpoints::{Member, Members};

/// What is left to try.
pub(super) struct Round {
    waiting: Vec<Member>,
    deadline: Instant,
}

/// One try: at the chosen endpoint, or at another address of the same server if the chosen one does not answer.
///
/// The dial race of RFC 8305 is between addresses of one server only, so that whoever wins it is spoken to by the
/// same origin, and so that a backup server is not reached merely because it is nearer. The chosen endpoint has a
/// head start of a quarter of a second: the choice holds unless the address does not answer.
pub(super) struct Turn {
    /// Counts the stream at the chosen endpoint.
    pub(super) chosen: InFlight,
    /// Addresses of the same server that may take its place.
    pub(super) others: Vec<Arc<Endpoint>>,
    /// When the try is over.
    pub(super) deadline: Instant,
}

/// A try may take at least this part of the time that is left, however many endpoints wait behind it: of ten
/// seconds three, which is a lost packet of each phase. Endpoints that refuse take no time, so many of those can
/// still be tried.
const LEAST_SHARE: u32 = 3;

impl Round {
    /// The tries of a stream whose time is over at `deadline`.
    pub(super) fn new(members: &Members, deadline: Instant) -> Self {
        Self { waiting: members.iter().cloned().collect(), deadline }
    }

    /// The next try, if there is anything left to try.
    pub(super) fn next(&self) -> Option<Turn> {
        let first = self.waiting.first()?;
        let of_server = self.waiting.iter().skip(1).filter(|member| member.way == first.way);
        let others = of_server.map(|member| Arc::clone(&member.endpoint)).collect();
        let now = Instant::now();
        let parts = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX).min(LEAST_SHARE);
        let deadline = now + self.deadline.saturating_duration_since(now) / parts;
        Some(Turn { chosen: first.endpoint.enter(), others, deadline })
    }

    /// These addresses failed in the turn: they are not tried again.
    pub(super) fn lost(&mut self, turn: &Turn, failed: &[SocketAddr]) {
        let server = turn.chosen.endpoint().server();
        let chosen = turn.chosen.endpoint().address();
        self.waiting.retain(|member| {
            let endpoint = &member.endpoint;
            endpoint.server() != server || (endpoint.address() != chosen && !failed.contains(&endpoint.address()))
        });
    }
}

impl Turn {
    /// The endpoints to race for, the chosen one first.
    pub(super) fn candidates(&self) -> Vec<Arc<Endpoint>> {
        std::iter::once(self.chosen.endpoint()).chain(&self.others).map(Arc::clone).collect()
    }

    /// The guard of the stream at the endpoint that won the race.
    pub(super) fn won(self, address: SocketAddr) -> InFlight {
        match self.others.iter().find(|endpoint| endpoint.address() == address) {
            Some(other) => other.enter(),
            None => self.chosen,
        }
    }
}
