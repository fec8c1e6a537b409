//! A thousand failures a second are not a thousand lines.

use std::thread;

use serde_json::Value;

use crate::lifecycle::Scene;
use crate::support::egret::{Egret, Settings};
use crate::support::{eventually, free_port, plain};

/// Clients of each kind, from four threads.
const CLIENTS: u64 = 400;

/// Events with this message: those in full, and those that lines of sums stand for.
fn counted(log: &[Value], message: &str) -> (u64, u64) {
    let full = log.iter().filter(|line| line["message"] == message).count();
    let repeated = format!("{message}, repeated");
    let sums = log.iter().filter(|line| line["message"] == repeated.as_str());
    (full as u64, sums.map(|line| line["count"].as_u64().unwrap()).sum())
}

fn knock(egret: &Egret, listener: &str) {
    let address = egret.address(listener);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || (0..CLIENTS / 4).for_each(|_| drop(plain::ask(address, b"x"))));
        }
    });
}

#[test]
fn failures_that_repeat_are_summed_up_and_none_is_missing() {
    let scene = Scene::new("");
    let (dead, denied, refused) = (free_port(), free_port(), free_port());
    let sections = format!(
        "{}[upstreams.dead]\nservers = [\"127.0.0.1:{dead}\"]\nejection = {{ max_share = 0.0 }}\n\
         tls = {{ server_name = \"dead.example.com\" }}\n\
         [[listeners]]\nname = \"refused\"\nlisten = \"127.0.0.1:{refused}\"\nupstream = \"dead\"\n\
         [[listeners]]\nname = \"denied\"\nlisten = \"0.0.0.0:{denied}\"\nallow = [\"192.0.2.0/24\"]\nupstream = \"echo\"\n\
         [[listeners]]\nname = \"echo\"\nlisten = \"127.0.0.1:{}\"\nupstream = \"echo\"\n",
        scene.upstream,
        free_port()
    );
    let mut egret = Egret::start_with(Settings::default(), &sections);
    knock(&egret, "refused");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], denied));
    (0..CLIENTS).for_each(|_| drop(plain::ask(address, b"x")));
    (0..10).for_each(|_| drop(plain::ask_and_finish(egret.address("echo"), b"x")));
    let ended = |egret: &Egret, listener| egret.metrics().sum("egret_streams_ended_total", &[("listener", listener)]);
    eventually("every client to be counted", || (ended(&egret, "refused") >= CLIENTS as f64).then_some(()));
    let metrics = egret.metrics();
    let failures = metrics.sum("egret_origination_failures_total", &[("upstream", "dead")]);
    assert_eq!(metrics.sum("egret_connections_refused_total", &[("listener", "denied")]), CLIENTS as f64);
    egret.signal(rustix::process::Signal::TERM);
    assert_eq!(egret.wait(crate::support::PATIENCE), Some(0));

    let log = egret.log();
    let of = |name: &str, log: &[Value]| -> Vec<Value> {
        let is_of = |line: &&Value| line["listener"] == name || line["upstream"] == name;
        log.iter().filter(is_of).cloned().collect()
    };
    let (failed, refused, denied) = (of("dead", &log), of("refused", &log), of("denied", &log));
    for (what, (full, summed), total) in [
        ("originations", counted(&failed, "origination failed"), failures as u64),
        ("unserved connections", counted(&refused, "connection"), CLIENTS),
        ("denied clients", counted(&denied, "client denied"), CLIENTS),
    ] {
        assert_eq!(full + summed, total, "{what}");
        assert!((1..CLIENTS / 10).contains(&full), "{what}: {full} in full");
    }
    let sum = failed.iter().find(|line| line["message"] == "origination failed, repeated").unwrap();
    assert_eq!(sum["reason"], "connect_refused");
    assert!(sum["endpoint"].as_str().unwrap().ends_with(&dead.to_string()), "{sum}");
    assert!(sum["seconds"].is_f64() && sum["total"].as_u64() > sum["count"].as_u64(), "{sum}");
    assert_eq!(counted(&of("echo", &log), "connection"), (10, 0), "a served connection has its line");
}
