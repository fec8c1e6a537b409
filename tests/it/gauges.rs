//! Gauges tell of what is, not of what was or may be.

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{Egret, listener};
use crate::support::{eventually, free_port, plain};

const NOT_AFTER: &str = "egret_certificate_not_after_seconds";

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
    assert!(reading.sum(NOT_AFTER, &[("kind", "root"), ("name", "internal")]) > 1.7e9);
}
