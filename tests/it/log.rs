//! What leaves the process besides traffic: the log, the key log, messages to a supervisor. Nothing waits for who
//! reads them, and nothing that a stranger says forges a line.

mod flood;
mod journal;
mod json;
mod key_log;
mod notify;
mod stderr;
mod text;

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{binary, listener};
use crate::support::http::{self, Answer};
use crate::support::metrics::Metrics;
use crate::support::process::guarded;
use crate::support::{PATIENCE, eventually, free_port, loopback, plain};

/// egret whose stderr the test has chosen, with a listener to a server that sends back what it gets.
struct Program {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Program {
    /// Starts it with further arguments, and waits until it is ready.
    fn start(scene: &Scene, arguments: &[&str], stderr: impl Into<Stdio>) -> Self {
        Self::start_with(scene, "", arguments, stderr, |_| {})
    }

    /// Starts it with further sections and settings of the process.
    fn start_with(
        scene: &Scene,
        sections: &str,
        arguments: &[&str],
        stderr: impl Into<Stdio>,
        set: impl FnOnce(&mut Command),
    ) -> Self {
        let (folder, port) = (TempDir::new().unwrap(), free_port());
        let admin = format!("[admin]\nlisten = \"unix:{}\"\n", folder.path().join("admin.sock").display());
        let text = admin + &scene.upstream + &listener("echo", port, "echo") + sections;
        let config = folder.path().join("egret.toml");
        fs::write(&config, text).unwrap();
        let mut command = guarded(binary());
        command.arg("run").arg(&config).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        set(&mut command);
        let mut program = Self { child: command.spawn().unwrap(), folder, address: loopback(port) };
        eventually("egret to be ready", || {
            assert_eq!(program.child.try_wait().unwrap(), None, "egret ended early");
            (program.admin("GET", "/readyz").status == 200).then_some(())
        });
        program
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("egret.toml")
    }

    fn admin(&self, method: &str, path: &str) -> Answer {
        http::admin(&self.folder.path().join("admin.sock"), method, path)
    }

    fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin("GET", "/metrics").body)
    }

    /// A stream of its own gets its answer.
    fn serves(&self) -> bool {
        echoes(&mut plain::connect(self.address))
    }

    /// Sends SIGTERM and waits for the end: the exit code.
    fn stop(&mut self) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Everything that has to go on whoever reads what is written.
    fn works(&self, what: &str) {
        for _ in 0..20 {
            assert!(self.serves(), "{what}: a stream");
        }
        assert_eq!(self.admin("POST", "/reload").status, 200, "{what}: a reload");
        assert!(self.serves(), "{what}: a stream after the reload");
        assert_eq!(self.admin("GET", "/metrics").status, 200, "{what}: metrics");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe that has no room left: its reader, and its end for writing.
fn full_pipe() -> (fs::File, OwnedFd) {
    let (from, to) = rustix::pipe::pipe().unwrap();
    fill(&to);
    (from.into(), to)
}

/// Writes until there is no room. What is written are empty lines.
fn fill(to: &OwnedFd) {
    rustix::io::ioctl_fionbio(to, true).unwrap();
    for size in [4096, 1] {
        while rustix::io::write(to, &vec![b'\n'; size]).is_ok() {}
    }
    rustix::io::ioctl_fionbio(to, false).unwrap();
}

/// `egret run ARGUMENTS` to its end: exit code and stderr.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary()).arg("run").args(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn fifo(path: &Path) {
    crate::support::process::run(Command::new("mkfifo").args(["-m", "600"]).arg(path));
}
