//! Unix signals, as what they ask for.
//!
//! SIGPIPE needs no word: the Rust runtime ignores it, and a write to a closed socket is an error.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: read the configuration again.
    Reload,
    /// The first SIGTERM or SIGINT: stop accepting and let streams finish.
    Drain(Stop),
    /// Any further SIGTERM or SIGINT: end at once.
    Quit,
}

/// Which signal asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM, by a supervisor.
    Term,
    /// SIGINT, by a person.
    Int,
}

impl Stop {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Term => libc::SIGTERM as u8,
            Self::Int => libc::SIGINT as u8,
        }
    }
}

/// The signals of this process that mean something to egret.
///
/// From its creation on, for the life of the process, these signals no longer have their default
/// effect; so it is made before anything that would have to be cleaned up.
#[derive(Debug)]
pub struct Signals {
    hangup: unix::Signal,
    terminate: unix::Signal,
    interrupt: unix::Signal,
    asked_to_stop: bool,
}

impl Signals {
    /// Starts to listen. Has to be called inside a tokio runtime.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            hangup: listen("SIGHUP", SignalKind::hangup())?,
            terminate: listen("SIGTERM", SignalKind::terminate())?,
            interrupt: listen("SIGINT", SignalKind::interrupt())?,
            asked_to_stop: false,
        })
    }

    /// The next request. Signals of one kind that arrive before they are taken are one.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Signal {
        let stop = tokio::select! {
            // A request to stop does not wait for a reload.
            biased;
            _ = self.terminate.recv() => Stop::Term,
            _ = self.interrupt.recv() => Stop::Int,
            _ = self.hangup.recv() => return Signal::Reload,
        };
        if self.asked_to_stop {
            return Signal::Quit;
        }
        self.asked_to_stop = true;
        Signal::Drain(stop)
    }
}

/// A signal cannot be listened to.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen to {name}")]
pub struct Error {
    name: &'static str,
    source: io::Error,
}

impl Error {
    pub(crate) fn reason(&self) -> &'static str {
        "signal_not_available"
    }
}

fn listen(name: &'static str, kind: SignalKind) -> Result<unix::Signal, Error> {
    unix::signal(kind).map_err(|source| Error { name, source })
}
