//! Every metric family, declared once; whoever counts holds handles that were resolved before.
//!
//! A held handle costs a few nanoseconds an addition, a look-up with labels some hundreds: so listeners
//! and upstreams resolve theirs when the snapshot is built, and the paths of bytes only add.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// The registry of one process: makes handles, renders the text that Prometheus reads.
#[derive(Clone)]
pub struct Registry {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

/// Bounds of the origination histograms, in seconds: from a resumed handshake on loopback (0.2 ms) to
/// the default deadline.
const ORIGINATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

static METADATA: Metadata<'static> = Metadata::new("egret", metrics::Level::INFO, None);

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Name, kind and help of every family.
#[rustfmt::skip]
const FAMILIES: &[(&str, Kind, &str)] = &[
    ("egret_build_info", Kind::Gauge, "Always 1; the version is a label."),
    ("egret_connections_total", Kind::Counter, "Connections accepted."),
    ("egret_connections_active", Kind::Gauge, "Connections now in flight."),
    ("egret_connections_refused_total", Kind::Counter, "Connections closed before an upstream was asked, by reason."),
    ("egret_accept_errors_total", Kind::Counter, "Errors of accept, by kind; accepting pauses after each."),
    ("egret_streams_ended_total", Kind::Counter, "Streams that ended, by reason."),
    ("egret_bytes_total", Kind::Counter, "Bytes of clients' data carried, by direction."),
    ("egret_originations_total", Kind::Counter, "Finished originations, by kind of handshake."),
    ("egret_origination_failures_total", Kind::Counter, "Failed originations, by reason."),
    ("egret_origination_seconds", Kind::Histogram, "Time of the phases of an origination."),
    ("egret_resumption_total", Kind::Counter, "Handshakes by what became of resumption: resumed, refused (offered, not taken), starved (no ticket), off."),
    ("egret_verification_would_fail_total", Kind::Counter, "Servers served under verify = \"report\" that verification would have refused, by reason."),
    ("egret_upstream_insecure", Kind::Gauge, "1 for each upstream whose servers are not verified in full."),
    ("egret_certificate_not_after_seconds", Kind::Gauge, "When a certificate ends, as Unix time; kind is identity, root or server (as observed)."),
    ("egret_reloads_total", Kind::Counter, "Reloads, by result."),
    ("egret_generation", Kind::Gauge, "The running generation of the configuration."),
    ("egret_reload_last_success_seconds", Kind::Gauge, "When the running generation was loaded, as Unix time."),
];

impl Registry {
    /// A registry with every family described.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full("egret_origination_seconds".into()), &ORIGINATION_BUCKETS)
            .expect("the bounds are not empty")
            .build_recorder();
        let handle = recorder.handle();
        let registry = Self { recorder: Arc::new(recorder), handle };
        for (name, kind, help) in FAMILIES {
            let name = KeyName::from_const_str(name);
            match kind {
                Kind::Counter => registry.recorder.describe_counter(name, None, (*help).into()),
                Kind::Gauge => registry.recorder.describe_gauge(name, None, (*help).into()),
                Kind::Histogram => registry.recorder.describe_histogram(name, Some(Unit::Seconds), (*help).into()),
            }
        }
        registry.gauge("egret_build_info", &[("version", env!("CARGO_PKG_VERSION").into())]).set(1.0);
        registry
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Folds what histograms hold back; without it their memory grows. To be called on a timer.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// A counter of a declared family.
    pub fn counter(&self, family: &'static str, labels: &[(&'static str, Arc<str>)]) -> Counter {
        self.recorder.register_counter(&key(family, labels), &METADATA)
    }

    /// A gauge of a declared family.
    pub fn gauge(&self, family: &'static str, labels: &[(&'static str, Arc<str>)]) -> Gauge {
        self.recorder.register_gauge(&key(family, labels), &METADATA)
    }

    /// A histogram of a declared family.
    pub fn histogram(&self, family: &'static str, labels: &[(&'static str, Arc<str>)]) -> Histogram {
        self.recorder.register_histogram(&key(family, labels), &METADATA)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

fn key(family: &'static str, labels: &[(&'static str, Arc<str>)]) -> Key {
    debug_assert!(FAMILIES.iter().any(|(name, ..)| *name == family), "{family} is not declared");
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, Arc::clone(value))).collect();
    Key::from_parts(family, labels)
}
