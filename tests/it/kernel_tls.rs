//! The kernel may make the records, where it can; where it cannot, nobody notices. What a kernel with TLS does is
//! proven by `tests/kernel-tls/run`.

use egret::config::values::KernelTls;
use egret::tls::kernel::Offers;

use crate::failures::{HOST, REQUEST, one_upstream};
use crate::support::egret::roots;
use crate::support::peer::{Peer, anonymous};
use crate::support::pki::Pki;
use crate::support::plain::{End, ask_and_finish};

/// A request over a connection to an echo: the line of the log that tells of it, after metric and log agree.
fn mechanism(setting: &str) -> (String, String) {
    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let sections = format!("[runtime]\nkernel_tls = \"{setting}\"\n{}", roots("internal", &pki.root()));
    let egret = one_upstream(&peer.address.to_string(), "trust = \"internal\"", &sections);
    let (bytes, end) = ask_and_finish(egret.address("plain"), REQUEST);
    assert_eq!((&bytes[..], end), (REQUEST, End::Clean), "{}", egret.log_text());
    let line = egret.wait_for_log("the connection", |line| line["message"] == "connection");
    assert_eq!(line["ended"], "finished", "{line}");
    let mechanism = line["mechanism"].as_str().unwrap().to_owned();
    assert_eq!(egret.metrics().sum("egret_streams_carried_total", &[("mechanism", &mechanism)]), 1.0);
    (mechanism, egret.log_text())
}

#[test]
fn a_stream_runs_whatever_the_kernel_can_and_says_who_made_its_records() {
    let (carried, log) = mechanism("auto");
    match Offers::detect(KernelTls::Auto) {
        Ok(offers) if offers.renews() => assert_eq!(carried, "kernel", "{log}"),
        Ok(_) => assert_eq!(carried, "records", "TLS 1.3 needs new keys: {log}"),
        Err(_) => {
            assert_eq!(carried, "records", "{log}");
            assert!(log.contains("the kernel has no TLS"), "{log}");
        }
    }
}

#[test]
fn off_leaves_the_kernel_alone() {
    let (carried, log) = mechanism("off");
    assert_eq!(carried, "records");
    assert!(!log.contains("kernel"), "{log}");
}
