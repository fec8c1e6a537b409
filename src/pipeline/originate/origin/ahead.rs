//! A handshake that is begun before its client comes: its ClientHello, with key share, session and binder, is there when
//! the socket is.
//!
//! It is begun when a stream has ended and no client waits, for the same endpoint. The next client that comes alone waits
//! the less; one that comes in a crowd finds none, and its ClientHello is made as before. An origin owns at most one, which
//! is sent once or not at all. A session in it is one to spare: the store has another for a client that comes later.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::resumption::View;
use crate::credentials::observation::Observed;
use crate::observe::metrics::OriginMetrics;
use crate::pipeline::originate::hello::Offer;

/// How long it waits for its client: no key share is in memory for longer. The age of a ticket in it, which is off by as
/// much, matters to servers for early data only (RFC 8446 section 8.3), of which egret sends none.
const KEPT: Duration = Duration::from_secs(10);

/// Of the whole process: clients that come one at a time go to few upstreams within that time.
const MOST: usize = 16;

static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// What an origin gives to one handshake.
pub(crate) struct Prepared {
    pub(crate) config: Arc<ClientConfig>,
    /// `None`: without resumption.
    pub(crate) view: Option<Arc<View>>,
    pub(crate) hybrid_share: bool,
}

impl Prepared {
    /// Makes the ClientHello, which takes nearly all of its time.
    pub(crate) fn connection(
        &self,
        server_name: &ServerName<'static>,
    ) -> Result<UnbufferedClientConnection, rustls::Error> {
        UnbufferedClientConnection::new(Arc::clone(&self.config), server_name.clone())
    }
}

pub(crate) struct Begun {
    pub(crate) endpoint: SocketAddr,
    pub(crate) offer: Offer,
    pub(crate) prepared: Prepared,
    pub(crate) observed: Arc<Observed>,
    pub(crate) connection: UnbufferedClientConnection,
}

/// One of the `MOST`, until it is dropped, and its account.
pub(super) struct Place {
    metrics: Arc<OriginMetrics>,
    is_sent: bool,
}

impl Place {
    pub(super) fn take(metrics: &Arc<OriginMetrics>) -> Option<Self> {
        let one_more = |begun| (begun < MOST).then_some(begun + 1);
        BEGUN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self { metrics: Arc::clone(metrics), is_sent: false })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        BEGUN.fetch_sub(1, Ordering::Relaxed);
        let result = if self.is_sent { &self.metrics.ahead_sent } else { &self.metrics.ahead_dropped };
        result.increment(1);
    }
}

/// The handshake that an origin has begun ahead, if it has.
#[derive(Default)]
pub(crate) struct Ahead {
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    kept: Option<Kept>,
    /// A task looks at its age.
    is_watched: bool,
}

struct Kept {
    begun: Box<Begun>,
    until: Instant,
    place: Place,
}

impl Ahead {
    pub(super) fn is_there(&self) -> bool {
        self.slot().kept.is_some()
    }

    /// True: a task has to watch its age from now on, with [`Self::drop_old`].
    pub(super) fn keep(&self, begun: Begun, place: Place) -> bool {
        let mut slot = self.slot();
        slot.kept = Some(Kept { begun: Box::new(begun), until: Instant::now() + KEPT, place });
        !std::mem::replace(&mut slot.is_watched, true)
    }

    /// The one for this endpoint with just this offer, if it may still be sent.
    pub(crate) fn take(&self, endpoint: SocketAddr, offer: Offer) -> Option<Box<Begun>> {
        let fits = |kept: &mut Kept| kept.begun.endpoint == endpoint && kept.begun.offer == offer;
        let Kept { begun, until, mut place } = self.slot().kept.take_if(fits)?;
        let claims = || begun.prepared.view.as_ref().is_none_or(|view| view.claim());
        place.is_sent = Instant::now() < until && claims();
        place.is_sent.then_some(begun)
    }

    /// To be called when the running generation does not use the origin any more.
    pub(super) fn clear(&self) {
        self.slot().kept = None;
    }

    /// Drops one that is too old; returns when to look again, if there is one.
    pub(crate) fn drop_old(&self, now: Instant) -> Option<Instant> {
        let mut slot = self.slot();
        slot.kept.take_if(|kept| kept.until <= now);
        let until = slot.kept.as_ref().map(|kept| kept.until);
        slot.is_watched = until.is_some();
        until
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        // Every change is one assignment.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::{Anchors, ExactCertificate, Host, Name, Server, Trust as TrustSpec};
    use crate::credentials::trust::Trust;
    use crate::pipeline::originate::handshake::Handshake;
    use crate::pipeline::originate::hello::Feature;
    use crate::pipeline::originate::origin::{Origin, OriginKey};

    fn origin() -> Origin {
        let anchors = Anchors::Certificate(ExactCertificate::Sha256([0; 32]));
        let spec = TrustSpec { anchors, ..TrustSpec::default() };
        let trust = Trust::load(&Name::new("nobody"), &spec).expect("a digest is in no file");
        let server = Server { host: Host::Ip([192, 0, 2, 1].into()), port: 443 };
        let name = ServerName::try_from("server.example.com").expect("a host name");
        Origin::new(OriginKey::unverified(server, name, &trust), None, Arc::new(trust)).expect("it can be used")
    }

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    #[tokio::test(start_paused = true)]
    async fn one_is_sent_once_to_its_endpoint_with_just_what_may_be_offered() {
        let origin = origin();
        assert!(origin.begin_ahead(endpoint(1)), "its age has to be watched");
        assert!(!origin.begin_ahead(endpoint(1)), "there is one");
        let everything = Offer::default();
        let less = everything.without(Feature::HybridShare);
        for (last, offer) in [(2, everything), (1, less)] {
            drop(Handshake::new(endpoint(last), &origin, offer));
            assert!(origin.ahead().is_there(), "it is another's");
        }
        drop(Handshake::new(endpoint(1), &origin, everything));
        assert!(!origin.ahead().is_there(), "used");
        assert!(!origin.begin_ahead(endpoint(1)), "the watch has not ended");
        assert!(origin.ahead().is_there());
        origin.retire();
        assert!(!origin.ahead().is_there(), "retired");
    }

    #[tokio::test(start_paused = true)]
    async fn none_is_kept_or_sent_after_its_time() {
        let origin = origin();
        let began = Instant::now();
        origin.begin_ahead(endpoint(1));
        tokio::time::advance(KEPT / 2).await;
        assert_eq!(origin.ahead().drop_old(Instant::now()), Some(began + KEPT));
        tokio::time::advance(KEPT / 2).await;
        assert!(origin.ahead().take(endpoint(1), Offer::default()).is_none(), "too old, and not yet looked at");
        assert_eq!(origin.ahead().drop_old(Instant::now()), None);
        assert!(origin.begin_ahead(endpoint(1)), "a new watch begins");
        tokio::time::advance(KEPT).await;
        assert_eq!(origin.ahead().drop_old(Instant::now()), None);
        assert!(!origin.ahead().is_there());
    }
}
