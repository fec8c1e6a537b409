//! Servers that run as a user of their own.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use super::process::guarded;

/// The account that a package makes for its server, which refuses to run as root. Tests without root run it as themselves.
pub(crate) struct Account {
    user: Option<(u32, u32)>,
}

impl Account {
    pub(crate) fn of(name: &str) -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self { user: None };
        }
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let line =
            users.lines().find(|line| line.split(':').next() == Some(name)).expect("the package makes this user");
        let ids: Vec<u32> = line.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
        Self { user: Some((ids[0], ids[1])) }
    }

    pub(crate) fn own(&self, path: &Path) {
        if let Some((user, group)) = self.user {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = match self.user {
            None => guarded(program),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &user.to_string(), "--regid", &group.to_string(), "--clear-groups"]);
                command.args(["--pdeathsig", "KILL"]).arg(program);
                command
            }
        };
        // Where it was called from may be closed to that user.
        command.current_dir("/");
        command
    }
}
