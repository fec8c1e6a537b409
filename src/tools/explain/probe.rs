//! One origination, up to the moment where data could flow, and what was seen of it.
//!
//! No application data is sent but a question that was asked for: after the handshake the server gets a moment to object
//! to the client certificate (in TLS 1.3 it judges only then), and is left with close_notify.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::credentials::observation::{Facts, Observed};
use crate::credentials::presented::Presented;
use crate::credentials::refusal::Refusal;
use crate::net::Options;
use crate::pipeline::originate::handshake::{Cause, Error, Handshake};
use crate::pipeline::originate::hello::Offer;
use crate::pipeline::originate::negotiated::Negotiated;
use crate::pipeline::originate::origin::Origin;
use crate::pipeline::originate::origin::resumption::{Resumption, Taking};
use crate::pipeline::originate::{dial, upgrade};
use crate::random;
use crate::tls::handshake::{self, Established};
use crate::tools::explain::attempt::{Attempt, AttemptKind};
use crate::tools::explain::question::{Answer, Question};
use crate::tools::explain::wire::Wire;

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
    pub(crate) agreed: Option<Negotiated>,
    pub(crate) failure: Option<Failure>,
    /// As sent: one record or several.
    pub(crate) hello: Vec<u8>,
    pub(crate) answer: Option<Answer>,
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
/// it: the random generator of the cryptographic library is seeded first of all.
pub(crate) async fn prepare(origin: &Origin) {
    random::seeded().await;
    let observed = Arc::new(Observed::default());
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let prepared = origin.for_handshake(nowhere, &observed, Offer::default(), Taking::Any);
    // An error is that of the attempt as configured, which reports it.
    drop(prepared.connection(origin.server_name()));
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
            let probe = Probe { origin, endpoint, deadline, patience: QUIET.max(round_trip * 4) };
            probe.handshake(tcp, extra, attempt.kind, &mut observation).await;
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

struct Probe<'a> {
    origin: &'a Origin,
    endpoint: SocketAddr,
    deadline: Instant,
    patience: Duration,
}

impl Probe<'_> {
    async fn handshake(&self, tcp: TcpStream, extra: Extra<'_>, kind: AttemptKind, into: &mut Observation) {
        let began = Instant::now();
        let mut handshake = Handshake::shown(self.endpoint, self.origin, Offer::default());
        if let Some(foreign) = extra.foreign {
            handshake.offer_sessions_of(foreign);
        }
        let done = timeout_at(self.deadline, handshake.run_any_protocol(tcp)).await;
        let done = done.unwrap_or_else(|_| Err(Error::timed_out(began.elapsed(), self.endpoint, self.origin)));
        into.hello = handshake.hello();
        into.failure = match done {
            Ok((established, negotiated)) => {
                let after = After { probe: self, handshake: &handshake, negotiated: &negotiated };
                let failure = after.run(established, extra.asked, kind, &mut into.answer).await;
                into.agreed = Some(negotiated);
                failure
            }
            Err(error) => Some(of_error(&error, false)),
        };
        into.seen = handshake.facts();
        if let Some(agreed) = into.agreed.as_ref().filter(|agreed| agreed.resumed == Resumption::Resumed) {
            // What speaks against the server still does, although it was not asked again.
            into.seen.refusal.clone_from(&agreed.would_fail);
        }
    }
}

/// A stream after its handshake.
struct After<'a> {
    probe: &'a Probe<'a>,
    handshake: &'a Handshake<'a>,
    negotiated: &'a Negotiated,
}

impl After<'_> {
    async fn run(
        &self,
        established: Established,
        asked: Option<(&Question, &[u8])>,
        kind: AttemptKind,
        answer: &mut Option<Answer>,
    ) -> Option<Failure> {
        let mut wire = match Wire::start(established).await {
            Ok(wire) => wire,
            Err(error) => return Some(self.failed(error, false)),
        };
        let wants_ticket = matches!(kind, AttemptKind::AsConfigured | AttemptKind::WithoutIdentity);
        let objected = self.objection(&mut wire, wants_ticket).await;
        let failure = match asked.filter(|_| objected.is_none()) {
            Some(asked) => self.ask(&mut wire, asked, answer).await,
            None => objected,
        };
        wire.leave().await;
        failure
    }

    /// Waits for the server's reaction to a finished handshake.
    async fn objection(&self, wire: &mut Wire, wants_ticket: bool) -> Option<Failure> {
        if let Err(error) = self.handshake.check_protocol(self.negotiated) {
            return Some(of_error(&error, false));
        }
        let request = self.negotiated.client_certificate.as_ref();
        // A server that goes on without a certificate may leave it to the program behind to hang up.
        let in_doubt = wants_ticket && request.is_some_and(|request| !request.answered);
        let judged_late = self.negotiated.version == "TLSv1.3";
        if !in_doubt && !(judged_late && (request.is_some() || wants_ticket)) {
            return None;
        }
        let until = self.probe.deadline.min(Instant::now() + self.probe.patience);
        match timeout_at(until, wire.accepted(!in_doubt)).await {
            Ok(Ok(())) | Err(_) => None,
            // Somebody who ends a connection on which nothing was said need not mean the certificate.
            Ok(Err(handshake::Error::Closed)) if request.is_none() => None,
            Ok(Err(error)) => Some(self.failed(error, true)),
        }
    }

    /// An end of the connection without an alert is an answer that ends, or none: the server may not speak the
    /// protocol.
    async fn ask(
        &self,
        wire: &mut Wire,
        (question, bytes): (&Question, &[u8]),
        answer: &mut Option<Answer>,
    ) -> Option<Failure> {
        let mut received = Vec::new();
        let ended = timeout_at(self.probe.deadline, wire.exchange(question, bytes, &mut received)).await;
        *answer = question.answer(&received);
        match ended {
            Ok(Err(error @ handshake::Error::Tls(_))) if answer.is_none() => Some(self.failed(error, true)),
            _ => None,
        }
    }

    fn failed(&self, error: handshake::Error, late: bool) -> Failure {
        of_error(&self.handshake.broke_after(error), late)
    }
}

fn of_error(error: &Error, late: bool) -> Failure {
    let stage = Stage::Handshake(error.cause().clone());
    Failure { reason: error.reason(), detail: error.to_string(), late, stage }
}
