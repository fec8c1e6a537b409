//! Files that take long: one that is never read to its end, as on a disk that hangs (a pipe that nobody writes to stands
//! for it), and keys that take seconds to derive from their password.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::lifecycle::{Scene, echoes};
use crate::support::authority::write_key;
use crate::support::costly_keys::pbkdf2;
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

/// The password comes through a pipe: once it is read, the key is being derived.
#[test]
fn sigterm_is_heard_while_a_key_is_derived() {
    let scene = Scene::new("");
    let pair = scene.pki.client("app");
    let password = pair.key.with_extension("password");
    let sections = sections(&scene, &pair);
    let mut egret = Egret::start(&sections);
    write_key(&pair.key, &pbkdf2(10_000_000));
    run(Command::new("mkfifo").args(["--mode", "0600"]).arg(&password));
    let key = format!("private_key = {:?}\n", pair.key);
    egret.rewrite(&sections.replace(&key, &format!("{key}password_file = {password:?}\n")));
    egret.signal(Signal::HUP);
    other_end(&password).write_all(b"secret\n").unwrap();
    egret.signal(Signal::TERM);
    assert_eq!(egret.wait(PATIENCE), Some(0), "{}", egret.log_text());
    let log = egret.log_text();
    assert!(!log.contains("cannot be opened with the password"), "the stop came after the load: {log}");
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
