//! Files of certificates and keys: read whole, bounded.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::secret::Secret;

/// A file of certificates and keys has a few KiB, a bundle of all public roots 250 KiB, a large
/// revocation list some MiB; what has more is another file, and must not fill the memory.
pub(crate) const MAX_FILE: u64 = 16 << 20;

/// The bytes of a file (they may be a key) and its mode: both of the file that was opened, so that a
/// swap between two looks cannot show the mode of another.
#[derive(Debug)]
pub(crate) struct Content {
    /// Not empty.
    pub(crate) bytes: Secret,
    /// The permission bits.
    pub(crate) mode: u32,
    /// The user that the file belongs to.
    pub(crate) owner: u32,
}

/// Why a file gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// More than [`MAX_FILE`].
    #[error("has more than {} MiB: not the file that was meant", MAX_FILE >> 20)]
    TooLarge,
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
}

/// Reads a file.
///
/// # Errors
/// It is missing, too large or empty.
pub(crate) fn read(path: &Path) -> Result<Content, Error> {
    let file = File::open(path).map_err(Error::Unreadable)?;
    let metadata = file.metadata().map_err(Error::Unreadable)?;
    if metadata.len() > MAX_FILE {
        return Err(Error::TooLarge);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(Error::Unreadable)?;
    if bytes.trim_ascii().is_empty() {
        return Err(Error::Empty);
    }
    Ok(Content { bytes: Secret::new(bytes), mode: metadata.permissions().mode() & 0o7777, owner: metadata.uid() })
}
