//! Listeners beside each other, and over reloads.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{Egret, listener};
use crate::support::{eventually, free_port, plain};

#[test]
fn a_listener_that_waits_for_clients_takes_no_permit_from_another() {
    let scene = Scene::new("");
    let listeners = listener("one", free_port(), "echo") + &listener("two", free_port(), "echo");
    let egret = Egret::start(&format!("[limits]\nmax_connections = 1\n{}{listeners}", scene.upstream));
    for name in ["one", "two", "one"] {
        let mut stream = plain::connect(egret.address(name));
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(echoes(&mut stream), "{name}\n{}", egret.log_text());
    }
    eventually("no connection to be counted", || {
        let status: Value = serde_json::from_str(&egret.admin("GET", "/status").body).unwrap();
        (status["connections"] == 0).then_some(())
    });
}

#[test]
fn a_raised_bound_lets_those_in_who_wait() {
    let scene = Scene::new("");
    let bounded =
        |bound: u32, port| format!("{}{}max_connections = {bound}\n", scene.upstream, listener("echo", port, "echo"));
    let port = free_port();
    let egret = Egret::start(&bounded(1, port));
    let mut first = plain::connect(egret.address("echo"));
    assert!(echoes(&mut first));
    let mut second = plain::connect(egret.address("echo"));
    second.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(!echoes(&mut second), "the bound is kept");

    egret.rewrite(&bounded(2, port));
    assert!(egret.reload(), "{}", egret.log_text());
    let mut third = plain::connect(egret.address("echo"));
    third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(echoes(&mut third), "{}", egret.log_text());
    assert!(echoes(&mut first));
}

#[test]
fn listeners_on_ports_of_the_kernel_are_each_their_own() {
    let scene = Scene::new("");
    let egret = Egret::start(&(scene.upstream + &listener("one", 0, "echo") + &listener("two", 0, "echo")));
    assert_ne!(egret.address("one"), egret.address("two"));
    for name in ["one", "two"] {
        assert!(echoes(&mut plain::connect(egret.address(name))), "{name}");
    }
}

#[test]
fn the_mode_of_a_socket_changes_with_a_reload() {
    let scene = Scene::new("");
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("echo.sock");
    let sections = |mode: &str| {
        let upstream = &scene.upstream;
        format!(
            "{upstream}[[listeners]]\nlisten = \"unix:{}\"\nmode = {mode:?}\nupstream = \"echo\"\n",
            socket.display()
        )
    };
    let egret = Egret::start(&sections("0600"));
    egret.rewrite(&sections("0660"));
    assert!(egret.reload(), "{}", egret.log_text());
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
}
