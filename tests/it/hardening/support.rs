//! What the kernel says of threads, and egret as a user without rights.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::egret::binary;
use crate::support::http;
use crate::support::process::{Process, attempt};

/// The values that a field of `status` has in the threads of a process.
pub(super) fn of_threads(pid: u32, name: &str) -> BTreeSet<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may end meanwhile.
    let statuses = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    statuses.filter(|status| !status.is_empty()).map(|status| field(&status, name)).collect()
}

pub(super) fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in\n{status}")).trim().to_owned()
}

pub(super) fn no_capability() -> BTreeSet<String> {
    BTreeSet::from(["0".repeat(16)])
}

/// A user who owns a folder, and nothing else.
pub(super) struct OtherUser(TempDir);

/// `nobody`, by number.
const USER: u32 = 65534;

impl OtherUser {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        chown(folder.path(), Some(USER), Some(USER)).unwrap();
        Self(folder)
    }

    pub(super) fn folder(&self) -> &Path {
        self.0.path()
    }

    /// A file that this user alone may read.
    pub(super) fn own(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(USER), Some(USER)).unwrap();
        path
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups"]);
        command.args(["--pdeathsig", "KILL"]).arg(program.as_ref()).current_dir(self.folder());
        command
    }

    fn admin(&self) -> PathBuf {
        self.folder().join("admin.sock")
    }

    /// The program as this user, from a copy: the folder of the original may be closed to it.
    pub(super) fn start(&self, hardening: &str) -> Process {
        let program = self.folder().join("egret");
        if !program.exists() {
            fs::copy(binary(), &program).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = self.command(program);
        command.args(["run", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--hardening", hardening]);
        command.arg("--admin").arg(format!("unix:{}", self.admin().display()));
        let mut process = Process::spawn("egret", command, &self.folder().join(hardening));
        process.wait_for_output("admin listening");
        process
    }

    /// Whether a process of this user can open the file or list the folder.
    pub(super) fn opens(&self, path: &str) -> bool {
        let open = r#"if [ -d "$0" ]; then ls "$0"; else : < "$0"; fi"#;
        attempt(self.command("sh").args(["-c", open, path])).status.success()
    }

    pub(super) fn metrics(&self) -> String {
        http::admin(&self.admin(), "GET", "/metrics").body
    }
}
