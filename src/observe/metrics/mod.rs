//! Every metric family, declared once; code that counts holds handles.
//!
//! A held handle costs a few nanoseconds an addition, a look-up with labels some hundreds: so listeners and upstreams
//! resolve theirs when the snapshot is built, and the data path only adds.

mod endpoint;
mod origin;
mod process;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use self::endpoint::EndpointMetrics;
use self::endpoint::MAX_ENDPOINTS;
pub use self::origin::{OriginMetrics, RESUMPTION_RATIO, SessionMetrics, Share};
use self::process::Process;
use crate::config::values::Name;

/// Makes handles, and renders the text that Prometheus reads.
#[derive(Clone)]
pub struct Registry(Option<Kept>);

#[derive(Clone)]
struct Kept {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    endpoints: Arc<Mutex<HashSet<[Arc<str>; 2]>>>,
    process: Arc<Process>,
}

/// Bounds of the origination histograms, in seconds: from a resumed handshake on loopback (0.2 ms) to
/// the default deadline.
pub(crate) const ORIGINATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

static METADATA: Metadata<'static> = Metadata::new("egret", metrics::Level::INFO, None);

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[rustfmt::skip]
const FAMILIES: &[(&str, Kind, &str)] = &[
    ("egret_build_info", Kind::Gauge, "Always 1; the version is a label."),
    ("egret_connections_total", Kind::Counter, "Connections accepted."),
    ("egret_connections_active", Kind::Gauge, "Connections now in flight."),
    ("egret_connections_refused_total", Kind::Counter, "Connections closed before an upstream was asked, by reason."),
    ("egret_accept_errors_total", Kind::Counter, "Errors of accept, by kind; accepting pauses after each."),
    ("egret_accept_waits_total", Kind::Counter, "Waits of a listener for the right to one more connection, by what bounds connections (reason)."),
    ("egret_streams_ended_total", Kind::Counter, "Streams that ended, by reason."),
    ("egret_streams_carried_total", Kind::Counter, "Streams that were relayed and ended, by mechanism: who made the records."),
    ("egret_key_limit_warnings_total", Kind::Counter, "Streams that have used 15/16 of what one key may encrypt, and cannot change it."),
    ("egret_bytes_total", Kind::Counter, "Bytes of clients' data carried, by direction."),
    ("egret_originations_total", Kind::Counter, "Finished originations, by what became of resumption (reason): resumed, refused (offered, not taken), no_session (no session at hand), withheld (the server broke a handshake that offered one), off."),
    ("egret_origination_failures_total", Kind::Counter, "Failed originations, by reason."),
    ("egret_handshake_repeats_total", Kind::Counter, "Handshakes that failed and were repeated at once with less in the ClientHello, by what was left out (reason) and result: succeeded, failed."),
    ("egret_handshakes_ahead_total", Kind::Counter, "Handshakes that were begun before their client came, by result: sent, dropped."),
    ("egret_origination_seconds", Kind::Histogram, "Time of the phases of an origination."),
    ("egret_chains_total", Kind::Counter, "Chains that servers showed and that were believed, by result: built (path and signatures checked), remembered."),
    ("egret_sessions", Kind::Gauge, "TLS sessions held for resumption."),
    ("egret_sessions_total", Kind::Counter, "What became of TLS sessions, by event."),
    ("egret_resumption_ratio", Kind::Gauge, "Of about the last hundred handshakes, the share that was resumed."),
    ("egret_chains_vouched_total", Kind::Counter, "Full handshakes whose server a root vouches for, by root: one that is used no more can be removed."),
    ("egret_candidate_roots_total", Kind::Counter, "Full handshakes that were judged by the candidate roots in shadow, by result (reason): passed, or why they would refuse the server."),
    ("egret_pool_warm", Kind::Gauge, "Finished originations that are ready for clients."),
    ("egret_pool_takes_total", Kind::Counter, "Clients of an upstream with a pool, by whether a warm connection served them: hit, miss."),
    ("egret_pool_fills_total", Kind::Counter, "Originations for the pool, by result: ready, failed."),
    ("egret_pool_discards_total", Kind::Counter, "Warm connections thrown away unused, by reason."),
    ("egret_verification_would_fail_total", Kind::Counter, "Servers served under verify = \"report\" that verification would have refused, by reason."),
    ("egret_endpoint_healthy", Kind::Gauge, "1 for an address of a server that gets streams, 0 for one that is ejected."),
    ("egret_endpoint_streams", Kind::Gauge, "Streams now at an address of a server."),
    ("egret_endpoint_warm", Kind::Gauge, "Finished originations to an address of a server that are ready for clients."),
    ("egret_endpoint_sessions", Kind::Gauge, "TLS sessions held for resumption that came from an address of a server."),
    ("egret_endpoint_takes_total", Kind::Counter, "Clients of an upstream with a pool, by the address that they got and whether it was warm: hit, miss."),
    ("egret_endpoint_discards_total", Kind::Counter, "Warm connections to an address of a server thrown away unused, by reason."),
    ("egret_endpoint_handshake_seconds", Kind::Histogram, "Time of the TLS handshakes with an address of a server, full and resumed."),
    ("egret_upstream_insecure", Kind::Gauge, "1 for each upstream whose servers are not verified in full."),
    (NOT_BEFORE, Kind::Gauge, "When the certificate or revocation list of the other gauge begins, as Unix time."),
    (NOT_AFTER, Kind::Gauge, "When a certificate or a revocation list ends, as Unix time; kind is identity, root, certificate, crl or server (as observed)."),
    ("egret_part_state", Kind::Gauge, "1 for the state that an identity or a trust is in, 0 for the others: live, kept (its files cannot be used, the last good state is in force), unavailable."),
    ("egret_task_failures_total", Kind::Counter, "Tasks that panicked or ended early, by task and reason; all but connections were started again or done anew."),
    ("egret_log_dropped_total", Kind::Counter, "Lines of the log that were dropped: its reader was too slow or gone, or the disk full."),
    ("egret_key_log_dropped_total", Kind::Counter, "Lines of the key log that were dropped."),
    ("egret_notify_dropped_total", Kind::Counter, "Messages to systemd that were dropped."),
    ("egret_reloads_total", Kind::Counter, "Reloads, by result."),
    ("egret_generation", Kind::Gauge, "The running generation of the configuration."),
    ("egret_reload_last_success_seconds", Kind::Gauge, "When the running generation was loaded, as Unix time."),
];

impl Registry {
    /// Describes every family.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &ORIGINATION_BUCKETS)
            .expect("the bounds are not empty")
            .build_recorder();
        for (name, kind, help) in FAMILIES {
            let name = KeyName::from_const_str(name);
            match kind {
                Kind::Counter => recorder.describe_counter(name, None, (*help).into()),
                Kind::Gauge => recorder.describe_gauge(name, None, (*help).into()),
                Kind::Histogram => recorder.describe_histogram(name, Some(Unit::Seconds), (*help).into()),
            }
        }
        let handle = recorder.handle();
        let registry = Self(Some(Kept {
            recorder: Arc::new(recorder),
            handle,
            endpoints: Arc::default(),
            process: Arc::new(Process::new()),
        }));
        registry.gauge("egret_build_info", &[("version", env!("CARGO_PKG_VERSION").into())]).set(1.0);
        registry
    }

    /// A registry whose handles count nothing, for snapshots that are built only to be checked: registering handles was
    /// a quarter of the time to check ten thousand upstreams.
    pub fn silent() -> Self {
        Self(None)
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let Some(Kept { handle, process, .. }) = &self.0 else { return String::new() };
        handle.run_upkeep();
        handle.render() + &process.render()
    }

    /// Drains the buffers of histograms; without it their memory grows. To be called on a timer.
    pub(crate) fn upkeep(&self) {
        if let Some(Kept { handle, .. }) = &self.0 {
            handle.run_upkeep();
        }
    }

    pub(crate) fn counter(&self, family: &'static str, labels: &[(&'static str, Arc<str>)]) -> Counter {
        let Some(Kept { recorder, .. }) = &self.0 else { return Counter::noop() };
        recorder.register_counter(&key(family, labels), &METADATA)
    }

    pub(crate) fn gauge(&self, family: &'static str, labels: &[(&'static str, Arc<str>)]) -> Gauge {
        let Some(Kept { recorder, .. }) = &self.0 else { return Gauge::noop() };
        recorder.register_gauge(&key(family, labels), &METADATA)
    }

    /// Whether an endpoint with these labels may have series: it has some, or is one of the first `MAX_ENDPOINTS`.
    pub(crate) fn admits(&self, labels: &[(&'static str, Arc<str>); 2]) -> bool {
        let Some(Kept { endpoints, .. }) = &self.0 else { return false };
        let key = labels.each_ref().map(|(_, value)| Arc::clone(value));
        let mut endpoints = endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.contains(&key) || endpoints.len() < MAX_ENDPOINTS && endpoints.insert(key)
    }

    pub(crate) fn histogram(&self, family: &'static str, labels: &[(&'static str, Arc<str>)]) -> Histogram {
        let Some(Kept { recorder, .. }) = &self.0 else { return Histogram::noop() };
        recorder.register_histogram(&key(family, labels), &METADATA)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// Counters of one family that differ in one label, mostly `reason`. Its values come from fixed sets in the code, so
/// the list is short, and each is looked up in the registry once.
pub struct ByReason {
    registry: Registry,
    family: &'static str,
    label: &'static str,
    labels: Vec<(&'static str, Arc<str>)>,
    known: RwLock<Vec<(&'static str, Counter)>>,
}

impl ByReason {
    pub(crate) fn new(registry: &Registry, family: &'static str, labels: &[(&'static str, Arc<str>)]) -> Self {
        Self::by("reason", registry, family, labels)
    }

    /// As [`Self::new`], with another label than `reason`.
    pub(crate) fn by(
        label: &'static str,
        registry: &Registry,
        family: &'static str,
        labels: &[(&'static str, Arc<str>)],
    ) -> Self {
        Self { registry: registry.clone(), family, label, labels: labels.to_vec(), known: RwLock::default() }
    }

    /// Adds one for this reason.
    pub fn increment(&self, reason: &'static str) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counter)) = known.iter().find(|(name, _)| *name == reason) {
            return counter.increment(1);
        }
        drop(known);
        let mut labels = self.labels.clone();
        labels.push((self.label, reason.into()));
        let counter = self.registry.counter(self.family, &labels);
        counter.increment(1);
        self.known.write().unwrap_or_else(PoisonError::into_inner).push((reason, counter));
    }
}

/// A gauge whose series appears with its first value: before, a zero would be read as a value.
pub(crate) struct Late {
    registry: Registry,
    family: &'static str,
    labels: Vec<(&'static str, Arc<str>)>,
    gauge: OnceLock<Gauge>,
}

impl Late {
    pub(crate) fn new(registry: &Registry, family: &'static str, labels: &[(&'static str, Arc<str>)]) -> Self {
        Self { registry: registry.clone(), family, labels: labels.to_vec(), gauge: OnceLock::new() }
    }

    pub(crate) fn set(&self, value: f64) {
        self.gauge.get_or_init(|| self.registry.gauge(self.family, &self.labels)).set(value);
    }
}

/// Handles of one listener.
pub struct ListenerMetrics {
    pub(crate) accepted: Counter,
    pub(crate) active: Gauge,
    /// Connections closed before an upstream was tried.
    pub refused: ByReason,
    /// Errors of accept.
    pub accept_errors: ByReason,
    /// Waits for a permit for one more connection, by limit.
    pub(crate) accept_waits: ByReason,
}

impl ListenerMetrics {
    /// For the listener called `listener`.
    pub fn new(registry: &Registry, listener: &Name) -> Self {
        let labels = [("listener", listener.shared())];
        Self {
            accepted: registry.counter("egret_connections_total", &labels),
            active: registry.gauge("egret_connections_active", &labels),
            refused: ByReason::new(registry, "egret_connections_refused_total", &labels),
            accept_errors: ByReason::new(registry, "egret_accept_errors_total", &labels),
            accept_waits: ByReason::new(registry, "egret_accept_waits_total", &labels),
        }
    }
}

/// For streams from one listener to one upstream.
pub struct RouteMetrics {
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
    /// Streams whose key towards the upstream nears its limit and cannot be changed.
    pub near_key_limit: Counter,
    /// How streams ended.
    pub ended: ByReason,
    pub(crate) carried: ByReason,
}

impl RouteMetrics {
    /// For streams from `listener` to `upstream`.
    pub fn new(registry: &Registry, listener: &Name, upstream: &Name) -> Self {
        let labels = [("listener", listener.shared()), ("upstream", upstream.shared())];
        let bytes = |direction: &str| {
            let [listener, upstream] = labels.clone();
            registry.counter("egret_bytes_total", &[listener, upstream, ("direction", direction.into())])
        };
        Self {
            sent: bytes("sent"),
            received: bytes("received"),
            near_key_limit: registry.counter("egret_key_limit_warnings_total", &labels),
            ended: ByReason::new(registry, "egret_streams_ended_total", &labels),
            carried: ByReason::by("mechanism", registry, "egret_streams_carried_total", &labels),
        }
    }
}

/// For the originations of one upstream.
pub struct UpstreamMetrics {
    /// Finished originations by what became of resumption.
    pub resumption: ByReason,
    /// Failed attempts.
    pub failures: ByReason,
    pub(crate) repeated: ByReason,
    pub(crate) repeated_in_vain: ByReason,
    /// Refusals that `verify = "report"` only reports.
    pub would_fail: ByReason,
    pub(crate) resolve: Histogram,
    pub(crate) dial: Histogram,
    pub(crate) upgrade: Histogram,
    pub(crate) handshake_full: Histogram,
    pub(crate) handshake_resumed: Histogram,
    pub(crate) server_not_before: Late,
    pub(crate) server_not_after: Late,
    pub(crate) registry: Registry,
}

impl UpstreamMetrics {
    /// For `upstream`.
    pub fn new(registry: &Registry, upstream: &Name) -> Self {
        let label = ("upstream", upstream.shared());
        let labels = [label.clone()];
        let server = [("kind", "server".into()), ("name", upstream.shared())];
        let phase =
            |phase: &str| registry.histogram("egret_origination_seconds", &[label.clone(), ("phase", phase.into())]);
        let repeats = |result: &str| {
            let labels = [label.clone(), ("result", result.into())];
            ByReason::new(registry, "egret_handshake_repeats_total", &labels)
        };
        Self {
            resumption: ByReason::new(registry, "egret_originations_total", &labels),
            failures: ByReason::new(registry, "egret_origination_failures_total", &labels),
            repeated: repeats("succeeded"),
            repeated_in_vain: repeats("failed"),
            would_fail: ByReason::new(registry, "egret_verification_would_fail_total", &labels),
            resolve: phase("resolve"),
            dial: phase("dial"),
            upgrade: phase("upgrade"),
            handshake_full: phase("handshake_full"),
            handshake_resumed: phase("handshake_resumed"),
            registry: registry.clone(),
            server_not_before: Late::new(registry, NOT_BEFORE, &server),
            server_not_after: Late::new(registry, NOT_AFTER, &server),
        }
    }
}

/// Handles of one upstream's pool.
pub struct PoolMetrics {
    pub(crate) warm: Gauge,
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) filled: Counter,
    pub(crate) failed: Counter,
    /// Warm connections discarded unused.
    pub discards: ByReason,
}

impl PoolMetrics {
    /// For the pool of `upstream`.
    pub fn new(registry: &Registry, upstream: &Name) -> Self {
        let label = ("upstream", upstream.shared());
        let result = |family, result: &str| registry.counter(family, &[label.clone(), ("result", result.into())]);
        let labels = [label.clone()];
        Self {
            warm: registry.gauge("egret_pool_warm", &labels),
            hits: result("egret_pool_takes_total", "hit"),
            misses: result("egret_pool_takes_total", "miss"),
            filled: result("egret_pool_fills_total", "ready"),
            failed: result("egret_pool_fills_total", "failed"),
            discards: ByReason::new(registry, "egret_pool_discards_total", &labels),
        }
    }
}

/// Handles for generations and reloads.
pub struct ReloadMetrics {
    accepted: Counter,
    rejected: Counter,
    generation: Gauge,
    last_success: Gauge,
}

impl ReloadMetrics {
    /// Registers the families.
    pub fn new(registry: &Registry) -> Self {
        let result = |result: &str| registry.counter("egret_reloads_total", &[("result", result.into())]);
        Self {
            accepted: result("accepted"),
            rejected: result("rejected"),
            generation: registry.gauge("egret_generation", &[]),
            last_success: registry.gauge("egret_reload_last_success_seconds", &[]),
        }
    }

    pub(crate) fn started(&self, generation: u64) {
        self.running(generation);
    }

    pub(crate) fn accepted(&self, generation: u64) {
        self.accepted.increment(1);
        self.running(generation);
    }

    pub(crate) fn rejected(&self) {
        self.rejected.increment(1);
    }

    fn running(&self, generation: u64) {
        // A gauge is a float: exact to 2^53 generations.
        self.generation.set(generation as f64);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_success.set(now.as_secs_f64());
    }
}

/// Family of the beginnings of certificates.
pub const NOT_BEFORE: &str = "egret_certificate_not_before_seconds";
/// Family of the ends of certificates.
pub const NOT_AFTER: &str = "egret_certificate_not_after_seconds";

fn key(family: &'static str, labels: &[(&'static str, Arc<str>)]) -> Key {
    debug_assert!(FAMILIES.iter().any(|(name, ..)| *name == family), "{family} is not declared");
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, Arc::clone(value))).collect();
    Key::from_parts(family, labels)
}
