//! Child processes that never outlive the test that started them.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// A running program: what it writes goes to a file, and it is killed when this value is dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command`; `output` gets what it writes to either stream.
    pub(crate) fn spawn(name: &str, mut command: Command, output: &Path) -> Self {
        let file = File::options().create(true).append(true).open(output).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({error}): tests/run installs what is missing"));
        Self { name: name.into(), child, output: output.into() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap()).into_owned()
    }

    /// Waits for a piece of its output.
    pub(crate) fn wait_for_output(&mut self, text: &str) {
        self.wait_for(&format!("{text:?} in its output"), |process| process.output().contains(text));
    }

    /// Waits until the address accepts connections.
    pub(crate) fn wait_for_port(&mut self, address: SocketAddr) {
        self.wait_for(&format!("{address} to accept"), |_| TcpStream::connect(address).is_ok());
    }

    fn wait_for(&mut self, what: &str, mut happened: impl FnMut(&Self) -> bool) {
        let name = self.name.clone();
        eventually(&format!("{name}: {what}"), || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{name} ended early with {status}:\n{}", self.output());
            }
            happened(self).then_some(())
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// How it ended, if it does within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `program` as a command that the kernel kills when the test's thread ends, however it ends: drop does
/// not run when the test itself is killed.
pub(crate) fn guarded(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program.as_ref());
    command
}

/// Runs to the end and gives the output; fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> String {
    let output = attempt(command);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed with {}:\n{text}", output.status);
    text
}

/// A program that stands in for another one: `sh` with these commands.
pub(crate) fn stub(path: &Path, commands: &str) {
    fs::write(path, format!("#!/bin/sh\n{commands}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs to the end, whatever it is.
pub(crate) fn attempt(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"))
}
