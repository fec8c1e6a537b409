//! Supervisors that do not read, or are not there.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use super::Program;
use crate::lifecycle::Scene;
use crate::support::{PATIENCE, eventually};

fn supervised(scene: &Scene, socket: &Path, workers: u32) -> Program {
    let workers = format!("[runtime]\nworkers = {workers}\n");
    Program::start_with(scene, &workers, &[], Stdio::null(), |command| {
        command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "50000");
    })
}

/// Sends until the socket's queue has no room.
fn stuff(socket: &Path) {
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(socket).unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send(b"STATUS=full").is_ok() {}
}

#[test]
fn a_supervisor_that_does_not_read_stops_nothing() {
    let scene = Scene::new("");
    for workers in [1, 2] {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("notify");
        let _supervisor = UnixDatagram::bind(&socket).unwrap();
        stuff(&socket);
        let mut egret = supervised(&scene, &socket, workers);
        egret.works(&format!("{workers} workers"));
        assert_eq!(egret.stop(), Some(0), "{workers} workers");
    }
}

#[test]
fn a_supervisor_that_is_not_there_stops_nothing() {
    let (scene, folder) = (Scene::new(""), TempDir::new().unwrap());
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for socket in [folder.path().join("missing"), file] {
        let mut egret = supervised(&scene, &socket, 1);
        egret.works(&socket.display().to_string());
        eventually("messages to be counted", || {
            (egret.metrics().sum("egret_notify_dropped_total", &[]) > 0.0).then_some(())
        });
        assert_eq!(egret.stop(), Some(0), "{}", socket.display());
    }
}

#[test]
fn messages_arrive_in_their_order_and_the_last_before_the_end() {
    let (scene, folder) = (Scene::new(""), TempDir::new().unwrap());
    let socket = folder.path().join("notify");
    let supervisor = UnixDatagram::bind(&socket).unwrap();
    supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
    stuff(&socket);
    let mut egret = supervised(&scene, &socket, 1);
    egret.works("ordered");
    // Only now does it read: READY of the start waits before those of the reload.
    let mut states = Vec::new();
    let read = |until: &str, states: &mut Vec<String>| {
        while states.last().is_none_or(|state| state != until) {
            let mut message = [0; 4096];
            let length = supervisor.recv(&mut message).unwrap();
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            let first = text.lines().next().unwrap_or_default().to_owned();
            states.extend(Some(first).filter(|first| !first.starts_with("STATUS") && first != "WATCHDOG=1"));
        }
    };
    (0..3).for_each(|n| read(["READY=1", "RELOADING=1", "READY=1"][n], &mut states));
    assert_eq!(egret.stop(), Some(0));
    read("STOPPING=1", &mut states);
    assert_eq!(states, ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]);
}
