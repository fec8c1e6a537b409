//! Gauges tell of what is, not of what was or may be.

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{Egret, listener, roots};
use crate::support::pki::{Leaf, Pki};
use crate::support::{eventually, free_port, plain};

const NOT_AFTER: &str = "egret_certificate_not_after_seconds";
const NOT_BEFORE: &str = "egret_certificate_not_before_seconds";

#[test]
fn a_server_that_has_shown_no_certificate_has_no_end_of_one() {
    let scene = Scene::new("");
    let egret = Egret::start(&(scene.upstream + &listener("echo", free_port(), "echo")));
    let text = egret.admin("GET", "/metrics").body;
    assert!(!text.lines().any(|line| line.contains("kind=\"server\"")), "an alarm would take it for expired:\n{text}");
    assert!(echoes(&mut plain::connect(egret.address("echo"))));
    eventually("the server's certificate to be seen", || {
        (egret.metrics().sum(NOT_AFTER, &[("kind", "server")]) > 1.7e9).then_some(())
    });
}

#[test]
fn what_a_reload_removes_raises_no_alarm_any_more() {
    let scene = Scene::new("");
    let kept = scene.upstream.clone() + &listener("echo", free_port(), "echo");
    let old = "[upstreams.old]\nservers = [\"192.0.2.1:443\"]\ntls = { identity = \"old\", trust = \"internal\", \
               verify = \"none\", insecure_reason = \"a test\" }\n";
    let egret = Egret::start(&(scene.pki.client("old").identity("old") + old + &kept));
    let reading = egret.metrics();
    assert!(reading.sum(NOT_AFTER, &[("kind", "identity"), ("name", "old")]) > 1.7e9);
    assert_eq!(reading.sum("egret_upstream_insecure", &[]), 1.0);

    egret.rewrite(&kept);
    assert!(egret.reload(), "{}", egret.log_text());
    let reading = egret.metrics();
    assert!(reading.sum(NOT_AFTER, &[("kind", "identity"), ("name", "old")]).is_nan());
    assert!(reading.sum("egret_upstream_insecure", &[("upstream", "old")]).is_nan());
    assert!(reading.sum(NOT_AFTER, &[("kind", "server"), ("name", "old")]).is_nan());
    assert!(reading.sum(NOT_BEFORE, &[("kind", "identity"), ("name", "old")]).is_nan());
    assert!(reading.sum(NOT_AFTER, &[("kind", "root"), ("name", "internal")]) > 1.7e9);
}

/// The one inventory: metrics, status, `egret trust expiry` and the log say the same of each kind.
#[test]
fn every_kind_of_lifetime_is_the_same_wherever_it_is_shown() {
    let pki = Pki::new();
    let list = pki.crl_until(&[], Duration::hours(5));
    let exact = pki.stock_self_signed("exact", "exact.example.com", &[]);
    let early = pki.issue("early", &Leaf { common_name: "early", names: &[], valid: (3, 30) });
    let sections = pki.client("app").identity("app")
        + &early.identity("early")
        + &roots("internal", &pki.both())
        + &format!("crls = [{list:?}]\n[trust.exact]\ncertificate = {:?}\n", exact.certificate)
        + &["internal", "exact"].map(upstream).concat()
        + &listener("one", free_port(), "internal");
    let egret = Egret::start(&sections);
    let reading = egret.metrics();
    let status: Value = serde_json::from_str(&egret.admin("GET", "/status").body).unwrap();
    let config = egret.config();
    let (code, told) = crate::support::egret::egret(&["trust", "expiry", "--json", config.to_str().unwrap()]);
    assert_eq!(code, 1, "the list ends within a third of its life: {told}");
    let told: Vec<Value> = serde_json::from_str(&told).unwrap();
    for (kind, name, state, days) in [
        ("identity", "app", "valid", (-1, 90)),
        ("identity", "early", "not_yet_valid", (3, 30)),
        ("root", "internal", "valid", (-2, 365)),
        ("certificate", "exact", "valid", (0, 30)),
        ("crl", "internal", "ends_soon", (-2, 0)),
    ] {
        let is_it = |one: &&Value| one["kind"] == kind && one["name"] == name;
        let mut first = told.iter().find(is_it).unwrap_or_else(|| panic!("{kind} {name}: {told:?}")).clone();
        first.as_object_mut().unwrap().remove("days");
        assert_eq!(first["state"], state, "{first}");
        let shown = status["expiry"].as_array().unwrap().iter().filter(is_it).find(|one| **one == first);
        assert!(shown.is_some(), "{first}: {status}");
        for (family, day) in [(NOT_BEFORE, days.0), (NOT_AFTER, days.1)] {
            let now = OffsetDateTime::now_utc().unix_timestamp() as f64;
            let seconds = reading.sum(family, &[("kind", kind), ("name", name)]) - now;
            let day = f64::from(day) * 86_400.0;
            assert!((day - 300.0..day + 5.0 * 3600.0 + 1.0).contains(&seconds), "{family} {kind} {name}: {seconds}");
        }
        let logged = egret.log().iter().any(|line| line["kind"] == kind && line["name"] == name);
        assert_eq!(logged, state != "valid", "{kind} {name}: {}", egret.log_text());
    }
}

fn upstream(trust: &str) -> String {
    format!(
        "[upstreams.{trust}]\nservers = [\"192.0.2.1:443\"]\ntls = {{ trust = {trust:?}, server_name = \"exact.example.com\" }}\n"
    )
}
