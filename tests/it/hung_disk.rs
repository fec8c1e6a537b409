//! Files that take long: one that cannot be opened for a long time, as on a disk that hangs, and keys that take seconds to
//! derive from their password. Another process has leased the file (fcntl(2), "Leases") and does not give it back; the
//! kernel takes it away after 45 s (`/proc/sys/fs/lease-break-time`).

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::lifecycle::{Scene, echoes};
use crate::support::authority::write_key;
use crate::support::costly_keys::pbkdf2;
use crate::support::egret::{Egret, Settings, binary, listener, roots};
use crate::support::pki::{Pair, Pki, replace};
use crate::support::process::{Process, guarded};
use crate::support::{PATIENCE, free_port, plain};

/// The sections of an egret that presents `pair`.
fn sections(scene: &Scene, pair: &Pair) -> String {
    let upstream = scene.upstream.replace("tls = {", "tls = { identity = \"app\",");
    pair.identity("app") + &upstream + &listener("echo", free_port(), "echo")
}

/// Who holds the lease of a file, and says when somebody else opens it.
struct Lease(Process);

const HOLDER: &str = "\
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, lambda *_: print('asked', flush=True))
held = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
while True: signal.pause()
";

impl Lease {
    fn of(file: &Path, folder: &Path) -> Self {
        let mut command = guarded("python3");
        command.args(["-c", HOLDER]).arg(file);
        let stem = file.file_name().unwrap().to_str().unwrap();
        let said = folder.join(format!("{stem}.lease"));
        // Of an earlier lease of the same file.
        let _ = fs::remove_file(&said);
        let mut holder = Process::spawn("lease", command, &said);
        holder.wait_for_output("held");
        Self(holder)
    }

    fn wait_until_asked(&mut self) {
        self.0.wait_for_output("asked");
    }
}

#[test]
fn sigterm_is_heard_while_a_reload_waits_for_a_disk() {
    let scene = Scene::new("");
    let pair = scene.pki.client("app");
    let folder = TempDir::new().unwrap();
    let mut egret = Egret::start(&sections(&scene, &pair));
    let mut stream = plain::connect(egret.address("echo"));
    assert!(echoes(&mut stream));

    let mut lease = Lease::of(&pair.key, folder.path());
    egret.signal(Signal::HUP);
    lease.wait_until_asked();
    assert!(echoes(&mut stream), "a stream in flight goes on");
    egret.signal(Signal::TERM);
    plain::finish(&stream);
    assert_eq!(egret.wait(PATIENCE), Some(0), "{}", egret.log_text());
}

/// The password is leased: once it is read, the key is being derived.
#[test]
fn sigterm_is_heard_while_a_key_is_derived() {
    let scene = Scene::new("");
    let pair = scene.pki.client("app");
    let folder = TempDir::new().unwrap();
    let password = pair.key.with_extension("password");
    let sections = sections(&scene, &pair);
    let mut egret = Egret::start(&sections);
    write_key(&pair.key, &pbkdf2(10_000_000));
    replace(&password, "secret\n", 0o600);
    let mut lease = Lease::of(&password, folder.path());
    let key = format!("private_key = {:?}\n", pair.key);
    egret.rewrite(&sections.replace(&key, &format!("{key}password_file = {password:?}\n")));
    egret.signal(Signal::HUP);
    lease.wait_until_asked();
    drop(lease);
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
    let mut lease = Lease::of(&pair.key, folder.path());
    let mut command = guarded(binary());
    command.arg("run").arg(&config);
    let mut process = Process::spawn("egret", command, &folder.path().join("egret.log"));
    // Signals are listened to before any file is read.
    lease.wait_until_asked();
    process.signal(Signal::TERM);
    assert_eq!(process.wait(PATIENCE).and_then(|status| status.code()), Some(0), "{}", process.output());
}

/// Three parts with a file each, and an upstream for each; besides, an upstream of other files.
fn three_parts(pki: &Pki, folder: &Path) -> (String, [(&'static str, &'static str, std::path::PathBuf); 3]) {
    let at = |name: &str| folder.join(name);
    let app = pki.client("app");
    fs::copy(pki.root(), at("roots.pem")).unwrap();
    fs::copy(pki.crl(&[]), at("revoked.crl")).unwrap();
    let upstream = |name: &str, tls: &str| {
        let port = free_port();
        format!(
            "[upstreams.{name}]\nservers = [\"127.0.0.1:{port}\"]\ntls = {{ {tls}, server_name = \"a.example.com\" }}\n"
        ) + &listener(name, free_port(), name)
    };
    let sections = app.identity("app")
        + &roots("roots", &at("roots.pem"))
        + &roots("revoked", &pki.both())
        + &format!("crls = [{:?}]\n", at("revoked.crl"))
        + &roots("other", &pki.root())
        + &upstream("one", "identity = \"app\", trust = \"other\"")
        + &upstream("two", "trust = \"roots\"")
        + &upstream("three", "trust = \"revoked\"")
        + &upstream("four", "trust = \"other\"");
    let files =
        [("identity", "app", app.key), ("trust", "roots", at("roots.pem")), ("trust", "revoked", at("revoked.crl"))];
    (sections, files)
}

fn states(egret: &Egret, state: &str) -> Vec<(String, Value)> {
    let status: Value = serde_json::from_str(&egret.admin("GET", "/status").body).unwrap();
    let parts = status["parts"].as_array().unwrap().iter().filter(|part| part["state"] == state);
    parts.map(|part| (part["name"].as_str().unwrap().to_owned(), part["fault"]["reason"].clone())).collect()
}

#[test]
fn a_disk_that_hangs_harms_only_the_parts_that_are_on_it() {
    let (pki, folder) = (Pki::new(), TempDir::new().unwrap());
    let (sections, files) = three_parts(&pki, folder.path());
    let late = || {
        ["roots", "revoked", "app"].map(|name| {
            let kind = if name == "app" { "identity_timeout" } else { "trust_timeout" };
            (name.to_owned(), Value::from(kind))
        })
    };
    let sorted = |mut list: Vec<(String, Value)>| {
        list.sort_by(|one, other| one.0.cmp(&other.0));
        list
    };
    let egret = Egret::start(&sections);
    let leases = files.each_ref().map(|(_, _, file)| Lease::of(file, folder.path()));
    // The reload takes as long as one disk may hang for each kind, and ends.
    assert!(egret.reload(), "{}", egret.log_text());
    assert_eq!(sorted(states(&egret, "kept")), sorted(late().to_vec()));
    assert_eq!(states(&egret, "live"), [("other".to_owned(), Value::Null)]);
    drop(leases);
    assert_eq!(egret.admin("POST", "/reload").status, 200);
    assert_eq!(states(&egret, "live").len(), 4);
    drop(egret);

    let leases = files.each_ref().map(|(_, _, file)| Lease::of(file, folder.path()));
    let egret = Egret::start_with(Settings { lacking: true, ..Settings::default() }, &sections);
    assert_eq!(sorted(states(&egret, "unavailable")), sorted(late().to_vec()));
    assert_eq!(states(&egret, "live"), [("other".to_owned(), Value::Null)]);
    drop(leases);
}
