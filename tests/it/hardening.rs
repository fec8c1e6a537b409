//! What the process gives up at its start: seen in /proc, and by attempts that a debug build makes from inside.

mod attempts;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{Egret, Settings, listener};
use crate::support::{eventually, plain};
use support::{OtherUser, no_capability, of_threads};

fn settings(hardening: &str) -> Settings {
    Settings { arguments: vec!["--hardening".to_owned(), hardening.to_owned()], ..Settings::default() }
}

#[test]
fn every_thread_has_a_filter_and_neither_new_privileges_nor_capabilities() {
    let scene = Scene::new("");
    for (hardening, bit) in [("on", "1"), ("off", "0")] {
        let egret = Egret::start_with(settings(hardening), &(scene.upstream.clone() + &listener("echo", 0, "echo")));
        assert!(echoes(&mut plain::connect(egret.address("echo"))));
        assert_eq!(of_threads(egret.pid(), "NoNewPrivs"), BTreeSet::from([bit.to_owned()]), "{hardening}");
        // 2: a filter of system calls.
        let filtered = if hardening == "on" { "2" } else { "0" };
        assert_eq!(of_threads(egret.pid(), "Seccomp"), BTreeSet::from([filtered.to_owned()]), "{hardening}");
        if rustix::process::geteuid().is_root() {
            let is_as_asked = || (of_threads(egret.pid(), "CapEff") == no_capability()) == (hardening == "on");
            eventually(&format!("capabilities with {hardening}"), || is_as_asked().then_some(()));
        }
    }
}

#[test]
fn what_is_in_force_is_in_the_log_and_in_the_status() {
    let scene = Scene::new("");
    let sections = scene.upstream + &listener("echo", 0, "echo");
    let in_force = |egret: &Egret| {
        let status: serde_json::Value = serde_json::from_str(&egret.admin("GET", "/status").body).unwrap();
        let names = status["hardening"]["in_force"].as_array().unwrap();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let egret = Egret::start(&sections);
    let line = egret.wait_for_log("the measures", |line| line["message"] == "hardened");
    assert_eq!(line["in_force"], in_force(&egret).join(", "), "{line}");
    for name in ["no_new_privileges", "not_dumpable", "capabilities", "system_calls"] {
        assert!(in_force(&egret).iter().any(|measure| measure == name), "{name}: {line}");
    }
    let off = Egret::start_with(settings("off"), &sections);
    off.wait_for_log("no measure", |line| line["message"] == "hardening is off");
    assert!(in_force(&off).is_empty());
}

#[test]
fn another_process_of_its_user_reads_nothing_of_it() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let user = OtherUser::new();
    for (hardening, readable) in [("on", false), ("off", true)] {
        let egret = user.start(hardening);
        for file in ["environ", "maps", "fd"] {
            assert_eq!(user.opens(&format!("/proc/{}/{file}", egret.pid())), readable, "{file} of {hardening}");
        }
        // What it reads of itself it reads all the same.
        let metrics = user.metrics();
        for name in ["process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"] {
            assert!(metrics.contains(&format!("\n{name} ")), "{name} with {hardening}: {metrics}");
        }
    }
}

#[test]
fn capabilities_are_raised_for_what_a_reload_needs() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scene = Scene::new("");
    let sections = scene.upstream.clone() + &listener("echo", 0, "echo");
    // Roots that root reads by a capability only, a port below 1024, and a socket in a folder of another user.
    let user = OtherUser::new();
    let unix = |name: &str| {
        let path = user.folder().join(name);
        format!("[[listeners]]\nlisten = \"unix:{}\"\nupstream = \"echo\"\n", path.display())
    };
    let egret = Egret::start(&(sections.clone() + &unix("first.sock")));
    let roots = user.own("roots.pem", &fs::read(scene.pki.root()).unwrap());
    let socket = user.folder().join("app.sock");
    let low = (1..1024).rev().find(|port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap();
    let moved = sections.replace(scene.pki.root().to_str().unwrap(), roots.to_str().unwrap());
    for added in [listener("low", low, "echo"), unix("app.sock")] {
        egret.rewrite(&(moved.clone() + &added));
        assert!(egret.reload(), "{}", egret.log_text());
    }
    assert_eq!(egret.admin("GET", "/readyz").status, 200, "{}", egret.log_text());
    assert!(socket.exists());
    // The threads that read have ended, or are about to.
    eventually("no capability", || (of_threads(egret.pid(), "CapEff") == no_capability()).then_some(()));
    egret.rewrite(&moved);
    assert!(egret.reload());
    assert!(!socket.exists(), "a socket that is no longer listened on is removed");
}
