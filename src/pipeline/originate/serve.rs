//! One attempt for a client, with its login if the protocol has one inside TLS.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::pipeline::originate::attempts::{Attempt, Exhausted};
use crate::pipeline::originate::channel::Channel;
use crate::pipeline::originate::failure::{Failure, Phase, Stage};
use crate::pipeline::originate::handshake::{self, Negotiated};
use crate::pipeline::originate::login::{self, Failed};
use crate::pipeline::originate::origin::Origin;
use crate::pipeline::originate::pool::hand_over::Client;
use crate::pipeline::originate::pool::waiting::Waiting;
use crate::pipeline::originate::pool::warm::Discard;
use crate::pipeline::originate::servers::endpoint::Endpoint;
use crate::pipeline::originate::upgrade;
use crate::pipeline::originate::upstream::{Lack, Opened, Originated, Originator, Upgraded, Wire};
use crate::protocols::login::{LoginInside, Progress};
use crate::tls::handshake::Established;

/// Why an attempt did not serve its client.
pub(super) enum Lost {
    /// No other attempt would.
    Client(Failure),
    /// Another server may.
    Server(Failure),
    /// Another stream has taken the last slot of this address.
    Room(Failure, SocketAddr),
}

impl Lost {
    fn failure(&self) -> &Failure {
        match self {
            Self::Client(failure) | Self::Server(failure) | Self::Room(failure, _) => failure,
        }
    }
}

impl Originator {
    /// A new stream: a warm one, else to the first endpoint that accepts. All attempts share one deadline; each may use
    /// an equal part of the remaining time, but at least a third, so that one black hole does not take the time of the
    /// next endpoints. Errors: The failure of the last attempt; every failure is handed to `failed` and counted.
    ///
    /// Cancel safe: dropping the future closes whatever was begun.
    pub(crate) async fn open(
        &self,
        client: &mut Client<'_>,
        mut failed: impl FnMut(&Failure),
    ) -> Result<Opened, Failure> {
        if let Some(Lack { broken, server }) = &self.lacks {
            let failure = Failure::lacking(Arc::clone(broken), server.clone());
            self.report_failure(&failure, &mut failed);
            return Err(failure);
        }
        client.login = self.login().map(|login| (login.client)());
        self.open_with(client, failed).await
    }

    async fn open_with(&self, client: &mut Client<'_>, mut failed: impl FnMut(&Failure)) -> Result<Opened, Failure> {
        if let Some(endpoint) = self.endpoint_to_cancel_at(client.early) {
            return self.open_at(&endpoint, client, failed).await;
        }
        if let Some(opened) = self.open_warm(client).await {
            return opened.inspect_err(|failure| self.report_failure(failure, &mut failed));
        }
        let _waiting = Waiting::begin();
        let mut attempts = self.attempts(self.rules_for_clients()).await;
        let mut last = None;
        loop {
            let attempt = match attempts.next().await {
                Ok(attempt) => attempt,
                Err(exhausted) => {
                    if matches!(exhausted, Exhausted::Full(_))
                        && let Some(opened) = self.open_made(client, attempts.deadline()).await
                    {
                        return opened.inspect_err(|failure| self.report_failure(failure, &mut failed));
                    }
                    return Err(last.unwrap_or_else(|| self.untried(exhausted, failed)));
                }
            };
            let chosen = Arc::clone(attempt.endpoint());
            let lost = match self.serve(attempt, client, attempts.deadline()).await {
                Ok(opened) => {
                    self.pool.iter().for_each(|pool| pool.served(false, opened.in_flight.endpoint().account()));
                    return Ok(opened);
                }
                Err(lost) => lost,
            };
            self.report_failure(lost.failure(), &mut failed);
            last = Some(match lost {
                Lost::Client(failure) => return Err(failure),
                Lost::Server(failure) => {
                    attempts.lost(&chosen, &failure.addresses());
                    failure
                }
                Lost::Room(failure, address) => {
                    attempts.took_the_last_room(address);
                    failure
                }
            });
        }
    }

    /// The endpoint of the session that the client's first bytes ask to cancel: as the running generation has it, else as
    /// the session's own had it.
    fn endpoint_to_cancel_at(&self, early: &[u8]) -> Option<Arc<Endpoint>> {
        let key = (self.upgrade?.cancellation.as_ref()?.requested)(early)?;
        let endpoint = self.sessions.endpoint(key)?;
        let known = self.endpoints.known();
        let current = known.list().iter().find(|member| member.endpoint.address() == endpoint.address());
        Some(current.map_or(endpoint, |member| Arc::clone(&member.endpoint)))
    }

    async fn open_at(
        &self,
        endpoint: &Arc<Endpoint>,
        client: &mut Client<'_>,
        mut failed: impl FnMut(&Failure),
    ) -> Result<Opened, Failure> {
        let deadline = Instant::now() + self.timeout;
        let opened = self.serve(Attempt::at(endpoint, deadline), client, deadline).await;
        opened.map(|opened| Opened { cancels: true, ..opened }).map_err(|lost| {
            let (Lost::Client(failure) | Lost::Server(failure) | Lost::Room(failure, _)) = lost;
            self.report_failure(&failure, &mut failed);
            failure
        })
    }

    /// Connects and logs the client in.
    async fn serve(&self, attempt: Attempt, client: &mut Client<'_>, deadline: Instant) -> Result<Opened, Lost> {
        let originated = self
            .originate_in(&attempt, Some(client))
            .await
            .map_err(|failure| if failure.is_of_client() { Lost::Client(failure) } else { Lost::Server(failure) })?;
        let Originated { wire, endpoint, negotiated } = originated;
        let Some(in_flight) = attempt.won(endpoint.address()) else {
            return Err(Lost::Room(Failure::at(&endpoint, Stage::Full), endpoint.address()));
        };
        let wire = match (wire, &negotiated) {
            (Wire::Tls(stream), Some(negotiated)) => {
                let logged_in = self.log_in(client, stream, negotiated, &endpoint, deadline).await;
                Wire::Tls(logged_in.map_err(|stage| lost(client, Failure::at(&endpoint, stage)))?)
            }
            (wire, _) => wire,
        };
        let originated = Originated { wire, endpoint, negotiated };
        Ok(Opened { originated, in_flight, pooled: false, ready: Instant::now(), cancels: false })
    }

    /// Does the part of a login that is inside TLS, if the protocol has one. Not cancel safe: close both connections
    /// after a dropped call.
    pub(super) async fn log_in(
        &self,
        client: &mut Client<'_>,
        stream: Established,
        negotiated: &Negotiated,
        endpoint: &Arc<Endpoint>,
        deadline: Instant,
    ) -> Result<Established, Stage> {
        let (Some(login), Some(protocol), Some(origin)) = (&mut client.login, self.upgrade, endpoint.origin()) else {
            return Ok(stream);
        };
        let began = Instant::now();
        let late = |ended| {
            Stage::Handshake(handshake::Error::late(Discard::from(ended), negotiated, endpoint.address(), origin))
        };
        let (mut channel, said) = Channel::new(stream).map_err(late)?;
        let inside = login::inside_tls(protocol, &mut **login, &said, client.stream, &mut channel);
        let done = timeout_at(deadline, inside).await;
        self.learn(login.request());
        match done {
            Ok(Ok(())) => Ok(channel.into_established(Bytes::new())),
            Ok(Err(Failed::Client(error))) => Err(Stage::Login(error)),
            Ok(Err(Failed::Server(error))) => Err(Stage::Upgrade(error)),
            Ok(Err(Failed::Lost(ended))) => Err(late(ended)),
            Err(_) if login.progress() <= Progress::Greeted => {
                Err(Stage::Login(login::Error::silent(protocol, began.elapsed())))
            }
            Err(_) => Err(Stage::Deadline(Phase::Login)),
        }
    }

    /// The plaintext before TLS, with the client as far as it takes part in it.
    pub(super) async fn prepare(
        &self,
        tcp: TcpStream,
        origin: Option<&Arc<Origin>>,
        client: Option<&mut Client<'_>>,
        deadline: Instant,
    ) -> Result<Upgraded, Stage> {
        let client = client.and_then(|client| Some((client.stream, client.login.as_mut()?)));
        let (Some((stream, login)), Some(protocol)) = (client, self.upgrade) else {
            return self.upgrade(tcp, origin, self.request(), deadline).await;
        };
        if let Some(request) = login.request() {
            return self.upgrade(tcp, origin, Some(request), deadline).await;
        }
        let began = Instant::now();
        match timeout_at(deadline, login::before_tls(protocol, &mut **login, stream, &tcp)).await {
            Ok(Ok(greeting)) => Ok(Upgraded { tcp, greeting }),
            Ok(Err(Failed::Server(error))) => Err(Stage::Upgrade(error)),
            Ok(Err(Failed::Client(error))) => Err(Stage::Login(error)),
            Ok(Err(Failed::Lost(_))) => unreachable!("TLS has not begun"),
            Err(_) if login.progress() == Progress::Greeted => {
                Err(Stage::Login(login::Error::silent(protocol, began.elapsed())))
            }
            Err(_) => Err(Stage::Deadline(Phase::Upgrade)),
        }
    }

    pub(super) async fn upgrade(
        &self,
        mut tcp: TcpStream,
        origin: Option<&Arc<Origin>>,
        request: Option<Bytes>,
        deadline: Instant,
    ) -> Result<Upgraded, Stage> {
        let (Some(protocol), Some(origin)) = (self.upgrade, origin) else {
            return Ok(Upgraded { tcp, greeting: Bytes::new() });
        };
        let name = origin.server_name().to_str();
        let upgraded = async {
            match (&protocol.row().login, request) {
                (Some(login), Some(request)) => upgrade::upgrade_for(protocol, login, request, &mut tcp).await,
                _ => upgrade::upgrade(protocol, &mut tcp, &name).await,
            }
        };
        match timeout_at(deadline, upgraded).await {
            Ok(done) => done.map(|greeting| Upgraded { tcp, greeting }).map_err(Stage::Upgrade),
            Err(_) => Err(Stage::Deadline(Phase::Upgrade)),
        }
    }

    fn login(&self) -> Option<&'static LoginInside> {
        self.upgrade?.row().login.as_ref()
    }

    /// That of the last client, if clients have requests of their own.
    pub(super) fn request(&self) -> Option<Bytes> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn learn(&self, request: Option<Bytes>) {
        let Some(request) = request else { return };
        let before = self.request.lock().unwrap_or_else(PoisonError::into_inner).replace(request);
        if before.is_none() {
            // It could make nothing until now.
            self.pool().iter().for_each(|pool| pool.wake().notify_one());
        }
    }

    /// The number of the packet that answers the first command of a client that has logged in.
    pub(crate) fn first_answer(&self) -> Option<u8> {
        self.login().map(|_| 1)
    }

    /// Whether connections can be made that will serve a client.
    pub(super) fn has_request(&self) -> bool {
        self.login().is_none() || self.request().is_some()
    }
}

/// Whose end it is: until a server has answered the login, another one can take it.
pub(super) fn lost(client: &Client<'_>, failure: Failure) -> Lost {
    let is_bound = client.login.as_ref().is_some_and(|login| login.progress() == Progress::Authenticating);
    if is_bound || failure.is_of_client() { Lost::Client(failure) } else { Lost::Server(failure) }
}
