//! Servers of an upstream as typed: addresses, balancing, ejection of failing addresses, active checks.

use std::time::Duration;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::read::{Count, Fraction, Given, Reader, Value, section};
use crate::config::terms::{CheckKind, Server};

#[derive(Clone, Debug)]
pub(crate) enum Listed {
    /// `"host:port"`.
    Address(Server),
    /// `{ address = "host:port", ... }`.
    Table(Box<ServerTable>),
}

section! {
    /// A server with more settings than its address.
    #[schemars(extend("required" = ["address"]))]
    struct ServerTable {
        /// A host and port; or the name of a service in DNS without a port, "_postgresql._tcp.example.com".
        address: Server,
        /// Share of the streams, in proportion to the weights of the other servers. Default: 1.
        weight: Count,
        /// Servers with a higher number are used only if none with a lower one is available. Default: 1; with
        /// `balance = "priority"` the position in the list.
        priority: Count,
        /// Concurrent streams to each of its addresses. Default: no bound.
        max_connections: Count,
    }
}

section! {
    /// When a failing address is ejected: it gets no streams for a while.
    struct Ejection runs as #[derive(Copy)] EjectionSettings {
        /// Failures in a row that eject it.
        // One may be a lost packet, two a restart that was met twice.
        failures: Count = 3,
        /// Duration of the first ejection; each further one lasts twice as long.
        // About what a restart takes.
        backoff: Duration = "1s",
        /// Longest ejection.
        // A server that is down for good costs one attempt a minute.
        max_backoff: Duration = "1m",
        /// Part of the addresses that may be ejected together, from 0 (no ejection) to 1; one always may, and all if all
        /// have failed.
        // With fewer left, the others would break down under the additional load, and the network is the likelier cause.
        max_share: Fraction = 0.5,
    }
}

section! {
    /// Active health checks, in addition to what live traffic shows.
    struct ActiveCheck runs as #[derive(Copy, Eq)] CheckSettings {
        /// From the end of one check to the start of the next.
        // Often enough that a stream rarely finds a dead server first, far below what counts as load.
        interval: Duration = "10s",
        /// "tcp": a connection; "tls": the upgrade and a TLS handshake as for a stream. With `passthrough`, an absent key
        /// means "tcp".
        kind: CheckKind = "tls",
    }
}

impl Listed {
    pub(crate) fn server(&self) -> Option<&Server> {
        match self {
            Self::Address(server) => Some(server),
            Self::Table(table) => table.address.value(),
        }
    }
}

/// Two entries are the same server whatever their other keys are.
impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        self.server().is_some() && self.server() == other.server()
    }
}

impl Value for Listed {
    const WANTED: &'static str = "a server";
    const EXAMPLE: &'static str = "\"db.example.com:443\", or a table with its `address`";

    fn find(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<Self>> {
        if found.get_ref().is_table() {
            return ServerTable::find(found, reader).map(|table| table.map(|table| Self::Table(Box::new(table))));
        }
        Server::find(found, reader).map(|server| server.map(Self::Address))
    }

    fn repair(typed: Option<&str>) -> String {
        Server::repair(typed)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let address = Server::schema(generator);
        let table = ServerTable::schema(generator);
        json_schema!({ "anyOf": [address, table] })
    }
}

/// An argument holds an address and nothing else.
impl From<Given<Server>> for Given<Listed> {
    fn from(given: Given<Server>) -> Self {
        match given {
            Given::Absent => Self::Absent,
            Given::Wrong => Self::Wrong,
            Given::Value(span, server) => Self::Value(span, Listed::Address(server)),
        }
    }
}
