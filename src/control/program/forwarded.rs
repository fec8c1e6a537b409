//! The signals that the program gets in place of egret.

use std::future::poll_fn;
use std::str::FromStr;
use std::task::Poll;

use libc::c_int;
use tokio::signal::unix::{self, SignalKind};

use super::Error;

/// All signals that can be caught, except: SIGCHLD, which is about egret's own children; SIGPIPE, which egret's own writes
/// cause; SIGTTIN and SIGTTOU, by which a terminal stops its readers and writers; and those of a fault of egret itself
/// (SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP). Real-time signals are forwarded too.
const NAMED: [(&str, c_int); 18] = [
    ("TERM", libc::SIGTERM),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("HUP", libc::SIGHUP),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("ALRM", libc::SIGALRM),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("CONT", libc::SIGCONT),
    ("TSTP", libc::SIGTSTP),
    ("WINCH", libc::SIGWINCH),
    ("URG", libc::SIGURG),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("STKFLT", libc::SIGSTKFLT),
];

fn real_time() -> std::ops::RangeInclusive<c_int> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

/// Signals to this process, to be passed on. From its creation on they no longer have their default effect.
pub(crate) struct Forwarded(Vec<(c_int, unix::Signal)>);

impl Forwarded {
    /// To be called inside a tokio runtime.
    pub(crate) fn new() -> Result<Self, Error> {
        let numbers = NAMED.iter().map(|(_, number)| *number).chain(real_time());
        let listen = |number| match unix::signal(SignalKind::from_raw(number)) {
            Ok(signal) => Ok((number, signal)),
            Err(cause) => Err(Error::Signals { number, cause }),
        };
        numbers.map(listen).collect::<Result<_, _>>().map(Self)
    }

    /// The next signal. Those of one kind that arrive before they are taken are one. Cancel safe.
    pub(crate) async fn next(&mut self) -> c_int {
        poll_fn(|cx| {
            let arrived =
                self.0.iter_mut().find_map(|(number, signal)| signal.poll_recv(cx).is_ready().then_some(*number));
            arrived.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The next signal that asks a program to end; others are dropped. For the time before the program runs. Cancel safe.
    pub(crate) async fn next_stop(&mut self) -> c_int {
        loop {
            let signal = self.next().await;
            if matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT | libc::SIGHUP) {
                return signal;
            }
        }
    }
}

/// The signal that asks the program to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal(c_int);

impl StopSignal {
    /// What supervisors send, and so what the program gets unless it wants another.
    pub const TERM: Self = Self(libc::SIGTERM);

    pub(crate) fn number(self) -> c_int {
        self.0
    }
}

impl FromStr for StopSignal {
    type Err = String;

    /// A name, with or without `SIG`, `RTMIN+N`, or a number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = || NAMED.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        let numbered = || name.parse().ok().filter(|number| NAMED.iter().any(|(_, known)| known == number));
        let real_time_one = || {
            let offset: c_int = name.strip_prefix("RTMIN+")?.parse().ok()?;
            libc::SIGRTMIN().checked_add(offset).filter(|number| real_time().contains(number))
        };
        let number = match name {
            "KILL" | "9" => Some(libc::SIGKILL),
            _ => named().or_else(numbered).or_else(real_time_one),
        };
        number
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no signal that can stop a program; such as TERM, QUIT, INT, RTMIN+3"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_read_as_kill_reads_them() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGQUIT", 3),
            ("sigint", 2),
            ("3", 3),
            ("9", 9),
            ("KILL", 9),
            ("RTMIN+3", libc::SIGRTMIN() + 3),
            ("SIGRTMIN+0", libc::SIGRTMIN()),
        ] {
            assert_eq!(text.parse(), Ok(StopSignal(number)), "{text}");
        }
        for text in ["", "SIG", "CHLD", "SEGV", "0", "-1", "99", "RTMIN+99", "RTMIN+-1", "RTMIN+2147483647", "TERM "] {
            assert!(text.parse::<StopSignal>().is_err(), "{text}");
        }
    }
}
