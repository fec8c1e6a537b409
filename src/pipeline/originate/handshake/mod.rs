//! The TLS handshake with an upstream: its end is a verified stream, or a failure with class, facts and repair.

mod error;
#[cfg(test)]
mod error_words;
mod first_bytes;
mod late;
mod repair;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{Resumption as SessionConfig, UnbufferedClientConnection};
use rustls::{AlertDescription, HandshakeKind, ProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use self::error::Broken;
pub use self::error::{Cause, Error, Flight};
pub use self::first_bytes::{Plaintext, plaintext};
pub use self::late::late_refusal;
pub(crate) use self::repair::late_repair;
use crate::credentials::observation::{Facts, Observed};
use crate::pipeline::originate::hello::{Feature, Offer};
pub use crate::pipeline::originate::negotiated::Negotiated;
use crate::pipeline::originate::origin::Origin;
use crate::pipeline::originate::origin::ahead::{Begun, Prepared};
use crate::pipeline::originate::origin::resumption::{Resumption, Taking, View};
use crate::pipeline::originate::pool::waiting;
use crate::random;
use crate::tls;
use crate::tls::handshake::{Established, Failed, Progress};

/// Speaks TLS with `endpoint` as `origin` says, on a stream where TLS begins with the next byte. The caller
/// bounds the time; dropping the future drops the stream.
///
/// The client's last flight may still be unsent: it leaves with the first bytes of the stream.
///
/// # Errors
/// The server is not believed (it got the alert that says so), does not believe us, or the handshake broke.
pub async fn handshake(
    tcp: TcpStream,
    endpoint: SocketAddr,
    origin: &Origin,
) -> Result<(Established, Negotiated), Error> {
    Handshake::new(endpoint, origin, Offer::default()).run(tcp).await
}

/// One handshake, and its observations while it runs and after a failure.
pub(crate) struct Handshake<'a> {
    endpoint: SocketAddr,
    origin: &'a Origin,
    offer: Offer,
    prepared: Prepared,
    observed: Arc<Observed>,
    progress: Progress,
    /// Its ClientHello was made ahead.
    begun: Mutex<Option<UnbufferedClientConnection>>,
}

impl<'a> Handshake<'a> {
    pub(crate) fn new(endpoint: SocketAddr, origin: &'a Origin, offer: Offer) -> Self {
        if let Some(begun) = origin.ahead().take(endpoint, offer) {
            let Begun { prepared, observed, connection, .. } = *begun;
            let (progress, begun) = (Progress::default(), Mutex::new(Some(connection)));
            return Self { endpoint, origin, offer, prepared, observed, progress, begun };
        }
        Self::with(endpoint, origin, offer, Observed::default(), Progress::default())
    }

    /// For a tool that shows people what was sent and received: keeps ClientHello and chain.
    pub(crate) fn shown(endpoint: SocketAddr, origin: &'a Origin, offer: Offer) -> Self {
        Self::with(endpoint, origin, offer, Observed::keeping_chain(), Progress::keeping_hello())
    }

    fn with(endpoint: SocketAddr, origin: &'a Origin, offer: Offer, observed: Observed, progress: Progress) -> Self {
        let observed = Arc::new(observed);
        let prepared = origin.for_handshake(endpoint, &observed, offer, Taking::Any);
        Self { endpoint, origin, offer, prepared, observed, progress, begun: Mutex::default() }
    }

    /// Offers the sessions of another origin. rustls resumes a session only under the verifier and the resolver that
    /// made it: a tool proves it by this.
    pub(crate) fn offer_sessions_of(&mut self, other: &Origin) {
        let theirs = other.for_handshake(self.endpoint, &self.observed, self.offer, Taking::Any);
        let Some(theirs) = theirs.view else { return };
        Arc::make_mut(&mut self.prepared.config).resumption = SessionConfig::store(Arc::clone(&theirs) as _);
        self.prepared.view = Some(theirs);
    }

    /// As [`handshake`], to be called once.
    pub(crate) async fn run(&self, tcp: TcpStream) -> Result<(Established, Negotiated), Error> {
        let (established, negotiated) = self.run_any_protocol(tcp).await?;
        match self.check_protocol(&negotiated) {
            Ok(()) => Ok((established, negotiated)),
            Err(error) => {
                established.leave(AlertDescription::NoApplicationProtocol).await;
                Err(error)
            }
        }
    }

    /// As [`Handshake::run`], also with a server that chose no protocol of ALPN.
    pub(crate) async fn run_any_protocol(&self, tcp: TcpStream) -> Result<(Established, Negotiated), Error> {
        let done = self.observed.during(self.handshake(tcp)).await;
        done.map_err(|broken| self.error(broken))
    }

    /// # Errors
    /// ALPN was offered, and the server chose no protocol of it.
    pub(crate) fn check_protocol(&self, negotiated: &Negotiated) -> Result<(), Error> {
        match negotiated.alpn {
            None if !self.origin.key().alpn().is_empty() => Err(self.error(Broken::NoAlpn)),
            _ => Ok(()),
        }
    }

    /// Classifies a stream that broke after this handshake, as if it had broken in it.
    pub(crate) fn broke_after(&self, error: tls::handshake::Error) -> Error {
        self.error(Broken::of(Failed { error, answered: true }, &self.observed))
    }

    fn error(&self, broken: Broken) -> Error {
        Error::new(broken, self.observed.take(), self.origin, self.endpoint)
    }

    /// As [`Handshake::run`], with a bound.
    pub(crate) async fn run_until(&self, tcp: TcpStream, end: Instant) -> Result<(Established, Negotiated), Error> {
        let began = Instant::now();
        let done = timeout_at(end, self.run(tcp)).await;
        done.unwrap_or_else(|_| Err(Error::timed_out(began.elapsed(), self.endpoint, self.origin)))
    }

    pub(crate) fn offer(&self) -> Offer {
        self.offer
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.progress.is_answered()
    }

    /// The records of the ClientHello; empty unless it is [`Handshake::shown`].
    pub(crate) fn hello(&self) -> Vec<u8> {
        self.progress.hello()
    }

    pub(crate) fn facts(&self) -> Facts {
        self.observed.take()
    }

    /// `Some(true)`: a session of another endpoint was offered; `None`: none was.
    pub(crate) fn has_offered_session(&self) -> Option<bool> {
        self.prepared.view.as_ref()?.has_offered()
    }

    pub(crate) fn has_hybrid_share(&self) -> bool {
        self.prepared.hybrid_share
    }

    /// The part of its ClientHello to leave out in a retry. Of both, it is the session: the share was part of the
    /// handshake that brought it, unless the server has failed with it before (`doubts_share`).
    pub(crate) fn first_suspect(&self, doubts_share: bool) -> Option<Feature> {
        let may_go = self.prepared.hybrid_share && self.origin.key().can_leave_out_hybrid_share();
        match self.has_offered_session() {
            Some(_) if !(may_go && doubts_share) => Some(Feature::Session),
            _ => may_go.then_some(Feature::HybridShare),
        }
    }

    /// A server that has begun a full handshake has declined the session, and what it says after that is about
    /// something else: its own certificate above all, or ours. The hybrid's share is suspected only if there was no
    /// ServerHello.
    pub(crate) fn suspect(&self, error: &Error, doubts_share: bool) -> Option<Feature> {
        if self.is_full() {
            return None;
        }
        self.first_suspect(doubts_share)
            .filter(|feature| *feature == Feature::Session || error.cause().may_be_of_hello())
    }

    /// Removes the offered session from the store.
    pub(crate) fn drop_session(&self) {
        if let Some(view) = &self.prepared.view {
            view.broke();
        }
    }

    /// The server has shown a certificate, or asked for one.
    fn is_full(&self) -> bool {
        self.observed.read(|facts| facts.chain_bytes > 0 || facts.request.is_some())
    }

    async fn handshake(&self, mut tcp: TcpStream) -> Result<(Established, Negotiated), Broken> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut session = match begun {
            Some(begun) => begun,
            None => {
                random::seeded().await;
                self.prepared.connection(self.origin.server_name()).map_err(Broken::Tls)?
            }
        };
        let view = self.prepared.view.as_deref();
        let rest = match tls::handshake::handshake(&mut tcp, &mut session, &self.progress).await {
            Ok(mut rest) => {
                // Where workers idle, the server ends its handshake while the stream is made ready.
                if waiting::leave_workers_idle() {
                    rest.send_now(&tcp);
                }
                rest
            }
            Err(failed) => {
                part(tcp).await;
                return Err(Broken::of(failed, &self.observed));
            }
        };
        let keeps_chain = self.origin.key().keeps_chain();
        let negotiated = negotiated(&session, view, &self.observed, keeps_chain);
        let kernel = self.origin.kernel();
        let established = tls::handshake::establish_for(kernel, tcp, session, rest).map_err(Broken::Tls)?;
        Ok((established, negotiated))
    }
}

/// Closes a stream whose last bytes are an alert. Bytes that the server has sent meanwhile are read first: a socket
/// that is closed with unread bytes resets, and a reset may overtake the alert.
async fn part(mut tcp: TcpStream) {
    let _ = tcp.shutdown().await;
    let mut unread = [0; 4096];
    // A flight of a handshake has some KiB; a server that sends more than this does not wait for an alert.
    for _ in 0..32 {
        if !matches!(tcp.try_read(&mut unread), Ok(1..)) {
            break;
        }
    }
}

fn negotiated(
    session: &UnbufferedClientConnection,
    view: Option<&View>,
    observed: &Observed,
    keeps_chain: bool,
) -> Negotiated {
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let facts = observed.take();
    Negotiated {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        suite: session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        group: session.negotiated_key_exchange_group().and_then(|group| group.name().as_str()).unwrap_or("none"),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        resumed: view.map_or(Resumption::Off, |view| view.outcome(resumed)),
        server: if resumed { view.and_then(View::inherited_server) } else { facts.server() },
        would_fail: if resumed { view.and_then(View::inherited_refusal) } else { facts.refusal.clone() },
        certificate_sent: if resumed { view.and_then(View::inherited_certificate) } else { facts.certificate_sent() },
        client_certificate: facts.request,
        chain: facts.presented.filter(|_| keeps_chain),
    }
}
