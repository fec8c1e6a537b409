//! Why an origination failed, and at which stage.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::values::{Name, Server};
use crate::config::write::{Text, Value};
use crate::credentials::part::Broken;
use crate::pipeline::originate::servers::endpoint::Endpoint;
use crate::pipeline::originate::servers::resolve;
use crate::pipeline::originate::{dial, handshake, login, upgrade};
use crate::protocols::answers::{AnswerFormat, Fault};
use crate::protocols::mysql;

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) server: Server,
    /// Known once TCP is connected.
    pub(crate) endpoint: Option<SocketAddr>,
}

#[derive(Debug)]
pub(crate) enum Stage {
    Resolve(resolve::Error),
    Dial(dial::Error),
    /// The server did not agree to TLS.
    Upgrade(upgrade::Error),
    Handshake(handshake::Error),
    /// The client did not come to the end of its login.
    Login(login::Error),
    Deadline(Phase),
    /// Every endpoint is in back-off: nothing was tried.
    CircuitOpen(NextTrial),
    /// Every endpoint has as many streams as it may have.
    Full,
    /// The upstream's identity or trust cannot be used: nothing was tried.
    Unavailable(Arc<Broken>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextTrial {
    pub(crate) last: Option<&'static str>,
    /// Time until the next trial.
    pub(crate) left: Duration,
}

/// A phase without an error of its own for the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Resolve,
    /// The plaintext before TLS.
    Upgrade,
    /// The login inside TLS.
    Login,
}

impl Failure {
    pub(super) fn at(endpoint: &Endpoint, stage: Stage) -> Self {
        Self { stage, server: endpoint.server().clone(), endpoint: Some(endpoint.address()) }
    }

    /// A server without an address: DNS failed, or has not answered in time.
    pub(super) fn unresolved((server, error): (Server, Option<resolve::Error>)) -> Self {
        let stage = error.map_or(Stage::Deadline(Phase::Resolve), Stage::Resolve);
        Self { stage, server, endpoint: None }
    }

    pub(super) fn lacking(broken: Arc<Broken>, server: Server) -> Self {
        Self { stage: Stage::Unavailable(broken), server, endpoint: None }
    }

    /// The client's doing: it says nothing about the server.
    pub(crate) fn is_of_client(&self) -> bool {
        matches!(self.stage, Stage::Login(_))
    }

    /// Ended by the deadline alone.
    pub(crate) fn ran_out_of_time(&self) -> bool {
        match &self.stage {
            Stage::Deadline(_) => true,
            Stage::Handshake(error) => error.reason() == "handshake_timeout",
            _ => false,
        }
    }

    /// False: the circuit was open, and an earlier failure is the cause.
    pub(crate) fn was_tried(&self) -> bool {
        !matches!(self.stage, Stage::CircuitOpen(_))
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        match &self.stage {
            Stage::Dial(error) => error.attempts.iter().map(|attempt| attempt.address).collect(),
            _ => self.endpoint.into_iter().collect(),
        }
    }

    pub(crate) fn reason(&self) -> &'static str {
        match &self.stage {
            Stage::Resolve(error) => error.reason(),
            Stage::Dial(error) => error.reason(),
            Stage::Upgrade(error) => error.reason(),
            Stage::Handshake(error) => error.reason(),
            Stage::Login(error) => error.reason(),
            Stage::Deadline(Phase::Resolve) => "dns_timeout",
            Stage::Deadline(Phase::Upgrade) => "upgrade_timeout",
            Stage::Deadline(Phase::Login) => "login_timeout",
            Stage::CircuitOpen(_) => "circuit_open",
            Stage::Full => "servers_full",
            Stage::Unavailable(broken) => broken.reason(),
        }
    }

    pub(crate) fn fault(&self) -> Fault {
        match &self.stage {
            Stage::Handshake(error) if error.is_about_client_certificate() => Fault::ClientCertificate,
            Stage::Upgrade(_) | Stage::Handshake(_) | Stage::Deadline(Phase::Upgrade) => Fault::Tls,
            Stage::Login(error) => error.fault(),
            Stage::Deadline(Phase::Login) => Fault::Silent,
            Stage::Unavailable(_) => Fault::Credentials,
            Stage::Resolve(_) | Stage::Dial(_) | Stage::Deadline(Phase::Resolve) => Fault::Unreachable,
            Stage::CircuitOpen(_) | Stage::Full => Fault::Unavailable,
        }
    }

    /// The class of the failures because of which nothing was tried.
    pub(crate) fn after(&self) -> Option<&'static str> {
        match &self.stage {
            Stage::CircuitOpen(next) => next.last,
            _ => None,
        }
    }

    /// A message of the server that is meant for a client of this protocol, with this number if its packets are numbered;
    /// empty if there is none.
    pub(crate) fn message(&self, format: AnswerFormat, next_packet: Option<u8>) -> Bytes {
        let message = match &self.stage {
            Stage::Upgrade(error) => error.message(format),
            _ => Bytes::new(),
        };
        match next_packet {
            Some(number) => mysql::renumbered(message, number),
            None => message,
        }
    }

    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        match &self.stage {
            Stage::Handshake(error) => error.facts(),
            _ => Vec::new(),
        }
    }

    fn more_connections(&self, upstream: &Name) -> String {
        let keys = [("address", Some(self.server.to_string().into())), ("max_connections", Some(Value::number(1000)))];
        let mut text = Text::default();
        text.table(&["upstreams", upstream.as_str()]).set("servers", Value::list(Value::inline(keys)));
        text.finish()
    }

    pub(crate) fn repair(&self, upstream: &Name) -> Option<String> {
        match &self.stage {
            Stage::Upgrade(error) => error.repair(upstream),
            Stage::Handshake(error) => error.repair(upstream),
            Stage::Login(error) => error.repair(),
            Stage::Full => Some(self.more_connections(upstream)),
            // `detail` names the file; the configuration may be right.
            Stage::Unavailable(_) => None,
            Stage::Resolve(_) | Stage::Dial(_) | Stage::Deadline(_) | Stage::CircuitOpen(_) => None,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.stage {
            Stage::Resolve(error) => error.fmt(f),
            Stage::Dial(error) => error.fmt(f),
            Stage::Upgrade(error) => error.fmt(f),
            Stage::Handshake(error) => error.fmt(f),
            Stage::Login(error) => error.fmt(f),
            Stage::Deadline(Phase::Resolve) => write!(f, "no answer from DNS within the origination's deadline"),
            Stage::Deadline(Phase::Upgrade) => {
                write!(f, "{} did not answer the request for TLS within the origination's deadline", self.server)
            }
            Stage::Deadline(Phase::Login) => {
                write!(f, "the client's login at {} was not over within the origination's deadline", self.server)
            }
            Stage::CircuitOpen(NextTrial { last, left }) => {
                let last = last.unwrap_or("a failure");
                write!(f, "every address has failed several times in a row ({}: {last}); ", self.server)?;
                write!(f, "nothing was tried, the next try is in {} ms", left.as_millis())
            }
            Stage::Unavailable(broken) => write!(f, "{}", broken.fault),
            Stage::Full => write!(f, "every address has as many streams as `max_connections` allows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::values::Host;

    #[test]
    fn a_repair_names_its_upstream_whatever_its_name_is() {
        let server = Server { host: Host::Ip(Ipv4Addr::new(192, 0, 2, 1).into()), port: 443 };
        let failure = Failure { stage: Stage::Full, server, endpoint: None };
        for name in ["db.example.com", "db", "a-b_c"] {
            let repair = failure.repair(&Name::new(name.to_owned())).expect("more streams can be allowed");
            let table: toml::Table = repair.parse().unwrap_or_else(|error| panic!("{error}\n{repair}"));
            let upstreams = table["upstreams"].as_table().expect("a table of upstreams");
            assert_eq!(upstreams.keys().collect::<Vec<_>>(), [name], "{repair}");
        }
    }
}
