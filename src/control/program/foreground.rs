//! The terminal: the program's process group is in the foreground, as if a shell had started it.

use std::io::{IsTerminal, stdin, stdout};

use rustix::fs::{FileType, fstat};
use rustix::process::Pid;
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::resume;
use crate::net;

/// The terminal on standard input, which was handed to the program.
pub(super) struct Foreground {
    /// The process group of egret.
    own: Pid,
}

impl Foreground {
    /// The terminal, if the program is to have it. `None` if standard input is no terminal of this session, if another
    /// group or one of another PID namespace is in the foreground, or if standard output is a pipe: then the next program
    /// of the pipeline needs the terminal.
    pub(super) fn to_hand_over() -> Option<Self> {
        let own = Pid::from_raw(net::own_process_group()?)?;
        let is_in_pipeline =
            fstat(stdout()).is_ok_and(|stdout| FileType::from_raw_mode(stdout.st_mode) == FileType::Fifo);
        let is_ours = stdin().is_terminal() && tcgetpgrp(stdin()) == Ok(own);
        (is_ours && !is_in_pipeline).then_some(Self { own })
    }

    fn give(&self, group: Pid) {
        if let Err(error) = tcsetpgrp(stdin(), group) {
            tracing::warn!(%error, "the terminal is not handed to the program");
        }
        resume(group);
    }

    /// For a shell script that goes on after egret.
    pub(super) fn take_back(&self) {
        // The terminal may be gone.
        let _ = tcsetpgrp(stdin(), self.own);
    }

    /// The terminal has stopped the program (Ctrl-Z). egret stops too, so that the shell sees a stopped job; when the
    /// shell continues it, the program goes on. Without a shell, which is so if egret leads the session, the program goes
    /// on at once.
    pub(super) fn suspend(&self, group: Pid) {
        if net::leads_session() {
            return resume(group);
        }
        self.take_back();
        tracing::info!("stopped by the terminal");
        net::stop_until_continued();
        // Continued: in the foreground, or in the background.
        match tcgetpgrp(stdin()) == Ok(self.own) {
            true => self.give(group),
            false => resume(group),
        }
    }
}
