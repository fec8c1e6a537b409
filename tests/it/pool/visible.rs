//! What a person sees of a pool.

use serde_json::Value;

use super::support::{Certificates, Counting, trip, wait_for_warm};
use crate::support::egret::{Egret, roots};
use crate::support::eventually;

fn upstream(egret: &Egret) -> Value {
    let status: Value = serde_json::from_str(&egret.admin("GET", "/status").body).unwrap();
    status["upstreams"][0].clone()
}

#[test]
fn status_and_metrics_tell_of_each_upstream_and_endpoint() {
    let certificates = Certificates::new();
    let server = Counting::start(certificates.mutual(), None, None);
    let client = certificates.pki.client("app");
    let sections = certificates.sections(&client, server.address(), "min_idle = 2, max_idle = 2");
    let egret = Egret::start(&sections);
    wait_for_warm(&egret, 2);
    for _ in 0..3 {
        trip(egret.address("app"), b"hello");
        wait_for_warm(&egret, 2);
    }
    eventually("the streams to be over", || (upstream(&egret)["endpoints"][0]["in_flight"] == 0).then_some(()));
    let shown = upstream(&egret);
    let endpoint = &shown["endpoints"][0];
    assert_eq!((&endpoint["health"], &endpoint["failures_in_a_row"]), (&"healthy".into(), &0.into()), "{shown}");
    assert_eq!(endpoint["warm"], 2, "{shown}");
    assert!(endpoint["tickets"].as_u64() > Some(0), "{shown}");
    assert_eq!((&endpoint["hits"], &endpoint["misses"]), (&3.into(), &0.into()), "{shown}");
    let made = |kind: &str| {
        let times = &endpoint["handshakes"][kind];
        let buckets: u64 = times["at_most"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(Some(buckets), times["count"].as_u64(), "{shown}");
        assert!(times["seconds"].as_f64() > Some(0.0), "{shown}");
        buckets as f64
    };
    let (full, resumed) = (made("full"), made("resumed"));
    assert_eq!(full + resumed, server.accepted() as f64, "{shown}");
    let pool = &shown["pool"];
    assert_eq!((&pool["hits"], &pool["misses"], &pool["warm"]), (&3.into(), &0.into(), &2.into()), "{shown}");
    assert_eq!(
        (&pool["min_idle"], &pool["max_idle"], &pool["max_idle_age_seconds"]),
        (&2.into(), &2.into(), &30.0.into())
    );

    let metrics = egret.metrics();
    let of_endpoint = |family: &str| metrics.sum(family, &[("endpoint", &server.address().to_string())]);
    assert_eq!((of_endpoint("egret_endpoint_warm"), of_endpoint("egret_endpoint_healthy")), (2.0, 1.0));
    assert_eq!(of_endpoint("egret_endpoint_takes_total"), 3.0);
    assert!(of_endpoint("egret_endpoint_sessions") > 0.0);
    assert_eq!(of_endpoint("egret_endpoint_handshake_seconds_count"), full + resumed);
    let phase = |phase: &str| metrics.sum("egret_origination_seconds_count", &[("upstream", "app"), ("phase", phase)]);
    assert!(phase("handshake_full") >= 1.0 && phase("handshake_resumed") >= 1.0);
    assert_eq!(phase("handshake_full") + phase("handshake_resumed"), server.accepted() as f64);

    // Counts outlive a reload; what it threw away is told by its cause.
    egret.rewrite(
        &(sections.replace("min_idle = 2, max_idle = 2", "max_idle = 1") + &roots("spare", &certificates.pki.root())),
    );
    assert!(egret.reload(), "{}", egret.log_text());
    let pool = &upstream(&egret)["pool"];
    assert_eq!((&pool["hits"], &pool["discards"]["warm_excess"]), (&3.into(), &1.into()), "{pool}");
    let endpoint = &upstream(&egret)["endpoints"][0];
    assert_eq!((&endpoint["hits"], &endpoint["discards"]["warm_excess"]), (&3.into(), &1.into()), "{endpoint}");
    let labels = [("endpoint", &*server.address().to_string()), ("reason", "warm_excess")];
    assert_eq!(egret.metrics().sum("egret_endpoint_discards_total", &labels), 1.0);
}
