//! The secrets of TLS sessions in a file, for Wireshark: in the format that NSS began (RFC 9850).
//!
//! Who has the file reads the traffic. It exists only where a person asked for it by a flag; nothing of the
//! configuration can.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustls::KeyLog;

use crate::originate::fingerprint::hex;

/// A file that every session's secrets are appended to.
pub struct KeyLogFile(Mutex<File>);

impl KeyLogFile {
    /// Opens or makes the file, for its owner alone.
    ///
    /// # Errors
    /// It cannot be written, or others may read it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let why = format!("others may read it (mode {mode:04o}); run: chmod 600 {}", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(Self(Mutex::new(file)))
    }
}

impl KeyLog for KeyLogFile {
    /// Blocks for the length of a write: a price of the flag.
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        // A full disk must not end streams; Wireshark will say what it lacks.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLogFile(..)")
    }
}
