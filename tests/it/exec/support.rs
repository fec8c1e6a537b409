//! A server that echoes, a configuration for it, and egret with a program.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::lifecycle::Scene;
use crate::support::egret::{binary, listener};
use crate::support::http::{self, Answer};
use crate::support::process::{Process, guarded, run};
use crate::support::{PATIENCE, eventually};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Process 1 of a PID namespace.
    Init,
    /// An ordinary process.
    Outside,
    /// A process that was started to ignore signals, as by nohup or in the background of a script.
    Ignoring,
}

/// What the programs of a test share.
pub(super) struct Stage {
    _scene: Scene,
    sections: String,
    folder: TempDir,
    drain: &'static str,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::with_drain("1s")
    }

    pub(super) fn with_drain(drain: &'static str) -> Self {
        let scene = Scene::new("");
        let sections = scene.upstream.clone() + &listener("app", 0, "echo");
        Self { _scene: scene, sections, folder: TempDir::new().unwrap(), drain }
    }

    /// With other upstreams and listeners.
    pub(super) fn of(sections: &str) -> Self {
        Self { sections: sections.to_owned(), ..Self::new() }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A pipe by which the test tells a program to go on.
    pub(super) fn fifo(&self) -> String {
        let path = self.folder().join("fifo");
        run(Command::new("mkfifo").arg(&path));
        path.display().to_string()
    }

    pub(super) fn config(&self) -> PathBuf {
        let admin = self.admin_socket();
        let preamble = format!(
            "drain_timeout = {:?}\n[log]\nformat = \"json\"\n[admin]\nlisten = \"unix:{}\"\n",
            self.drain,
            admin.display()
        );
        self.file("egret.toml", &(preamble + &self.sections))
    }

    fn admin_socket(&self) -> PathBuf {
        self.folder().join("admin.sock")
    }

    pub(super) fn exec(&self, place: Place, arguments: &[&str], program: &[&str]) -> Exec {
        self.exec_with(place, arguments, program, &[])
    }

    pub(super) fn exec_with(
        &self,
        place: Place,
        arguments: &[&str],
        program: &[&str],
        environment: &[(&str, &str)],
    ) -> Exec {
        let mut command = match place {
            Place::Outside => guarded(binary()),
            Place::Init => namespace(),
            Place::Ignoring => {
                let mut shell = guarded("sh");
                shell.args(["-c", "trap '' HUP INT QUIT TERM USR1; exec \"$0\" \"$@\""]).arg(binary());
                shell
            }
        };
        command.arg("exec").arg("--config").arg(self.config()).args(arguments).arg("--").args(program);
        command.envs(environment.iter().copied());
        let output = TempDir::new().unwrap();
        let process = Process::spawn("egret exec", command, &output.path().join("output"));
        Exec { process, place, admin: self.admin_socket(), _output: output }
    }
}

/// egret as process 1; it is killed with the process outside that holds the namespace.
fn namespace() -> Command {
    let mut command = guarded("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(binary());
    command
}

/// A running `egret exec`.
pub(super) struct Exec {
    process: Process,
    place: Place,
    admin: PathBuf,
    _output: TempDir,
}

impl Exec {
    /// What egret and the program have written.
    pub(super) fn output(&self) -> String {
        self.process.output()
    }

    pub(super) fn wait_for(&mut self, text: &str) {
        self.process.wait_for_output(text);
    }

    /// The exit code.
    pub(super) fn wait(&mut self) -> Option<i32> {
        self.wait_for_exit(PATIENCE)
    }

    pub(super) fn wait_for_exit(&mut self, limit: Duration) -> Option<i32> {
        self.process.wait(limit).map(|status| status.code().unwrap_or(-1))
    }

    /// Waits for a line of egret's log that passes.
    pub(super) fn has_line(&self, passes: impl Fn(&Value) -> bool) -> Value {
        eventually("a line of the log", || {
            let output = self.output();
            output.lines().filter_map(|line| serde_json::from_str(line).ok()).find(&passes)
        })
    }

    pub(super) fn address(&self, name: &str) -> SocketAddr {
        let line = self.has_line(|line| line["message"] == "listening" && line["listener"] == name);
        line["address"].as_str().unwrap().parse().unwrap()
    }

    /// The number of egret outside of its namespace.
    pub(super) fn pid(&self) -> u32 {
        let outside = self.process.pid();
        if self.place != Place::Init {
            return outside;
        }
        eventually("egret in its namespace", || {
            let children = fs::read_to_string(format!("/proc/{outside}/task/{outside}/children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        })
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.signal_number(signal.as_raw());
    }

    pub(super) fn signal_number(&self, signal: i32) {
        let (number, pid) = (format!("-{signal}"), self.pid().to_string());
        run(Command::new("kill").args([&number, &pid]));
    }

    pub(super) fn admin(&self, method: &str, path: &str) -> Answer {
        http::admin(&self.admin, method, path)
    }
}
