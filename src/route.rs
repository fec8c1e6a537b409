//! Where a connection goes: a pure look-up from (listener, class) to a route.

use std::sync::Arc;
use std::time::Duration;

use crate::classify::{Class, Expect};
use crate::config::values::{Name, StreamLimits};
use crate::metrics::{ListenerMetrics, RouteMetrics};
use crate::originate::Originator;
use crate::relay::Counters;

/// The routes of one listener.
pub struct RouteTable {
    /// The listener's name, for the log.
    pub listener: Name,
    /// What the client is expected to say first.
    pub expect: Expect,
    /// How long it may take to say that.
    pub patience: Duration,
    /// The listener's metrics.
    pub metrics: Arc<ListenerMetrics>,
    only: Arc<Route>,
}

/// One way from a listener to an upstream. A stream holds its route, and by it the upstream's origin, as
/// long as it lives: an old generation dies when its last stream does.
pub struct Route {
    /// The way out.
    pub originator: Arc<Originator>,
    /// How long a stream may do what.
    pub limits: StreamLimits,
    /// Bytes.
    pub counters: Counters,
    /// How streams end.
    pub metrics: RouteMetrics,
}

impl RouteTable {
    /// A listener all of whose connections take one route.
    pub fn new(
        listener: Name,
        expect: Expect,
        patience: Duration,
        metrics: Arc<ListenerMetrics>,
        only: Arc<Route>,
    ) -> Self {
        Self { listener, expect, patience, metrics, only }
    }

    /// The route of a connection of this class.
    pub fn find(&self, _class: &Class) -> &Arc<Route> {
        &self.only
    }
}
