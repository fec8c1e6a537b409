//! What the process gives up at its start: seen in /proc, and by attempts that a debug build makes from inside.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{Egret, Settings, listener};
use crate::support::plain;
use support::{OtherUser, no_capability, of_threads};

fn settings(hardening: &str) -> Settings {
    Settings { arguments: vec!["--hardening".to_owned(), hardening.to_owned()], ..Settings::default() }
}

#[test]
fn every_thread_is_without_new_privileges_and_capabilities() {
    let scene = Scene::new("");
    for (hardening, bit) in [("on", "1"), ("off", "0")] {
        let egret = Egret::start_with(settings(hardening), &(scene.upstream.clone() + &listener("echo", 0, "echo")));
        assert!(echoes(&mut plain::connect(egret.address("echo"))));
        assert_eq!(of_threads(egret.pid(), "NoNewPrivs"), BTreeSet::from([bit.to_owned()]), "{hardening}");
        if rustix::process::geteuid().is_root() {
            assert_eq!(of_threads(egret.pid(), "CapEff") == no_capability(), hardening == "on", "{hardening}");
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
    for name in ["no_new_privileges", "not_dumpable", "capabilities"] {
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
    let egret = Egret::start(&sections);
    // Roots that root reads by a capability only, a port below 1024, and a socket in a folder of another user.
    let user = OtherUser::new();
    let roots = user.own("roots.pem", &fs::read(scene.pki.root()).unwrap());
    let socket = user.folder().join("app.sock");
    let low = (1..1024).rev().find(|port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap();
    let moved = sections.replace(scene.pki.root().to_str().unwrap(), roots.to_str().unwrap());
    let unix = format!("[[listeners]]\nname = \"unix\"\nlisten = \"unix:{}\"\nupstream = \"echo\"\n", socket.display());
    for added in [listener("low", low, "echo"), unix] {
        egret.rewrite(&(moved.clone() + &added));
        assert!(egret.reload(), "{}", egret.log_text());
    }
    assert_eq!(egret.admin("GET", "/readyz").status, 200, "{}", egret.log_text());
    assert!(socket.exists());
    assert_eq!(of_threads(egret.pid(), "CapEff"), no_capability());
    egret.rewrite(&moved);
    assert!(egret.reload());
    assert!(!socket.exists(), "a socket that is no longer listened on is removed");
}
