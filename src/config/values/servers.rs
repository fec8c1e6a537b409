//! Servers of an upstream: balancing, ejection of failing addresses, active checks.

use std::collections::HashMap;

use crate::config::terms::{Server, Strategy};

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
