//! The program of `egret exec`: its start, its signals, its end. egret is its parent and the reaper of its descendants.

mod children;
pub mod environment;
mod foreground;
mod forwarded;
mod launcher;

use std::ffi::OsString;
use std::io;

use libc::c_int;
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};

use crate::net::{self, capability};
pub(crate) use children::Children;
use environment::Variable;
use foreground::Foreground;
pub(crate) use forwarded::Forwarded;
pub use forwarded::StopSignal;
pub use launcher::Launcher;
use launcher::Order;

/// What to start.
#[derive(Clone, Debug)]
pub struct Command {
    /// A path, or a name that is looked up in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables that it gets besides those of egret.
    pub variables: Vec<Variable>,
    /// What it gets in place of SIGTERM.
    pub stop_signal: StopSignal,
}

/// Added to the number of the signal that ended a program: the exit code, as shells report it.
pub(crate) const SIGNALLED: u8 = 128;

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file, or no such name in `PATH`.
    #[error("cannot start {program}: {cause}")]
    NotFound {
        /// As it was asked for.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// It is there and cannot be executed.
    #[error("cannot start {program}: {cause}")]
    NotExecutable {
        /// As it was asked for.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The system gave no process.
    #[error("cannot start {program}: {cause}")]
    NoProcess {
        /// As it was asked for.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot listen to signal {number}: {cause}")]
    Signals {
        /// The signal.
        number: i32,
        /// What the system said.
        cause: io::Error,
    },
}

impl Error {
    /// The class, for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "program_not_found",
            Self::NotExecutable { .. } => "program_not_executable",
            Self::NoProcess { .. } => "no_process",
            Self::Signals { .. } => "signal_not_available",
        }
    }

    fn of_start(program: &OsString, cause: io::Error) -> Self {
        let program = program.display().to_string();
        match cause.kind() {
            io::ErrorKind::NotFound => Self::NotFound { program, cause },
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => Self::NoProcess { program, cause },
            _ => Self::NotExecutable { program, cause },
        }
    }
}

/// Makes egret the parent of all descendants whose own parent ends, so that it can reap them. As process 1 it is that
/// already.
pub(crate) fn adopt_orphans() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "orphans of the program are not adopted");
    }
}

/// Lets this process write to a terminal on which another process group is in the foreground. To be called before other
/// threads are started.
///
/// # Errors
/// The system's.
pub fn write_from_the_background() -> io::Result<()> {
    net::block_signal(libc::SIGTTOU)
}

/// The running program, in a process group of its own. If it is dropped before its end, it gets its stop signal.
pub(crate) struct Program {
    pid: Pid,
    stop_signal: StopSignal,
    foreground: Option<Foreground>,
    has_ended: bool,
}

impl Program {
    /// Starts it; returns once it is executed. The variables are added to those of egret.
    pub(crate) fn start(
        command: &Command,
        launcher: Launcher,
        variables: Vec<(String, String)>,
    ) -> Result<Self, Error> {
        let foreground = Foreground::to_hand_over();
        let pid = launcher.launch(&Order { variables, takes_terminal: foreground.is_some() }).map_err(|cause| {
            foreground.iter().for_each(Foreground::take_back);
            Error::of_start(&command.program, cause)
        })?;
        Ok(Self { pid, stop_signal: command.stop_signal, foreground, has_ended: false })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Passes a signal of egret's on. SIGTERM becomes the stop signal.
    pub(crate) fn forward(&self, signal: c_int) {
        let signal = if signal == libc::SIGTERM { self.stop_signal.number() } else { signal };
        // It has not been reaped, so its number is not another's; an error means that it refuses the signal.
        if let Err(error) = self.signal(signal) {
            tracing::warn!(%error, signal, "the program does not get a signal");
        }
    }

    pub(crate) fn stop(&self) {
        self.forward(libc::SIGTERM);
    }

    pub(crate) fn kill(&self) {
        // As above.
        let _ = self.signal(libc::SIGKILL);
    }

    /// The program may have become another user's.
    fn signal(&self, signal: c_int) -> io::Result<()> {
        capability::retry(|| net::send_signal(self.pid.as_raw_nonzero().get(), signal))
    }

    /// Takes note of a child's change of state. The exit code, once it is the program that has ended.
    pub(crate) fn changed(&mut self, child: Pid, status: WaitStatus) -> Option<u8> {
        if child != self.pid {
            return None;
        }
        if status.stopped() {
            self.foreground.iter().for_each(|foreground| foreground.suspend(self.pid));
            return None;
        }
        let code = exit_code(status)?;
        self.has_ended = true;
        self.foreground.iter().for_each(Foreground::take_back);
        Some(code)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.has_ended {
            self.stop();
        }
    }
}

fn exit_code(status: WaitStatus) -> Option<u8> {
    let signalled = || status.terminating_signal().map(|signal| i32::from(SIGNALLED) + signal);
    // Both fit: an exit status has eight bits, a signal seven.
    status.exit_status().or_else(signalled).and_then(|code| u8::try_from(code).ok())
}

fn resume(group: Pid) {
    // It may have ended meanwhile.
    let _ = kill_process_group(group, Signal::CONT);
}
