//! Servers of an upstream: who gets a stream, and what becomes of one that fails.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::values::Server;

/// Which address gets a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Among addresses of the same priority.
    pub(crate) strategy: Strategy,
    /// What single servers say of themselves; [`Balance::share`] knows the others' as well.
    pub(crate) shares: HashMap<Server, Share>,
}

impl Balance {
    /// What a server gets.
    pub(crate) fn share(&self, server: &Server) -> Share {
        self.shares.get(server).copied().unwrap_or_default()
    }
}

/// How one of several addresses is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Of two, drawn in proportion to their weights, the one with fewer streams for its weight.
    #[default]
    LeastConnections,
    /// In turns, in proportion to the weights.
    RoundRobin,
    /// The first of the list that is to be had.
    Priority,
}

/// What one server gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// In proportion to that of others. Default 1.
    pub(crate) weight: u32,
    /// Higher numbers only if no lower one is to be had. Default 1; under `priority` the place in the list.
    pub(crate) priority: u32,
    /// Streams at once to each address. Default: no bound.
    pub(crate) max_connections: Option<usize>,
}

impl Default for Share {
    fn default() -> Self {
        Self { weight: 1, priority: 1, max_connections: None }
    }
}

/// When an address that fails gets no streams for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ejection {
    /// Failures in a row.
    pub(crate) failures: u32,
    /// The first time without streams; each further one is twice as long.
    pub(crate) backoff: Duration,
    /// The longest time.
    pub(crate) max_backoff: Duration,
    /// The part of the addresses that may be left out while others are well; 0: nothing is ejected.
    pub(crate) max_share: f64,
}

impl Default for Ejection {
    /// Three failures: one may be a lost packet, two a restart that was met twice. A second: about what a restart
    /// takes. A minute: a server that is long gone costs one try a minute. Half: with fewer left, the others
    /// would break down under what they get in addition, and it is rather the network that is broken.
    fn default() -> Self {
        Self { failures: 3, backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(60), max_share: 0.5 }
    }
}

/// Asking every address whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveCheck {
    /// From the end of one check to the start of the next. Default 10 s.
    pub(crate) interval: Duration,
    /// How.
    pub(crate) kind: CheckKind,
}

/// What a check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A connection.
    Tcp,
    /// Upgrade and TLS handshake as for a stream.
    Tls,
}
