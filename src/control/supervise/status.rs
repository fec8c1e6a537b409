//! The running process as the admin endpoint shows it, and the requests that it passes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use super::endpoints::Endpoints;
use super::heartbeat::Heartbeat;
use super::readiness::{Readiness, keep_proven};
use super::requests::{Ordered, Orders, orders};
use crate::config;
use crate::config::values::{Listener, Name};
use crate::control::admin::{Control, Kept, Swapped};
use crate::control::hardening::Hardening;
use crate::control::reload_fingerprint;
use crate::control::snapshot::{Snapshot, Troubled};
use crate::credentials::certificate::Date;
use crate::credentials::fingerprint::hex;
use crate::credentials::identity::Identity;
use crate::credentials::part::{Broken, Part};
use crate::observe::metrics::Registry;
use crate::observe::tasks::{self, Task};
use crate::pipeline::originate::Originator;
use crate::pipeline::originate::pool::Pool;
use crate::pipeline::originate::servers::account::Times;
use crate::pipeline::originate::servers::endpoints::Member;

pub(super) struct StatusView {
    snapshot: Arc<ArcSwap<Snapshot>>,
    registry: Registry,
    orders: Orders,
    started: Instant,
    ready: AtomicBool,
    /// Was ready once.
    has_started: AtomicBool,
    readiness: Arc<Readiness>,
    heartbeat: Heartbeat,
    max_connections: usize,
    permits: Arc<Semaphore>,
    endpoints: Endpoints,
    hardening: Hardening,
}

impl StatusView {
    pub(super) fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        registry: Registry,
        max_connections: usize,
        permits: Arc<Semaphore>,
        hardening: Hardening,
    ) -> (Self, Ordered) {
        let readiness = Arc::new(Readiness::new(Arc::clone(&snapshot)));
        let proving = registry.clone();
        tasks::spawn_for(Task::Readiness, &registry, &readiness, move |readiness| {
            keep_proven(readiness, proving.clone())
        });
        let started = Instant::now();
        let ready = AtomicBool::new(false);
        let (orders, ordered) = orders();
        (
            Self {
                snapshot,
                registry,
                orders,
                started,
                ready,
                has_started: AtomicBool::new(false),
                readiness,
                heartbeat: Heartbeat::new(),
                max_connections,
                permits,
                endpoints: Endpoints::default(),
                hardening,
            },
            ordered,
        )
    }

    fn is_serving(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && self.snapshot.load().is_whole()
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
        if !ready {
            self.readiness.stop();
        }
    }
}

impl Control for StatusView {
    fn metrics(&self) -> String {
        self.endpoints.publish(&self.snapshot.load(), &self.registry);
        self.registry.render()
    }

    fn ready(&self) -> bool {
        self.is_serving() && self.readiness.is_met()
    }

    fn accepts(&self, token_file: &Path, shown: &[u8]) -> bool {
        self.snapshot.load().tokens().is_valid(token_file, shown)
    }

    fn has_started(&self) -> bool {
        if self.ready() {
            self.has_started.store(true, Ordering::Relaxed);
        }
        self.has_started.load(Ordering::Relaxed)
    }

    fn stuck(&self) -> Vec<String> {
        let line = |(worker, silent): (usize, Duration)| format!("worker {worker} is stuck for {} s", silent.as_secs());
        self.heartbeat.stuck().into_iter().map(line).collect()
    }

    fn lacks<'a>(&'a self, upstreams: &'a [&'a str]) -> Pin<Box<dyn Future<Output = Vec<String>> + Send + 'a>> {
        Box::pin(async move {
            match self.is_serving() {
                true => self.readiness.lacks(upstreams).await,
                false => vec!["starting, draining, or without a file that an upstream needs".to_owned()],
            }
        })
    }

    fn status(&self) -> Value {
        let snapshot = self.snapshot.load();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "generation": snapshot.generation,
            "ready": self.ready(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "connections": self.max_connections.saturating_sub(self.permits.available_permits()),
            "max_connections": self.max_connections,
            "hardening": self.hardening.status(),
            "listeners": listeners(&snapshot),
            "upstreams": upstreams(&snapshot),
            "identities": identities(&snapshot),
            "parts": parts(&snapshot),
            "expiry": snapshot.inventory().iter().map(|one| one.document(Date::now())).collect::<Value>(),
        })
    }

    fn config(&self) -> Value {
        // Values hold paths of secrets, never secrets, so all of them may be shown.
        config::document(&self.snapshot.load().config)
    }

    fn outline(&self) -> Value {
        reload_fingerprint::running(&self.snapshot.load())
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<Swapped, Kept>> + Send + '_>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.orders.reloads.send(answer).await.map_err(|_| Kept::Draining)?;
            answered.await.map_err(|_| Kept::Draining)?
        })
    }

    fn drain(&self) {
        self.orders.drain.notify_one();
    }
}

fn listeners(snapshot: &Snapshot) -> Value {
    let one = |spec: &Listener| {
        json!({
            "name": spec.name.as_str(),
            "listen": spec.listen.to_string(),
            "upstreams": spec.destination.upstreams().map(|name| name.as_str()).collect::<BTreeSet<_>>(),
        })
    };
    snapshot.config.listeners.iter().map(one).collect()
}

fn upstreams(snapshot: &Snapshot) -> Value {
    snapshot.upstreams().values().map(|originator| upstream(snapshot, originator)).collect()
}

fn upstream(snapshot: &Snapshot, originator: &Originator) -> Value {
    let verify = snapshot.config.upstreams.get(originator.name()).map(|spec| match spec.tls.verify.parts() {
        _ if spec.passthrough => json!("passthrough"),
        (word, None) => json!(word),
        (word, Some(reason)) => json!({ word: reason }),
    });
    let servers: Vec<Value> = originator
        .servers()
        .iter()
        .map(|server| {
            let origin = server.origin.as_ref();
            json!({
                "server": server.configured.to_string(),
                "tickets": origin.map(|origin| origin.sessions_held()),
                "warm": origin.map(|origin| origin.shelf().idle()),
            })
        })
        .collect();
    json!({
        "name": originator.name().as_str(),
        "identity": originator.identity().map(|name| name.as_str()),
        "verify": verify,
        "unavailable": originator.lacks().map(|broken| broken.reason()),
        "pool": originator.pool().map(|pool| shown(pool, originator.idle())),
        "servers": servers,
        "endpoints": originator.endpoints().known().list().iter().map(endpoint).collect::<Value>(),
        "unresolved": unresolved(originator),
    })
}

fn shown(pool: &Pool, warm: usize) -> Value {
    let spec = pool.spec();
    let tally = pool.tally();
    json!({
        "min_idle": spec.min_idle,
        "max_idle": spec.max_idle,
        "max_idle_age_seconds": spec.max_idle_age.as_secs_f64(),
        "warm": warm,
        "hits": tally.hits(),
        "misses": tally.misses(),
        "discards": tally.discards(),
    })
}

fn endpoint(member: &Member) -> Value {
    let Member { endpoint, tier, weight, max_connections, .. } = member;
    let status = endpoint.health_status(tokio::time::Instant::now());
    let account = endpoint.account();
    json!({
        "endpoint": endpoint.address().to_string(),
        "server": endpoint.server().to_string(),
        "health": status.as_str(),
        "failures_in_a_row": status.failures,
        "last_failure": status.last_failure.map(|failure| json!({
            "reason": failure.reason,
            "seconds_ago": failure.at.elapsed().unwrap_or_default().as_secs(),
        })),
        "in_flight": endpoint.in_flight(),
        "max_connections": max_connections,
        "warm": endpoint.warm(),
        "hits": account.tally().hits(),
        "misses": account.tally().misses(),
        "discards": account.tally().discards(),
        "handshakes": { "full": times(account.full()), "resumed": times(account.resumed()) },
        "tickets": endpoint.origin().map(|origin| origin.sessions_held_of(endpoint.address())),
        "priority": tier.0,
        "weight": weight,
    })
}

/// How long handshakes took: `at_most` has the bounds of the metrics, in seconds, and the count between each bound and
/// the one before.
fn times(times: &Times) -> Value {
    let bound = |bound: Option<f64>| bound.map_or_else(|| "longer".to_owned(), |seconds| seconds.to_string());
    let at_most: BTreeMap<_, _> = times.buckets().map(|(at_most, count)| (bound(at_most), count)).collect();
    json!({ "count": times.count(), "seconds": times.seconds(), "at_most": at_most })
}

fn unresolved(originator: &Originator) -> Value {
    let missing = originator.endpoints().missing().into_iter();
    let listed = missing.filter_map(|(server, error)| {
        let error = error?;
        Some(json!({ "server": server.to_string(), "reason": error.reason(), "detail": error.to_string() }))
    });
    listed.collect()
}

fn parts(snapshot: &Snapshot) -> Value {
    let why = |kind, name: &Name| {
        let is_it = |part: &Troubled<'_>| part.broken.fault.kind.as_str() == kind && part.broken.fault.name == *name;
        snapshot.troubled().find(is_it).map(|part| {
            let Broken { fault, since } = part.broken;
            json!({ "reason": fault.reason, "detail": fault.to_string(), "since": since.0 })
        })
    };
    let one = |(kind, name, state): (&'static str, &Name, &'static str)| json!({ "kind": kind, "name": name.as_str(), "state": state, "fault": why(kind, name) });
    snapshot.states().map(one).collect()
}

fn identities(snapshot: &Snapshot) -> Value {
    let one = |(name, part): (&Name, &Part<Identity>)| {
        let identity = part.usable()?;
        Some(json!({
            "name": name.as_str(),
            "subject": identity.leaf().subject,
            "sha256": hex(&identity.leaf().sha256),
            "not_after": identity.not_after().0,
        }))
    };
    snapshot.identities().iter().filter_map(one).collect()
}
