//! A network of its own, for what must not happen to everybody else's: few ports, a loopback that is down.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, run};

/// A network namespace with a loopback interface. It goes when the processes in it have ended; Unix sockets
/// reach into it and out of it.
pub(crate) struct Namespace {
    holder: Process,
    _folder: TempDir,
}

/// Where connections of the namespace come from, and nobody may listen: far from [`super::free_port`]'s.
const FIRST_PORT: u16 = 40_000;

/// Written by the holder when everything is set.
const READY: &str = "the namespace is ready";

impl Namespace {
    /// Connections to one address can have `ports` local ports and no more.
    pub(crate) fn with_ports(ports: u16) -> Self {
        Self::with("ip_local_port_range", &format!("{FIRST_PORT} {}", FIRST_PORT + ports - 1))
    }

    /// A setting of `/proc/sys/net/ipv4` has this value inside.
    pub(crate) fn with(setting: &str, value: &str) -> Self {
        let script = format!(
            "ip link set lo up && echo '{value}' >/proc/sys/net/ipv4/{setting} && echo '{READY}' && \
             exec setpriv --pdeathsig KILL sleep infinity"
        );
        let mut command = Command::new("unshare");
        // Whoever is not root is root in a user namespace of its own.
        command.args(if is_root() { &["--net"][..] } else { &["--net", "--map-root-user"] });
        command.args(["sh", "-c", &script]);
        let folder = TempDir::new().unwrap();
        let mut holder = Process::spawn("unshare", command, &folder.path().join("holder.log"));
        holder.wait_for_output(READY);
        Self { holder, _folder: folder }
    }

    /// `program` inside; the kernel kills it when the test's thread ends, as with `guarded`.
    pub(crate) fn guarded(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.enter();
        command.args(["setpriv", "--pdeathsig", "KILL"]).arg(program.as_ref());
        command
    }

    /// Cuts every connection inside: packets go nowhere, and nobody is told.
    pub(crate) fn loopback_down(&self) {
        run(self.enter().args(["ip", "link", "set", "lo", "down"]));
    }

    /// Mends it.
    pub(crate) fn loopback_up(&self) {
        run(self.enter().args(["ip", "link", "set", "lo", "up"]));
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.pid().to_string()).arg("--net");
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--");
        command
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
