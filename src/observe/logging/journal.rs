//! The journal of systemd takes the priority of a line from its beginning, and the rest as the message (sd-daemon(3)).

use std::{env, io};

use rustix::fs::fstat;
use tracing::Level;

/// Whether stderr is the journal's: systemd gives device and inode of the stream that it made (systemd.exec(5)). Another
/// program in between, such as a shell's redirection, has another stream.
pub(super) fn reads_stderr() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// The priority of syslog(3).
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}
