//! The secrets of TLS sessions in a file, for Wireshark: in the format that NSS began (RFC 9850).
//!
//! With the file, the traffic can be read. It exists only if a flag asks for it; no configuration key does.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustls::KeyLog;

use crate::credentials::fingerprint::hex;
use crate::observe::metrics::Registry;
use crate::observe::writer::{Messages, Sink, Stream, Writer};

/// A file that every session's secrets are appended to, by a thread of its own.
pub struct KeyLogFile(Writer);

/// Bytes of secrets that wait for a disk or a FIFO's reader: some 1,000 sessions.
const CAPACITY: usize = 1 << 20;

impl KeyLogFile {
    /// Opens or makes the file, for its owner alone. A FIFO need not have a reader yet. Starts no thread.
    ///
    /// # Errors
    /// It cannot be written, or others may read it.
    pub fn open(path: &Path) -> io::Result<File> {
        // Opened for writing only, open(2) of a FIFO blocks until it has a reader. Non-blocking: a file may be replaced
        // by a FIFO before it is opened.
        let is_fifo = path.metadata().is_ok_and(|file| file.file_type().is_fifo());
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags of open(2) are those of an int");
        let mut options = OpenOptions::new();
        let file = options.read(is_fifo).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let why = format!("others may read it (mode {mode:04o}); run: chmod 600 {}", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(file)
    }

    /// Appends to the opened file from now on.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(file: File) -> io::Result<Self> {
        let lines = Lines { to: Stream::new(file), is_failing: false };
        Writer::start("key-log", CAPACITY, lines).map(Self)
    }

    pub(crate) fn count_dropped(&self, registry: &Registry) {
        self.0.count_with(registry.counter("egret_key_log_dropped_total", &[]));
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        self.0.push(line.as_bytes());
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLogFile(..)")
    }
}

struct Lines {
    to: Stream<File>,
    is_failing: bool,
}

impl Sink for Lines {
    /// A full disk ends no stream: the log has a line, and the lines are counted.
    fn write(&mut self, messages: &Messages) -> u64 {
        let lost = self.to.write(messages);
        match lost {
            0 if self.is_failing => tracing::info!("the key log is written again"),
            0 => {}
            _ if self.is_failing => {}
            lines => tracing::warn!(lines, "the key log cannot be written: secrets of sessions are missing in it"),
        }
        self.is_failing = lost > 0;
        lost
    }
}
