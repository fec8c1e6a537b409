//! TLS over a new connection: a handshake that may have failed because of what its ClientHello offers is repeated at
//! once, on a connection of its own, without that. It counts against the endpoint only if that fails too.
//!
//! The verification is unchanged: the second handshake verifies in full, and belongs to the same origin.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::config::values::Name;
use crate::config::write::Text;
use crate::pipeline::originate::attempts::Attempt;
use crate::pipeline::originate::dial;
use crate::pipeline::originate::failure::{Failure, Stage};
use crate::pipeline::originate::handshake::{self, Handshake, Negotiated};
use crate::pipeline::originate::hello::{Evidence, Feature, Offer};
use crate::pipeline::originate::origin::Origin;
use crate::pipeline::originate::origin::resumption::Resumption;
use crate::pipeline::originate::pool::hand_over::Client;
use crate::pipeline::originate::servers::endpoint::Endpoint;
use crate::pipeline::originate::upstream::{Originated, Originator, Upgraded, Wire};
use crate::tls::handshake::Established;

/// The part of its time after which a handshake without a single byte of answer gets a rival that offers less. The first
/// goes on: a server that is merely slow is served by it.
const PATIENCE: u32 = 3;

/// But no longer than this: by then the kernel has sent the ClientHello three times, after 1 s and after 2 s more
/// (RFC 6298 sections 2.1 and 5.5).
const MOST_PATIENCE: Duration = Duration::from_millis(3_500);

type Done = Result<(Established, Negotiated), handshake::Error>;

type Made = Result<(Established, Negotiated), Stage>;

impl Originator {
    /// Connects to the first of the attempt's candidates that answers, with TLS if egret makes it. `None`: no client is
    /// there yet.
    pub(super) async fn originate_in(
        &self,
        attempt: &Attempt,
        mut client: Option<&mut Client<'_>>,
    ) -> Result<Originated, Failure> {
        let (upgraded, endpoint) = self.connect(attempt, client.as_deref_mut()).await?;
        let made = match endpoint.origin() {
            None => Ok((Wire::Plain(upgraded.tcp), None)),
            Some(origin) => {
                let request = client.and_then(|client| client.login.as_ref()?.request()).or_else(|| self.request());
                let deadline = attempt.deadline;
                let attempts = Attempts { originator: self, endpoint: &endpoint, origin, request, deadline };
                let made = attempts.make(upgraded).await;
                made.map(|(stream, negotiated)| (Wire::Tls(stream), Some(negotiated)))
            }
        };
        let made = made.map_err(|stage| Failure::at(&endpoint, stage));
        self.record_outcome(attempt, &endpoint, made.as_ref().err());
        made.map(|(wire, negotiated)| Originated { wire, endpoint, negotiated })
    }

    fn count(&self, endpoint: &Endpoint, negotiated: &Negotiated, took: Duration) {
        let resumed = negotiated.resumed == Resumption::Resumed;
        let times = if resumed { &self.metrics.handshake_resumed } else { &self.metrics.handshake_full };
        times.record(took);
        endpoint.account().record_handshake(resumed, took);
        self.metrics.resumption.increment(negotiated.resumed.as_str());
        if let Some(refusal) = &negotiated.would_fail {
            self.metrics.would_fail.increment(refusal.reason());
        }
        if let Some(server) = &negotiated.server {
            // A gauge is a float: exact to the second for a hundred million years.
            self.metrics.server_not_before.set(server.not_before.0 as f64);
            self.metrics.server_not_after.set(server.not_after.0 as f64);
        }
    }
}

struct Attempts<'a> {
    originator: &'a Originator,
    endpoint: &'a Arc<Endpoint>,
    origin: &'a Origin,
    /// That of the client, for the connections after the first.
    request: Option<Bytes>,
    deadline: Instant,
}

impl<'a> Attempts<'a> {
    async fn make(&self, upgraded: Upgraded) -> Made {
        let first = self.handshake(self.endpoint.tolerances().offer(Instant::now()));
        let mut running = pin!(self.run(&first, upgraded));
        let Ok(done) = timeout_at(self.patience(), &mut running).await else {
            return self.silent(&first, running).await;
        };
        self.conclude(&first, done).await
    }

    /// After a handshake: if what it offered may be the cause of its failure, another follows without that.
    async fn conclude(&self, first: &Handshake<'_>, done: Done) -> Made {
        let error = match done {
            Ok(made) => {
                self.tolerated(first);
                return Ok(made);
            }
            Err(error) => error,
        };
        match self.suspect(first, &error) {
            Some(feature) => self.repeat(first, feature, error).await,
            None => {
                self.endpoint.tolerances().of(Feature::HybridShare).failed();
                Err(Stage::Handshake(error))
            }
        }
    }

    /// Handshakes that offer less and less: each part that is suspected is left out once, so that there are two at
    /// most. None begins after the deadline: it would cost the server a connection for nothing.
    async fn repeat(&self, first: &Handshake<'_>, suspect: Feature, error: handshake::Error) -> Made {
        let mut suspicion = Suspicion::new(suspect, first, error);
        let mut offer = first.offer();
        loop {
            if self.deadline <= Instant::now() {
                self.endpoint.tolerances().of(Feature::HybridShare).failed();
                return Err(Stage::Handshake(suspicion.error));
            }
            let suspect = suspicion.feature;
            offer = offer.without(suspect);
            let again = self.handshake(offer);
            let error = match self.connect_and_run(&again).await {
                Err(Stage::Handshake(error)) => error,
                made => return self.settle(suspicion, made),
            };
            match self.suspect(&again, &error).filter(|next| *next != suspect) {
                None => return Err(self.refuted(suspicion, Stage::Handshake(error))),
                Some(next) => suspicion = Suspicion::new(next, &again, error),
            }
        }
    }

    /// Without an answer for a while: if what the first handshake offers may be why, another runs without it, and the
    /// one that ends first is used.
    async fn silent(&self, first: &Handshake<'_>, mut running: Pin<&mut impl Future<Output = Done>>) -> Made {
        let now = Instant::now();
        let suspect = first.first_suspect(self.doubts_share()).filter(|feature| {
            !first.is_answered() && self.endpoint.tolerances().of(*feature).is_suspect_of_silence(now)
        });
        let Some(feature) = suspect else { return self.conclude(first, running.await).await };
        let suspicion = |error| Suspicion::new(feature, first, error);
        // Leaves out every suspected part: there is no time for a third.
        let rival = self.handshake(Offer { session: false, hybrid_share: false });
        let mut second = pin!(self.connect_and_run(&rival));
        tokio::select! {
            done = &mut running => match (done, second) {
                (Ok(made), _) => self.conclude(first, Ok(made)).await,
                (Err(error), second) => self.settle(suspicion(error), second.await),
            },
            made = &mut second => match made {
                // A server that was slow.
                Ok(made) if first.is_answered() => Ok(made),
                Ok(made) => {
                    let error = handshake::Error::timed_out(now.elapsed(), self.endpoint.address(), self.origin);
                    self.confirmed(&suspicion(error), made)
                }
                Err(stage) => match running.await {
                    Ok(made) => self.conclude(first, Ok(made)).await,
                    Err(error) => Err(self.refuted(suspicion(error), stage)),
                },
            },
        }
    }

    fn settle(&self, suspicion: Suspicion, made: Made) -> Made {
        match made {
            Ok(made) => self.confirmed(&suspicion, made),
            Err(stage) => Err(self.refuted(suspicion, stage)),
        }
    }

    fn handshake(&self, offer: Offer) -> Handshake<'a> {
        Handshake::new(self.endpoint.address(), self.origin, offer)
    }

    async fn connect_and_run(&self, handshake: &Handshake<'_>) -> Made {
        let address = self.endpoint.address();
        let options = &self.originator.options;
        let dialed = dial::race(&[address], options, Some(self.deadline)).await;
        let tcp = dialed.map_err(Stage::Dial)?.tcp;
        let request = self.request.clone();
        let upgraded = self.originator.upgrade(tcp, self.endpoint.origin(), request, self.deadline).await?;
        self.run(handshake, upgraded).await.map_err(Stage::Handshake)
    }

    async fn run(&self, handshake: &Handshake<'_>, Upgraded { tcp, greeting }: Upgraded) -> Done {
        let began = Instant::now();
        let (stream, negotiated) = handshake.run_until(tcp, self.deadline).await?;
        self.originator.count(self.endpoint, &negotiated, began.elapsed());
        Ok((Established { greeting, ..stream }, negotiated))
    }

    fn patience(&self) -> Instant {
        let now = Instant::now();
        now + (self.deadline.saturating_duration_since(now) / PATIENCE).min(MOST_PATIENCE)
    }

    /// The part of a ClientHello that may be the cause of the failure, and with which the server has not failed lately
    /// for another cause. A session is always suspected: it is not offered twice.
    fn suspect(&self, handshake: &Handshake<'_>, error: &handshake::Error) -> Option<Feature> {
        let feature = handshake.suspect(error, self.doubts_share())?;
        let is_suspect =
            feature == Feature::Session || self.endpoint.tolerances().of(feature).is_suspect(Instant::now());
        is_suspect.then_some(feature)
    }

    fn doubts_share(&self) -> bool {
        self.endpoint.tolerances().of(Feature::HybridShare).is_doubted()
    }

    fn tolerated(&self, handshake: &Handshake<'_>) {
        let mut tolerances = self.endpoint.tolerances();
        let now = Instant::now();
        if handshake.has_offered_session().is_some() {
            tolerances.of(Feature::Session).tolerated(now);
        }
        if handshake.has_hybrid_share() {
            tolerances.of(Feature::HybridShare).tolerated(now);
        }
    }

    /// The handshake without the suspected part failed as well: that is the failure. If there was no other handshake, it is
    /// the first's, and nothing was found out.
    fn refuted(&self, suspicion: Suspicion, stage: Stage) -> Stage {
        self.originator.metrics.repeated_in_vain.increment(suspicion.feature.reason());
        if !matches!(stage, Stage::Handshake(_)) {
            return Stage::Handshake(suspicion.error);
        }
        if suspicion.feature == Feature::HybridShare {
            self.endpoint.tolerances().of(suspicion.feature).innocent(Instant::now());
        }
        stage
    }

    /// The handshake without the suspected part succeeded.
    fn confirmed(&self, suspicion: &Suspicion, made: (Established, Negotiated)) -> Made {
        self.originator.metrics.repeated.increment(suspicion.feature.reason());
        // Of a session that another endpoint made, no more is known than that this one is lent none.
        let left_out = (!suspicion.borrowed)
            .then(|| {
                self.endpoint.tolerances().of(suspicion.feature).not_tolerated(suspicion.evidence(), Instant::now())
            })
            .flatten();
        tracing::warn!(
            upstream = %self.originator.name,
            server = %self.endpoint.server(),
            endpoint = %self.endpoint.address(),
            reason = suspicion.feature.reason(),
            detail = suspicion.detail(left_out),
            repair = suspicion.feature.repair(&self.originator.name),
            seconds = left_out.map(|length| length.as_secs()),
            "handshake repeated",
        );
        Ok(made)
    }
}

struct Suspicion {
    feature: Feature,
    /// A session of another endpoint.
    borrowed: bool,
    error: handshake::Error,
}

impl Suspicion {
    /// A suspected session is not offered again, whatever the result.
    fn new(feature: Feature, handshake: &Handshake<'_>, error: handshake::Error) -> Self {
        if feature == Feature::Session {
            handshake.drop_session();
        }
        let borrowed = feature == Feature::Session && handshake.has_offered_session() == Some(true);
        Self { feature, borrowed, error }
    }

    fn evidence(&self) -> Evidence {
        if self.error.cause().is_silence() { Evidence::Silence } else { Evidence::Answer }
    }

    /// Logged once a handshake without it has succeeded.
    fn detail(&self, left_out: Option<Duration>) -> String {
        let (offered, without, likely) = match self.feature {
            Feature::Session => (
                "offered a TLS session for resumption",
                "without one",
                "the server cannot resume sessions that it gives (OpenSSL: no session id context is set)",
            ),
            Feature::HybridShare => (
                "carried the key share of post-quantum key exchange, with which a ClientHello takes two packets,",
                "with a classic key share",
                "the server, or a middlebox before it, drops a ClientHello of more than one packet",
            ),
        };
        let left_out = left_out.map(|length| {
            format!("; to this address handshakes are made {without} for the next {} s", length.as_secs())
        });
        let error = &self.error;
        let left_out = left_out.unwrap_or_default();
        format!("a handshake that {offered} failed ({error}), and succeeded {without}{left_out}; likely: {likely}")
    }
}

impl Feature {
    fn repair(self, upstream: &Name) -> String {
        let mut text = Text::default();
        text.table(&["upstreams", upstream.as_str(), "tls"]);
        match self {
            Self::Session => text.set("resumption", false),
            Self::HybridShare => text.set("key_exchange_share", "classic"),
        };
        text.finish()
    }
}
