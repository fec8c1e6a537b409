//! `egret demo` shows what it says: its own `curl` lines are the test.

use std::collections::HashSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::support::egret::binary;
use super::support::http::Answer;
use super::support::metrics::Metrics;
use super::support::process::{Process, attempt, guarded};
use super::support::{PATIENCE, eventually, loopback};

/// A running demo. One at a time: all want the same ports first.
struct Demo {
    process: Process,
    temporary: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Demo {
    /// Starts, and waits until everything listens.
    fn start() -> Self {
        let mut demo = Self::spawn();
        demo.process.wait_for_output("admin listening");
        demo
    }

    fn spawn() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let temporary = TempDir::new().unwrap();
        // The name of the folder has to be quoted for a shell, and means nothing to a configuration.
        let folder = temporary.path().join("it's ${HERE}");
        fs::create_dir(&folder).unwrap();
        let mut command = guarded(binary());
        command.arg("demo").env("TMPDIR", &folder);
        let process = Process::spawn("egret demo", command, &temporary.path().join("output"));
        Self { process, temporary, _alone: alone }
    }

    /// The lines that it says to try, in their order.
    fn lines(&self) -> Vec<String> {
        let output = self.process.output();
        output.lines().map(str::trim).filter(|line| line.starts_with("curl ")).map(str::to_owned).collect()
    }

    /// What is left among the temporary files.
    fn folders(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.temporary.path().join("it's ${HERE}")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// Runs a line as a shell does.
fn paste(line: &str) -> Answer {
    let rest = r"--silent --show-error --max-time 30 --noproxy '*' --write-out '\n%{http_code}'";
    let output = attempt(Command::new("sh").arg("-c").arg(format!("{line} {rest}")));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
    Answer { exit: output.status.code().unwrap_or(-1), status: status.parse().unwrap_or(0), body: body.to_owned() }
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn port(line: &str) -> u16 {
    let (_, rest) = line.split_once("127.0.0.1:").expect("an address");
    rest.split('/').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn both_listeners_answer_by_their_own_identity_and_resume_their_own_sessions() {
    let demo = Demo::start();
    let lines = demo.lines();
    let mut resumed = HashSet::new();
    for _ in 0..50 {
        for (line, status) in [(&lines[0], 200), (&lines[1], 403)] {
            let answer = paste(line);
            assert_eq!(answer.status, status, "{line}: {answer:?}");
            let body = json(&answer);
            assert_eq!(body["server_name"], "certauth.example.com");
            assert_eq!(body["tls_version"], "TLSv1_3");
            let client = &body["client_certificate"];
            assert_eq!(client.is_object(), status == 200, "{body:#}");
            if body["resumed"] == true {
                resumed.insert(status);
            }
        }
    }
    assert_eq!(resumed, HashSet::from([200, 403]));

    let status = json(&paste(&lines[2]));
    assert_eq!(status["ready"], true, "{status:#}");
    let metrics = Metrics::parse(&paste(&lines[3]).body);
    let connections = |listener| metrics.sum("egret_connections_total", &[("listener", listener)]);
    assert_eq!((connections("with-identity"), connections("without-identity")), (50.0, 50.0));
}

#[test]
fn the_client_certificate_is_described_as_openssl_does() {
    let demo = Demo::start();
    let seen = json(&paste(&demo.lines()[0]))["client_certificate"].clone();
    let file = demo.folders()[0].join("client.crt");
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-serial", "-fingerprint", "-sha256", "-in"]).arg(file);
    let said = String::from_utf8(attempt(&mut command).stdout).unwrap().replace(':', "").to_lowercase();
    for field in ["serial", "sha256"] {
        let value = seen[field].as_str().unwrap();
        assert!(said.lines().any(|line| line.ends_with(&format!("={value}"))), "{field} {value}: {said}");
    }
    assert!(seen["subject"].as_str().unwrap().contains("CN=demo client"), "{seen:#}");
    assert!(seen["issuer"].as_str().unwrap().contains("CN=demo authority"), "{seen:#}");
    assert!(seen["not_before"].as_str().unwrap() < seen["not_after"].as_str().unwrap(), "{seen:#}");
}

#[test]
fn the_upstream_alone_behaves_as_the_page_says() {
    let demo = Demo::start();
    let (by_name, without_sni) = (&demo.lines()[4], &demo.lines()[5]);
    let folder = &demo.folders()[0];
    let certificate = format!(r#"--cert "{0}/client.crt" --key "{0}/client.key""#, folder.display());
    let certificate = certificate.replace('$', r"\$");
    for (version, name) in [("1.2", "TLSv1_2"), ("1.3", "TLSv1_3")] {
        let line = format!("{by_name} --tlsv{version} --tls-max {version}");
        let (without, with) = (paste(&line), paste(&format!("{line} {certificate}")));
        assert_eq!((without.status, with.status), (403, 200), "{without:?} {with:?}");
        assert_eq!(json(&with)["tls_version"], name);
    }
    /// curl's word for a certificate that does not verify.
    const PEER_FAILED_VERIFICATION: i32 = 60;
    assert_eq!(paste(without_sni).exit, PEER_FAILED_VERIFICATION);
    assert_eq!(paste(&format!("{without_sni} --insecure")).status, 403, "it is the name alone that is wrong");
    let other = by_name.replace("certauth.example.com", "other.example.com");
    assert_eq!(paste(&other).exit, PEER_FAILED_VERIFICATION);
}

#[test]
fn a_change_of_its_configuration_is_loaded() {
    let demo = Demo::start();
    let (line, file) = (&demo.lines()[0], demo.folders()[0].join("egret.toml"));
    assert_eq!(paste(line).status, 200);
    let (identity, text) = (r#"identity = "demo", "#, fs::read_to_string(&file).unwrap());
    fs::write(&file, text.replace(identity, "")).unwrap();
    eventually("the identity to be gone", || (paste(line).status == 403).then_some(()));
    fs::write(&file, text).unwrap();
    eventually("the identity to be back", || (paste(line).status == 200).then_some(()));
}

#[test]
fn a_taken_port_is_replaced_and_that_is_said() {
    let demo = loop {
        // If it cannot be had it is somebody's already, who may leave before the demo comes.
        let held = TcpListener::bind(loopback(8080));
        let demo = Demo::start();
        if held.is_ok() || port(&demo.lines()[0]) != 8080 {
            break demo;
        }
    };
    let line = &demo.lines()[0];
    assert_ne!(port(line), 8080);
    let said = format!("Port 8080 is taken: {} is used in its place.", port(line));
    assert!(demo.process.output().contains(&said), "{}", demo.process.output());
    assert_eq!(paste(line).status, 200);
}

#[test]
fn keys_are_the_owners_alone_and_gone_when_it_is_asked_to_stop() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut demo = Demo::start();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folders = demo.folders();
        let [folder] = folders.as_slice() else { panic!("{folders:?}") };
        assert_eq!((mode(folder), mode(&folder.join("client.key"))), (0o700, 0o600));
        assert!(demo.process.output().contains(&folder.display().to_string()), "{}", demo.process.output());
        demo.process.signal(signal);
        assert_eq!(demo.process.wait(PATIENCE).and_then(|status| status.code()), Some(0), "{signal:?}");
        assert_eq!(demo.folders(), Vec::<PathBuf>::new(), "{signal:?}");
    }
}

#[test]
fn a_stop_at_any_moment_of_the_start_leaves_no_folder() {
    let mut started = 0;
    for milliseconds in (0..200).step_by(20) {
        let mut demo = Demo::spawn();
        std::thread::sleep(Duration::from_millis(milliseconds));
        // Before it listens to signals it ends by this one; there is no folder yet. (Not INT: shells start what is to
        // run in the background with that one ignored, and a test run hands it on.)
        demo.process.signal(Signal::TERM);
        let ended = demo.process.wait(PATIENCE).expect("it ends");
        assert!(matches!(ended.code(), None | Some(0)), "{ended}: {}", demo.process.output());
        assert_eq!(demo.folders(), Vec::<PathBuf>::new(), "after {milliseconds} ms");
        started += usize::from(ended.code() == Some(0));
    }
    assert!(started > 0, "no start came far enough to leave anything");
}
