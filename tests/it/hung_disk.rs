//! A file that is never read to its end, as on a disk that hangs: a pipe that nobody writes to stands for it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{Egret, binary, listener};
use crate::support::pki::Pair;
use crate::support::process::{Process, guarded, run};
use crate::support::{PATIENCE, free_port, plain};

/// The sections of an egret that presents `pair`.
fn sections(scene: &Scene, pair: &Pair) -> String {
    let upstream = scene.upstream.replace("tls = {", "tls = { identity = \"app\",");
    pair.identity("app") + &upstream + &listener("echo", free_port(), "echo")
}

fn hang(key: &Path) {
    fs::remove_file(key).unwrap();
    run(Command::new("mkfifo").args(["--mode", "0600"]).arg(key));
}

/// Waits until the pipe has a reader, which then waits for what is never written.
fn other_end(key: &Path) -> File {
    let (opened, opens) = mpsc::channel();
    let key = key.to_owned();
    std::thread::spawn(move || opened.send(File::options().write(true).open(key).unwrap()));
    opens.recv_timeout(PATIENCE).expect("egret reads the key")
}

#[test]
fn sigterm_is_heard_while_a_reload_waits_for_a_disk() {
    let scene = Scene::new("");
    let pair = scene.pki.client("app");
    let mut egret = Egret::start(&sections(&scene, &pair));
    let mut stream = plain::connect(egret.address("echo"));
    assert!(echoes(&mut stream));

    hang(&pair.key);
    egret.signal(Signal::HUP);
    let _writer = other_end(&pair.key);
    assert!(echoes(&mut stream), "a stream in flight goes on");
    egret.signal(Signal::TERM);
    plain::finish(&stream);
    assert_eq!(egret.wait(PATIENCE), Some(0), "{}", egret.log_text());
}

#[test]
fn sigterm_is_heard_while_the_start_waits_for_a_disk() {
    let scene = Scene::new("");
    let pair = scene.pki.client("app");
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("egret.toml");
    fs::write(&config, sections(&scene, &pair)).unwrap();
    hang(&pair.key);
    let mut command = guarded(binary());
    command.arg("run").arg(&config);
    let mut process = Process::spawn("egret", command, &folder.path().join("egret.log"));
    // Signals are listened to before any file is read.
    let _writer = other_end(&pair.key);
    process.signal(Signal::TERM);
    assert_eq!(process.wait(PATIENCE).and_then(|status| status.code()), Some(0), "{}", process.output());
}
