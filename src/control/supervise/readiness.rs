//! Whether upstreams can be reached: proven by an origination, kept true by the health of their addresses.
//!
//! An upstream that is asked for stays proven: when it is not ready, it gets an origination, and after a failure another
//! one a second later. Traffic and active checks tell the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::config::values::{Config, Name, Readiness as Rule};
use crate::control::snapshot::Snapshot;
use crate::observe::metrics::Registry;
use crate::observe::tasks::{self, Task};

pub(super) struct Readiness {
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// Upstreams that were asked for, at most those of the configuration.
    asked: Mutex<BTreeMap<Name, Proof>>,
    wake: Arc<Notify>,
    ended: Notify,
    is_stopped: AtomicBool,
}

#[derive(Default)]
struct Proof {
    is_running: bool,
    /// The class and the words of the last failure.
    failure: Option<String>,
    again: Option<Instant>,
}

/// Between two originations to an upstream that fails, and at most until a healthy one is found unhealthy.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a request waits for the first proof of an upstream: a probe of Kubernetes gives up after a second.
const PATIENCE: Duration = Duration::from_millis(800);

impl Readiness {
    pub(super) fn new(snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        Self {
            snapshot,
            asked: Mutex::default(),
            wake: Arc::new(Notify::new()),
            ended: Notify::new(),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// For the drain: begins no originations from now on.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Whether the upstreams are ready that the configuration wants to be.
    pub(super) fn is_met(&self) -> bool {
        let snapshot = self.snapshot.load();
        required(&snapshot.config).iter().all(|name| is_ready(&snapshot, name))
    }

    /// What is not ready of these upstreams, or of all that a listener leads to if none is named: a line for each. The
    /// first time that an upstream is asked for, its proof is waited for.
    pub(super) async fn lacks(&self, names: &[&str]) -> Vec<String> {
        let names = match self.known(names) {
            Ok(names) => names,
            Err(unknown) => return vec![unknown],
        };
        if self.ask(&names) {
            self.wake.notify_one();
            let _ = timeout(PATIENCE, self.proven(&names)).await;
        }
        let snapshot = self.snapshot.load();
        let asked = self.asked();
        let missing = names.iter().filter(|name| !is_ready(&snapshot, name));
        missing.map(|name| line(name, asked.get(name))).collect()
    }

    fn known(&self, names: &[&str]) -> Result<Vec<Name>, String> {
        let snapshot = self.snapshot.load();
        if names.is_empty() {
            return Ok(led_to(&snapshot.config));
        }
        let known = |name: &&str| {
            let found = snapshot.config.upstreams.get_key_value(&Name::new(*name)).map(|(name, _)| name.clone());
            found.ok_or_else(|| format!("there is no upstream {name}"))
        };
        names.iter().map(known).collect()
    }

    /// True if one was not asked for before.
    fn ask(&self, names: &[Name]) -> bool {
        let mut asked = self.asked();
        let before = asked.len();
        for name in names {
            asked.entry(name.clone()).or_default();
        }
        asked.len() > before
    }

    async fn proven(&self, names: &[Name]) {
        loop {
            // Register before checking, so that no end is missed.
            let ended = self.ended.notified();
            let snapshot = self.snapshot.load_full();
            let has_outcome = |name: &Name| {
                is_ready(&snapshot, name) || self.asked().get(name).is_some_and(|proof| proof.failure.is_some())
            };
            if names.iter().all(has_outcome) {
                return;
            }
            ended.await;
        }
    }

    /// Begins the originations that are due.
    fn begin(&self, proofs: &mut JoinSet<(Name, Option<String>)>, registry: &Registry) {
        if self.is_stopped.load(Ordering::Relaxed) {
            return;
        }
        let snapshot = self.snapshot.load_full();
        let now = Instant::now();
        self.ask(&required(&snapshot.config));
        let mut asked = self.asked();
        // Those that a reload removed.
        asked.retain(|name, proof| proof.is_running || snapshot.upstreams().contains_key(name));
        for (name, proof) in asked.iter_mut() {
            let is_due = proof.again.is_none_or(|again| again <= now);
            if proof.is_running || !is_due || is_ready(&snapshot, name) {
                continue;
            }
            let Some(originator) = snapshot.upstreams().get(name).cloned() else { continue };
            proof.is_running = true;
            let name = name.clone();
            let registry = registry.clone();
            proofs.spawn(async move {
                // Bounded by the upstream's own timeout.
                let work = originator.prove(None);
                let failure = match tasks::once(Task::Proof, &registry, work).await {
                    Some(Ok(())) => None,
                    Some(Err(failure)) => Some(format!("{}: {failure}", failure.reason())),
                    None => Some("panicked".to_owned()),
                };
                (name, failure)
            });
        }
    }

    fn end(&self, name: &Name, failure: Option<String>) {
        if let Some(proof) = self.asked().get_mut(name) {
            proof.is_running = false;
            proof.again = failure.is_some().then(|| Instant::now() + PAUSE);
            proof.failure = failure;
        }
        self.ended.notify_waiters();
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<Name, Proof>> {
        // Each change is complete in itself.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Proves what is asked for, until the owner is dropped. Holds it only while it works.
pub(super) async fn keep_proven(readiness: Weak<Readiness>, registry: Registry) {
    let mut proofs = JoinSet::new();
    loop {
        let Some(alive) = readiness.upgrade() else { return };
        alive.begin(&mut proofs, &registry);
        let wake = Arc::clone(&alive.wake);
        drop(alive);
        tokio::select! {
            Some(ended) = proofs.join_next() => {
                let Some(alive) = readiness.upgrade() else { return };
                ended.into_iter().for_each(|(name, failure)| alive.end(&name, failure));
            }
            () = wake.notified() => {}
            () = sleep(PAUSE) => {}
        }
    }
}

/// The upstreams that some listener leads to.
pub(super) fn led_to(config: &Config) -> Vec<Name> {
    let led_to = config.listeners.iter().flat_map(|listener| listener.destination.upstreams());
    led_to.collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

fn required(config: &Config) -> Vec<Name> {
    match config.readiness {
        Rule::Listeners => Vec::new(),
        Rule::Upstreams => led_to(config),
    }
}

fn is_ready(snapshot: &Snapshot, name: &Name) -> bool {
    snapshot.upstreams().get(name).is_some_and(|originator| originator.is_proven())
}

fn line(name: &Name, proof: Option<&Proof>) -> String {
    let failure = proof.and_then(|proof| proof.failure.as_deref());
    format!("{name}: {}", failure.unwrap_or("no origination has ended yet"))
}
