//! The process that becomes the program of `egret exec`.
//!
//! egret gives rights up, sets limits and starts threads, and children inherit the first two: a program would find setuid
//! programs without effect, fewer descriptors, no core dumps. So the process of the program is made first of all, with
//! everything as it was. It waits for the order to start, or for the end of egret.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::iter;
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process;

use rustix::process::{Pid, setpgid};
use serde::{Deserialize, Serialize};

use super::Command;
use crate::net;

/// Variables by which systemd addresses egret: a program that used them would speak in egret's name.
const OF_EGRET: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// A process that waits to become the program, in a process group of its own. It ends if this is dropped.
#[derive(Debug)]
pub struct Launcher {
    pid: Pid,
    orders: UnixStream,
}

/// What is known only once egret listens.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Added to egret's environment.
    pub(super) variables: Vec<(String, String)>,
    /// Whether the program's process group is put into the foreground of the terminal.
    pub(super) takes_terminal: bool,
}

impl Launcher {
    /// To be called before the process has a second thread, and before it changes anything that children inherit.
    ///
    /// # Errors
    /// The system gives no process or no descriptors.
    pub fn start(command: &Command) -> io::Result<Self> {
        let (orders, ordered) = UnixStream::pair()?;
        match net::fork()?.map(Pid::from_raw) {
            Some(pid) => Ok(Self { pid: pid.expect("the number of a child is positive"), orders }),
            None => {
                drop(orders);
                process::exit(follow(command, ordered));
            }
        }
    }

    /// Returns once the program is executed. Errors: those of execve(2).
    pub(super) fn launch(self, order: &Order) -> io::Result<Pid> {
        let Self { pid, mut orders } = self;
        orders.write_all(&serde_json::to_vec(order)?)?;
        orders.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        orders.read_to_end(&mut answer)?;
        match <[u8; 4]>::try_from(answer) {
            Ok(number) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number))),
            // The other end was closed by execve(2).
            Err(_) => Ok(pid),
        }
    }
}

/// In the new process: its exit code, unless it becomes the program.
fn follow(command: &Command, mut ordered: UnixStream) -> i32 {
    // A name of its own among the processes, and a group, so that the terminal's signals do not reach it.
    let _ = rustix::thread::set_name(c"egret-launcher");
    let _ = setpgid(None, None);
    net::close_inherited();
    let mut text = Vec::new();
    let order = ordered.read_to_end(&mut text).ok().and_then(|_| serde_json::from_slice::<Order>(&text).ok());
    // egret has ended before the program was to start.
    let Some(order) = order else { return 0 };
    let error = become_program(command, order);
    // If egret is gone meanwhile, nobody asks.
    let _ = ordered.write_all(&error.raw_os_error().unwrap_or(libc::EINVAL).to_ne_bytes());
    0
}

/// Returns only if it fails.
fn become_program(command: &Command, order: Order) -> io::Error {
    let own = env::vars_os().filter(|(name, _)| !OF_EGRET.iter().any(|of_egret| name == of_egret));
    let mut variables: BTreeMap<OsString, OsString> = own.collect();
    variables.extend(order.variables.into_iter().map(|(name, value)| (name.into(), value.into())));
    if order.takes_terminal {
        // From outside it would come too late for a program that reads at once.
        net::take_terminal();
    }
    let path = variables.get(OsStr::new("PATH")).cloned();
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for file in candidates(&command.program, path.as_deref()) {
        let arguments = iter::once(&command.program).chain(&command.arguments);
        let failed = net::execute(file.as_os_str(), arguments, &variables);
        match failed.raw_os_error() {
            // A folder that does not have it says nothing about the others; one that has it in vain counts.
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => error = failed,
            _ => return failed,
        }
    }
    error
}

/// The search of execvp(3), which hands what the kernel cannot execute to a shell: not wanted, an exit code says it.
fn candidates(program: &OsStr, path: Option<&OsStr>) -> Vec<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.into()];
    }
    env::split_paths(path.unwrap_or_else(|| OsStr::new("/bin:/usr/bin"))).map(|folder| folder.join(program)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_the_path_and_a_path_is_not() {
        for (program, path, wanted) in [
            ("app", Some("/a:/b"), &["/a/app", "/b/app"][..]),
            ("app", None, &["/bin/app", "/usr/bin/app"]),
            // An empty part is the working folder.
            ("app", Some(":/b"), &["app", "/b/app"]),
            ("./app", Some("/a"), &["./app"]),
            ("/opt/app", Some("/a"), &["/opt/app"]),
        ] {
            let found = candidates(OsStr::new(program), path.map(OsStr::new));
            assert_eq!(found, wanted.iter().map(PathBuf::from).collect::<Vec<_>>(), "{program} {path:?}");
        }
    }
}
