//! The unit: systemd has nothing to say against it, and the program tells systemd what the unit claims.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{binary, listener};
use crate::support::process::{Process, attempt, guarded};
use crate::support::{PATIENCE, free_port, loopback, plain, systemd};

/// Where the unit expects the program and its configuration.
const PROGRAM: &str = "/usr/local/bin/egret";
const CONFIG: &str = "/etc/egret/egret.toml";

fn unit() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/egret.service")).unwrap()
}

/// The values of a key, in order.
fn values(key: &str) -> Vec<String> {
    let start = format!("{key}=");
    unit().lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}

/// What systemd says of this text as `egret.service`.
fn remarks(text: &str) -> Vec<String> {
    systemd::remarks(&[("egret.service".to_owned(), text.to_owned())])
}

#[test]
fn systemd_takes_every_line_of_the_unit() {
    // The program is not installed here; every other word is the unit's own.
    let text = unit().replace(PROGRAM, binary().to_str().unwrap());
    assert_eq!(remarks(&text), Vec::<String>::new());
    // A mistyped key or value would have been said.
    let remarks = remarks(&text.replace("ProtectProc=invisible", "ProtectProc=unseen\nNoNewPrivilege=true"));
    assert_eq!(remarks.len(), 2, "{remarks:?}");
}

#[test]
fn the_unit_leaves_the_program_next_to_nothing_that_it_does_not_need() {
    let text = unit();
    assert!(systemd::is_sandboxed(&text));
    for line in ["CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "User=egret", "SystemCallFilter=@system-service"] {
        let without = text.replace(&format!("{line}\n"), "");
        assert!(without != text && !systemd::is_sandboxed(&without), "{line} makes no difference");
    }
}

/// systemd's end of the socket, and the program started by the unit's own lines.
struct Unit {
    systemd: UnixDatagram,
    process: Process,
    folder: TempDir,
    config: PathBuf,
    listener: u16,
}

impl Unit {
    fn start(scene: &Scene) -> Self {
        let folder = TempDir::new().unwrap();
        let (config, socket) = (folder.path().join("egret.toml"), folder.path().join("notify"));
        let port = free_port();
        // Not watched: reloads are those that the test asks for.
        let text = format!("[reload]\nwatch = false\n{}{}", scene.upstream, listener("echo", port, "echo"));
        fs::write(&config, text).unwrap();
        let systemd = UnixDatagram::bind(&socket).unwrap();
        systemd.set_read_timeout(Some(PATIENCE)).unwrap();

        let mut start = command(&values("ExecStart").join(" "), &config);
        // systemd sets the time in microseconds; the unit's own would make the test wait for seconds.
        assert_eq!(values("WatchdogSec").len(), 1, "the unit has a watchdog");
        start.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
        let process = Process::spawn("egret", start, &folder.path().join("egret.log"));
        Self { systemd, process, folder, config, listener: port }
    }

    /// The next message that is about more than being alive.
    fn told(&self) -> String {
        loop {
            let message = self.message();
            if message.trim() != "WATCHDOG=1" {
                return message;
            }
        }
    }

    fn message(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.systemd.recv(&mut bytes).unwrap_or_else(|error| {
            panic!("systemd is told nothing ({error}):\n{}", self.process.output());
        });
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// Asks for a reload; gives when it began, in systemd's microseconds, and the message of its end.
    fn reload(&self) -> (u64, String) {
        self.process.signal(Signal::HUP);
        let begun = self.told();
        assert!(has(&begun, "RELOADING=1"), "{begun}");
        let since = begun.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        let since = since.unwrap_or_else(|| panic!("without the time systemd ignores it: {begun}"));
        (since.parse().unwrap(), self.told())
    }
}

/// A line of the unit as systemd would start it, with this machine's program and this configuration.
fn command(line: &str, config: &Path) -> Command {
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some(PROGRAM), "{line}");
    let mut command = guarded(binary());
    command.args(words.map(|word| if word == CONFIG { config.as_os_str() } else { word.as_ref() }));
    command
}

fn has(message: &str, assignment: &str) -> bool {
    message.lines().any(|line| line == assignment)
}

/// Microseconds since this machine started: CLOCK_MONOTONIC, or more where the machine has slept.
fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
    // The file has hundredths.
    (seconds * 1e6) as u64 + 10_000
}

#[test]
fn systemd_is_told_of_ready_reload_stop_and_life() {
    let scene = Scene::new("");
    let mut unit = Unit::start(&scene);
    let ready = unit.told();
    assert!(has(&ready, "READY=1"), "{ready}");
    // No patience here: ready means that the listener is there.
    assert!(echoes(&mut plain::connect(loopback(unit.listener))));
    while !has(&unit.message(), "WATCHDOG=1") {}

    let (first, ended) = unit.reload();
    assert!(has(&ended, "READY=1"), "{ended}");
    let (second, _) = unit.reload();
    assert!(0 < first && first < second && second <= uptime(), "{first} {second} {}", uptime());

    // systemd waits for the end of a reload also when it failed.
    fs::write(&unit.config, "nonsense").unwrap();
    let (_, ended) = unit.reload();
    assert!(has(&ended, "READY=1"), "{ended}");
    assert!(echoes(&mut plain::connect(loopback(unit.listener))));

    unit.process.signal(Signal::TERM);
    let stopping = unit.told();
    assert!(has(&stopping, "STOPPING=1"), "{stopping}");
    let status = unit.process.wait(PATIENCE).expect("it ends");
    assert!(status.success(), "{status}\n{}", unit.process.output());
    drop(unit.folder);
}

#[test]
fn the_unit_tries_again_whatever_the_files_were() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("egret.toml");
    fs::write(&config, "nonsense").unwrap();
    let output = attempt(&mut command(&values("ExecStart").join(" "), &config));
    assert_eq!(output.status.code(), Some(2));
    // No exit code keeps it down, no number of tries, and nothing that runs before it.
    assert_eq!(values("Restart"), ["on-failure"]);
    assert_eq!(values("StartLimitIntervalSec"), ["0"]);
    for key in ["RestartPreventExitStatus", "ExecStartPre"] {
        assert!(values(key).is_empty(), "{key}");
    }
}
