//! One origination, up to the moment where data could flow, and what was seen of it.
//!
//! No application data is sent but a question that was asked for: after the handshake the server gets a moment to object
//! to the client certificate (in TLS 1.3 it judges only then), and is left with close_notify.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption as SessionConfig;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::credentials::observation::{Facts, Observed};
use crate::credentials::presented::Presented;
use crate::credentials::refusal::Refusal;
use crate::net::Options;
use crate::pipeline::originate::handshake::{self, Cause, plaintext};
use crate::pipeline::originate::hello::Offer;
use crate::pipeline::originate::origin::resumption::{Resumption, View};
use crate::pipeline::originate::origin::{Origin, Prepared};
use crate::pipeline::originate::{dial, upgrade};
use crate::tls::handshake::{Error as Broken, Failed as BrokenOff};
use crate::tools::explain::attempt::{Attempt, AttemptKind};
use crate::tools::explain::question::{Answer, LONGEST_ANSWER, Question};

#[derive(Debug)]
pub(crate) struct Observation {
    pub(crate) kind: AttemptKind,
    pub(crate) endpoint: SocketAddr,
    pub(crate) sni: bool,
    pub(crate) hybrid: bool,
    /// From the start of the connect to the end of the handshake, or to the failure.
    pub(crate) took: Duration,
    /// Chain, refusals, and request for a client certificate.
    pub(crate) seen: Facts,
    /// `None` if the handshake failed.
    pub(crate) agreed: Option<Agreed>,
    pub(crate) failure: Option<Failure>,
    /// As sent: one record or several.
    pub(crate) hello: Vec<u8>,
    pub(crate) answer: Option<Answer>,
}

#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: &'static str,
    /// By its name of IANA's registry.
    pub(crate) suite: &'static str,
    pub(crate) group: &'static str,
    pub(crate) alpn: Option<String>,
    pub(crate) resumed: Resumption,
}

#[derive(Debug)]
pub(crate) struct Failure {
    /// Class in log and metrics.
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    /// After the handshake was complete for the client.
    pub(crate) late: bool,
    pub(crate) stage: Stage,
}

#[derive(Debug)]
pub(crate) enum Stage {
    Dial,
    Upgrade,
    Handshake(Cause),
}

impl Observation {
    /// Leaf first; empty if the server presented none.
    pub(crate) fn presented(&self) -> &[CertificateDer<'static>] {
        self.seen.presented.as_ref().map(Presented::certificates).unwrap_or_default()
    }

    /// Why the trust refuses the server's certificate.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        match self.failure.as_ref().map(|failure| &failure.stage) {
            Some(Stage::Handshake(Cause::Certificate(refusal))) => Some(refusal),
            _ => self.seen.refusal.as_ref(),
        }
    }

    /// `None`: a stream would be carried.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        self.refusal().map(Refusal::reason).or_else(|| self.failure.as_ref().map(|failure| failure.reason))
    }

    pub(crate) fn connected(&self) -> bool {
        !matches!(self.failure.as_ref().map(|failure| &failure.stage), Some(Stage::Dial))
    }

    pub(crate) fn handshake(&self) -> Option<&Cause> {
        match self.failure.as_ref().map(|failure| &failure.stage) {
            Some(Stage::Handshake(cause)) => Some(cause),
            _ => None,
        }
    }
}

/// Does once what the first handshake of a process does before its first byte, so that no attempt's duration includes
/// it: the first random bytes of the crypto library take some 35 ms.
pub(crate) fn prepare(origin: &Origin) {
    let observed = Arc::new(Observed::default());
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let Prepared { config, .. } = origin.for_handshake(nowhere, &observed, Offer::default());
    // An error is that of the attempt as configured, which reports it.
    drop(ClientConnection::new(config, origin.server_name().clone()));
}

/// Returns within `limit`. With `foreign`, it offers the sessions of that other origin.
pub(crate) async fn probe(
    attempt: &Attempt,
    endpoint: SocketAddr,
    origin: &Origin,
    foreign: Option<&Origin>,
    limit: Duration,
) -> Observation {
    observe(attempt, endpoint, origin, Extra { foreign, asked: None }, limit).await
}

/// Like [`probe`], followed by a question, which is `bytes`.
pub(crate) async fn ask(
    attempt: &Attempt,
    endpoint: SocketAddr,
    origin: &Origin,
    question: (&Question, &[u8]),
    limit: Duration,
) -> Observation {
    observe(attempt, endpoint, origin, Extra { foreign: None, asked: Some(question) }, limit).await
}

#[derive(Clone, Copy)]
struct Extra<'a> {
    foreign: Option<&'a Origin>,
    asked: Option<(&'a Question, &'a [u8])>,
}

async fn observe(
    attempt: &Attempt,
    endpoint: SocketAddr,
    origin: &Origin,
    extra: Extra<'_>,
    limit: Duration,
) -> Observation {
    let began = Instant::now();
    let mut observation = Observation {
        kind: attempt.kind,
        endpoint,
        sni: origin.key().sni(),
        hybrid: attempt.is_hybrid(),
        took: Duration::ZERO,
        seen: Facts::default(),
        agreed: None,
        failure: None,
        hello: Vec::new(),
        answer: None,
    };
    let deadline = began + limit;
    match begin(attempt, endpoint, &origin.server_name().to_str(), deadline).await {
        Ok(tcp) => {
            let round_trip = began.elapsed();
            let judge = Judge { origin, endpoint, deadline, patience: QUIET.max(round_trip * 4) };
            judge.handshake(tcp, extra, attempt.kind, &mut observation).await;
        }
        Err(failure) => observation.failure = Some(failure),
    }
    observation.took = began.elapsed();
    observation
}

/// How long a server may take after the handshake to object or to send a ticket, on top of four times the duration of
/// the connect: servers of all makes do either within a millisecond of the client's last flight.
const QUIET: Duration = Duration::from_millis(400);

async fn begin(attempt: &Attempt, endpoint: SocketAddr, name: &str, deadline: Instant) -> Result<TcpStream, Failure> {
    let early = |reason, detail, stage| Failure { reason, detail, late: false, stage };
    let dialed = dial::dial_before(&[endpoint], &Options::default(), Some(deadline)).await;
    let (mut tcp, _) = dialed.map_err(|error| early(error.reason(), error.to_string(), Stage::Dial))?;
    let Some(kind) = attempt.spec.upgrade else { return Ok(tcp) };
    match timeout_at(deadline, upgrade::upgrade(kind, &mut tcp, name)).await {
        Ok(Ok(_)) => Ok(tcp),
        Ok(Err(error)) => Err(early(error.reason(), error.to_string(), Stage::Upgrade)),
        Err(_) => {
            let detail = "the server did not answer the request for TLS in time".to_owned();
            Err(early("upgrade_timeout", detail, Stage::Upgrade))
        }
    }
}

struct Judge<'a> {
    origin: &'a Origin,
    endpoint: SocketAddr,
    deadline: Instant,
    patience: Duration,
}

impl Judge<'_> {
    async fn handshake(&self, tcp: TcpStream, extra: Extra<'_>, kind: AttemptKind, into: &mut Observation) {
        let began = Instant::now();
        let observed = Arc::new(Observed::default());
        let (config, view) = self.config(extra.foreign, &observed);
        let name = self.origin.server_name().clone();
        let mut wire = match ClientConnection::new(config, name) {
            Ok(connection) => Wire::new(tcp, connection),
            Err(error) => {
                into.failure = Some(self.failed(Broken::Tls(error), false, false, &observed));
                return;
            }
        };
        let done = observed.during(timeout_at(self.deadline, wire.handshake())).await;
        into.hello = std::mem::take(&mut wire.hello);
        into.failure = match done {
            Ok(Ok(())) => {
                into.agreed = Some(agreed(&wire.connection, view.as_deref()));
                let wants_ticket = matches!(kind, AttemptKind::AsConfigured | AttemptKind::WithoutIdentity);
                let objected = observed.during(self.after(&mut wire, wants_ticket, &observed)).await;
                match extra.asked.filter(|_| objected.is_none()) {
                    Some(asked) => observed.during(self.ask(&mut wire, asked, &observed, &mut into.answer)).await,
                    None => objected,
                }
            }
            Ok(Err(broken)) => Some(self.failed(broken, wire.answered, false, &observed)),
            Err(_) => {
                let error = handshake::Error::timed_out(began.elapsed(), self.endpoint, self.origin);
                Some(of_error(&error, false))
            }
        };
        wire.leave().await;
        into.seen = observed.take();
        if into.agreed.as_ref().is_some_and(|agreed| agreed.resumed == Resumption::Resumed) {
            // What speaks against the server still does, although it was not asked again.
            into.seen.refusal = view.and_then(|view| view.inherited_refusal());
        }
    }

    /// rustls resumes a session only under the verifier and the resolver that made it: offering it those of another
    /// origin is how that is proven.
    fn config(&self, foreign: Option<&Origin>, observed: &Arc<Observed>) -> (Arc<ClientConfig>, Option<Arc<View>>) {
        let prepare = |origin: &Origin| origin.for_handshake(self.endpoint, observed, Offer::default());
        let Prepared { config, view, .. } = prepare(self.origin);
        let Some(theirs) = foreign.and_then(|foreign| prepare(foreign).view) else { return (config, view) };
        let mut config = ClientConfig::clone(&config);
        config.resumption = SessionConfig::store(Arc::clone(&theirs) as _);
        (Arc::new(config), Some(theirs))
    }

    /// Waits for the server's reaction to a finished handshake.
    async fn after(&self, wire: &mut Wire, wants_ticket: bool, observed: &Observed) -> Option<Failure> {
        let wants_alpn = !self.origin.key().alpn().is_empty();
        if wants_alpn && wire.connection.alpn_protocol().is_none() {
            let error = handshake::Error::without_protocol(observed, self.origin, self.endpoint);
            return Some(of_error(&error, false));
        }
        let asked = observed.read(|facts| facts.request.is_some());
        // A server that goes on without a certificate may leave it to the program behind to hang up.
        let in_doubt = wants_ticket && observed.read(|facts| facts.request.as_ref().is_some_and(|one| !one.answered));
        let judged_late = wire.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        if !in_doubt && !(judged_late && (asked || wants_ticket)) {
            return None;
        }
        let until = self.deadline.min(Instant::now() + self.patience);
        match timeout_at(until, wire.accepted(!in_doubt)).await {
            Ok(Ok(())) | Err(_) => None,
            // Somebody who ends a connection on which nothing was said need not mean the certificate.
            Ok(Err(Broken::Closed)) if !asked => None,
            Ok(Err(broken)) => Some(self.failed(broken, true, true, observed)),
        }
    }

    /// An end of the connection without an alert is an answer that ends, or none: the server may not speak the
    /// protocol.
    async fn ask(
        &self,
        wire: &mut Wire,
        (question, bytes): (&Question, &[u8]),
        observed: &Observed,
        answer: &mut Option<Answer>,
    ) -> Option<Failure> {
        let mut received = Vec::new();
        let ended = timeout_at(self.deadline, wire.exchange(question, bytes, &mut received)).await;
        *answer = question.answer(&received);
        match ended {
            Ok(Err(broken @ Broken::Tls(_))) if answer.is_none() => Some(self.failed(broken, true, true, observed)),
            _ => None,
        }
    }

    fn failed(&self, error: Broken, answered: bool, late: bool, observed: &Observed) -> Failure {
        let failed = BrokenOff { error, answered };
        of_error(&handshake::Error::of(failed, observed, self.origin, self.endpoint), late)
    }
}

fn of_error(error: &handshake::Error, late: bool) -> Failure {
    let stage = Stage::Handshake(error.cause().clone());
    Failure { reason: error.reason(), detail: error.to_string(), late, stage }
}

fn agreed(connection: &ClientConnection, view: Option<&View>) -> Agreed {
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    Agreed {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        suite: connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        group: connection.negotiated_key_exchange_group().and_then(|group| group.name().as_str()).unwrap_or("none"),
        alpn: connection.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
        resumed: view.map_or(Resumption::Off, |view| view.outcome(resumed)),
    }
}

struct Wire {
    tcp: TcpStream,
    connection: ClientConnection,
    /// Bytes sent before the server answered.
    hello: Vec<u8>,
    /// First bytes of the answer.
    first: Vec<u8>,
    answered: bool,
}

/// Enough to recognise the greeting of any protocol.
const FIRST_BYTES: usize = 64;

impl Wire {
    fn new(tcp: TcpStream, connection: ClientConnection) -> Self {
        Self { tcp, connection, hello: Vec::new(), first: Vec::new(), answered: false }
    }

    async fn handshake(&mut self) -> Result<(), Broken> {
        loop {
            self.flush().await.map_err(Broken::Io)?;
            if !self.connection.is_handshaking() {
                return Ok(());
            }
            self.receive().await?;
        }
    }

    /// Waits until the server accepts: by data, or, with `by_ticket`, by a ticket.
    async fn accepted(&mut self, by_ticket: bool) -> Result<(), Broken> {
        loop {
            let held = self.connection.process_new_packets().map_err(Broken::Tls)?;
            let ticket = by_ticket && self.connection.tls13_tickets_received() > 0;
            if held.plaintext_bytes_to_read() > 0 || ticket {
                return Ok(());
            }
            if held.peer_has_closed() {
                return Err(Broken::Closed);
            }
            self.receive().await?;
        }
    }

    /// Sends, and receives until the answer is whole, ends, or is too long.
    async fn exchange(&mut self, question: &Question, bytes: &[u8], received: &mut Vec<u8>) -> Result<(), Broken> {
        self.connection.writer().write_all(bytes).map_err(Broken::Io)?;
        self.flush().await.map_err(Broken::Io)?;
        loop {
            let room = LONGEST_ANSWER - received.len();
            // An error says that no more is there yet, or that the stream has ended, which `receive` sees too.
            let _ = self.connection.reader().take(room as u64).read_to_end(received);
            if received.len() == LONGEST_ANSWER || question.is_whole(received) {
                return Ok(());
            }
            self.receive().await?;
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let mut outgoing = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut outgoing)?;
        }
        if !self.answered {
            self.hello.extend_from_slice(&outgoing);
        }
        self.tcp.write_all(&outgoing).await
    }

    async fn receive(&mut self) -> Result<(), Broken> {
        let mut buffer = [0; 16 << 10];
        let read = self.tcp.read(&mut buffer).await.map_err(Broken::Io)?;
        if read == 0 {
            return Err(Broken::Closed);
        }
        let mut bytes = &buffer[..read];
        self.answered = true;
        self.check_first(bytes)?;
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).map_err(Broken::Io)?;
            if let Err(error) = self.connection.process_new_packets() {
                // The server gets the alert, so that its log says why too.
                let _ = self.flush().await;
                return Err(Broken::Tls(error));
            }
        }
        Ok(())
    }

    /// Read as the length of a record, the greeting of another protocol would block for ever.
    fn check_first(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if self.first.len() < 2 {
            self.first.extend(bytes.iter().take(FIRST_BYTES));
            if plaintext(&self.first).is_some() {
                return Err(Broken::NotTls(self.first.clone()));
            }
        }
        Ok(())
    }

    /// Best effort, and short: the peer may be gone.
    async fn leave(mut self) {
        if !self.connection.is_handshaking() {
            self.connection.send_close_notify();
        }
        let farewell = async {
            let _ = self.flush().await;
            let _ = self.tcp.shutdown().await;
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// A socket takes an alert at once, unless its peer is stuck.
const FAREWELL: Duration = Duration::from_millis(200);
