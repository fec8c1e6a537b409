//! Servers of an upstream: balancing, ejection of failing addresses, active checks.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::terms::{CheckKind, Server, Strategy};

/// Which address gets the next stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Among addresses of the same priority.
    pub(crate) strategy: Strategy,
    /// Shares that the configuration gives; [`Balance::share`] knows the defaults as well.
    pub(crate) shares: HashMap<Server, Share>,
}

impl Balance {
    pub(crate) fn share(&self, server: &Server) -> Share {
        self.shares.get(server).copied().unwrap_or_default()
    }
}

/// The share of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// In proportion to that of others. Default 1.
    pub(crate) weight: u32,
    /// Higher numbers only if no lower one is available. Default 1; under `priority` the position in the list.
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
    /// Failures in a row before an address is ejected.
    pub(crate) failures: u32,
    /// Duration of the first ejection; each further one is twice as long.
    pub(crate) backoff: Duration,
    pub(crate) max_backoff: Duration,
    /// The part of the addresses that may be ejected while others are healthy; 0: nothing is ejected.
    pub(crate) max_share: f64,
}

impl Default for Ejection {
    /// Three failures: one may be a lost packet, two a restart that was met twice. A second: about what a restart
    /// takes. A minute: a server that is down for good costs one attempt a minute. Half: with fewer left, the others
    /// would break down under the additional load, and the network is the likelier cause.
    fn default() -> Self {
        Self { failures: 3, backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(60), max_share: 0.5 }
    }
}

/// Active health checks of every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveCheck {
    /// From the end of one check to the start of the next. Default 10 s.
    pub(crate) interval: Duration,
    pub(crate) kind: CheckKind,
}
