//! The real program with a configuration, and everything a person could ask it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Once};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::Value;
use tempfile::TempDir;

use super::cgroup::Cgroup;
use super::http::{self, Answer};
use super::metrics::Metrics;
use super::namespace::Namespace;
use super::process::{Process, guarded};
use super::{PATIENCE, eventually};

/// A running egret.
pub(crate) struct Egret {
    process: Process,
    folder: TempDir,
    settings: Settings,
    admin: PathBuf,
}

/// What differs from test to test besides upstreams and listeners.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) drain_timeout: &'static str,
    /// `[reload] watch`: off unless the test is about it, so that a reload is when the test says so.
    pub(crate) watch: bool,
    /// The limit of open descriptors, soft and hard.
    pub(crate) descriptors: Option<u32>,
    /// The control group that it lives in.
    pub(crate) cgroup: Option<Arc<Cgroup>>,
    /// Where it runs, if not among everybody else.
    pub(crate) namespace: Option<Arc<Namespace>>,
    /// Further arguments of `egret run`.
    pub(crate) arguments: Vec<String>,
    /// It may start with files that cannot be used: it is not waited until all of it is ready.
    pub(crate) lacking: bool,
    /// Lines before the first table.
    pub(crate) top: String,
    /// Variables that it finds besides those of the test.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            drain_timeout: "5s",
            watch: false,
            descriptors: None,
            cgroup: None,
            namespace: None,
            arguments: Vec::new(),
            lacking: false,
            top: String::new(),
            environment: Vec::new(),
        }
    }
}

impl Settings {
    /// The program, where and under what limits it is to run.
    fn command(&self) -> Command {
        let program = match (&self.descriptors, &self.cgroup) {
            (Some(_), None) => Path::new("prlimit"),
            (None, Some(_)) => Path::new("sh"),
            (None, None) => binary(),
            (Some(_), Some(_)) => panic!("descriptors are limited outside of a control group only"),
        };
        let mut command = match &self.namespace {
            None => guarded(program),
            Some(namespace) => namespace.guarded(program),
        };
        if let Some(limit) = self.descriptors {
            command.arg(format!("--nofile={limit}:{limit}")).arg(binary());
        }
        if let Some(cgroup) = &self.cgroup {
            command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(cgroup.processes()).arg(binary());
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Egret {
    /// Starts with these sections; `[log]`, `[admin]` and `[reload]` are added.
    pub(crate) fn start(sections: &str) -> Self {
        Self::start_with(Settings::default(), sections)
    }

    /// Starts, and waits until every listener of the configuration has said where it listens.
    pub(crate) fn start_with(settings: Settings, sections: &str) -> Self {
        raise_descriptor_limit();
        let folder = TempDir::new().unwrap();
        let admin = folder.path().join("admin.sock");
        let text = preamble(&settings, folder.path()) + sections;
        Self::start_in(folder, settings, &text, admin)
    }

    /// As [`Self::start_with`], with a whole file and one of its admin sockets.
    pub(crate) fn start_as_written(settings: Settings, text: &str, admin: &Path) -> Self {
        Self::start_in(TempDir::new().unwrap(), settings, text, admin.to_owned())
    }

    fn start_in(folder: TempDir, settings: Settings, text: &str, admin: PathBuf) -> Self {
        let config = folder.path().join("egret.toml");
        fs::write(&config, text).unwrap();
        let mut command = settings.command();
        command.arg("run").arg(&config).args(&settings.arguments);
        let process = Process::spawn("egret", command, &folder.path().join("egret.log"));
        let mut egret = Self { process, folder, settings, admin };
        egret.process.wait_for_output("listening");
        for listener in listeners_of(text) {
            egret.address(&listener);
        }
        if egret.settings.lacking {
            return egret;
        }
        eventually("egret to be ready", || (egret.admin("GET", "/readyz").status == 200).then_some(()));
        egret
    }

    /// Writes the configuration anew, in one piece; it is not loaded by that.
    pub(crate) fn rewrite(&self, sections: &str) {
        let text = preamble(&self.settings, self.folder.path()) + sections;
        super::pki::replace(&self.config(), &text, 0o644);
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("egret.toml")
    }

    /// Where the listener of this name listens, by its own word.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let line = self.wait_for_log(&format!("listening as {listener}"), |line| {
            line["message"] == "listening" && line["listener"] == listener
        });
        line["address"].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no address: {line}"))
    }

    /// Every line of the log that is JSON.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.process.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The log as it was written.
    pub(crate) fn log_text(&self) -> String {
        self.process.output()
    }

    /// Waits for a line that passes.
    pub(crate) fn wait_for_log(&self, what: &str, passes: impl Fn(&Value) -> bool) -> Value {
        let probe = || self.log().into_iter().find(&passes);
        let mut seen = probe();
        let start = std::time::Instant::now();
        while seen.is_none() {
            assert!(start.elapsed() < PATIENCE, "no line in the log: {what}\n{}", self.log_text());
            std::thread::sleep(Duration::from_millis(20));
            seen = probe();
        }
        seen.unwrap()
    }

    pub(crate) fn admin_socket(&self) -> &Path {
        &self.admin
    }

    /// A request to the admin socket.
    pub(crate) fn admin(&self, method: &str, path: &str) -> Answer {
        http::admin(&self.admin, method, path)
    }

    /// What `/metrics` says now.
    pub(crate) fn metrics(&self) -> Metrics {
        let answer = self.admin("GET", "/metrics");
        assert_eq!(answer.status, 200, "{answer:?}\n{}", self.log_text());
        Metrics::parse(&answer.body)
    }

    /// Sends SIGHUP and waits until a reload has been counted. True if it was accepted.
    pub(crate) fn reload(&self) -> bool {
        let before = self.metrics();
        self.process.signal(Signal::HUP);
        eventually("a reload to be counted", || {
            let now = self.metrics();
            (reloads(&now) > reloads(&before)).then(|| accepted(&now) > accepted(&before))
        })
    }

    /// The number of the running generation.
    pub(crate) fn generation(&self) -> f64 {
        self.metrics().sum("egret_generation", &[])
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// The exit code, if it ends within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<i32> {
        self.process.wait(limit).map(|status| status.code().unwrap_or(-1))
    }

    /// Open descriptors. A reading may find one that is being opened or closed.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.pid())).unwrap().count()
    }

    /// Sets the limit of open descriptors of the running process, soft and hard.
    pub(crate) fn limit_descriptors(&self, limit: usize) {
        let (pid, limits) = (self.process.pid().to_string(), format!("--nofile={limit}:{limit}"));
        let status = Command::new("prlimit").args(["--pid", &pid, &limits]).status().unwrap();
        assert!(status.success(), "{status}");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where the kernel shows the process.
    pub(crate) fn proc_path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.process.pid()))
    }

    /// What the kernel says of the process, such as `status` or `limits`.
    pub(crate) fn proc(&self, file: &str) -> String {
        fs::read_to_string(self.proc_path(file)).unwrap()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// The most resident memory that it ever had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, field: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with(field)).expect("a running process has memory");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Nothing is left of any connection: descriptors are back at `floor`, and none counts as active.
    pub(crate) fn wait_until_idle(&self, floor: usize) {
        eventually("no connection to be active", || {
            (self.metrics().sum("egret_connections_active", &[]) == 0.0).then_some(())
        });
        // The connection to the admin socket that has just asked may still be closing.
        eventually(&format!("descriptors to be back at {floor}, are {}", self.descriptors()), || {
            (self.descriptors() <= floor).then_some(())
        });
    }
}

/// The program under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_egret"))
}

/// `egret ARGUMENTS` to its end: exit code, and both streams as one text.
pub(crate) fn egret(arguments: &[&str]) -> (i32, String) {
    let output = super::process::attempt(Command::new(binary()).args(arguments));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), text)
}

/// A listener's lines.
pub(crate) fn listener(name: &str, port: u16, upstream: &str) -> String {
    format!("[[listeners]]\nname = {name:?}\nlisten = \"127.0.0.1:{port}\"\nupstream = {upstream:?}\n")
}

/// A trust with one bundle.
pub(crate) fn roots(name: &str, bundle: &Path) -> String {
    format!("[trust.{name}]\nroots = [{bundle:?}]\n")
}

fn reloads(metrics: &Metrics) -> f64 {
    metrics.sum("egret_reloads_total", &[])
}

fn accepted(metrics: &Metrics) -> f64 {
    metrics.sum("egret_reloads_total", &[("result", "accepted")])
}

fn preamble(settings: &Settings, folder: &Path) -> String {
    let admin = format!("unix:{}", folder.join("admin.sock").display());
    format!(
        "drain_timeout = {:?}\n{}[log]\nformat = \"json\"\n[admin]\nlisten = {admin:?}\n[reload]\nwatch = {}\n",
        settings.drain_timeout, settings.top, settings.watch
    )
}

fn listeners_of(sections: &str) -> Vec<String> {
    let names = |table: &toml::Table| -> Option<Vec<String>> {
        let listeners = table.get("listeners")?.as_array()?;
        Some(listeners.iter().filter_map(|listener| listener.get("name")?.as_str().map(Into::into)).collect())
    };
    let table: toml::Table = sections.parse().expect("the sections of a test are TOML");
    names(&table).unwrap_or_default()
}

/// Tests hold a thousand sockets; shells often allow 1024 descriptors, and the hard limit is higher.
fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        let wanted = limit.maximum.map_or(16_384, |maximum| maximum.min(16_384));
        let raised = Rlimit { current: Some(limit.current.unwrap_or(wanted).max(wanted)), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).unwrap();
    });
}
