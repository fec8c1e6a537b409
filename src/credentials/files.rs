//! Files of certificates and keys: read whole, bounded.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

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
    pub(crate) mode: u32,
    pub(crate) owner: u32,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// A pipe, a device, a folder; a link to one.
    #[error("cannot be read: it is {0} and no regular file")]
    NotRegular(&'static str),
    /// More than [`MAX_FILE`].
    #[error("has more than {} MiB: not the file that was meant", MAX_FILE >> 20)]
    TooLarge,
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
}

pub(crate) fn read(path: &Path) -> Result<Content, Error> {
    let (file, metadata) = open(path)?;
    if metadata.len() > MAX_FILE {
        return Err(Error::TooLarge);
    }
    // Room for all of it at once: a vector that grows leaves copies behind, and it may be a key.
    let mut bytes = Secret::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    // Its length may be another by now, and some file systems give none.
    file.take(MAX_FILE + 1).read_to_end(bytes.buffer()).map_err(Error::Unreadable)?;
    if bytes.expose().len() as u64 > MAX_FILE {
        return Err(Error::TooLarge);
    }
    if bytes.expose().trim_ascii().is_empty() {
        return Err(Error::Empty);
    }
    Ok(Content { bytes, mode: metadata.permissions().mode() & 0o7777, owner: metadata.uid() })
}

/// Opens a regular file and follows links. Opening a pipe would wait for its other end, reading a device may have no
/// end, and opening some devices is an action.
///
/// # Errors
/// The file is missing, may not be read, or is not regular.
pub(crate) fn open(path: &Path) -> Result<(File, Metadata), Error> {
    regular(&fs::metadata(path).map_err(Error::Unreadable)?)?;
    // It may have been replaced by a pipe meanwhile.
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(at_once).open(path);
    let file = match opened {
        // Leased to another process (a file server), which gives it back when it is asked to: that is waited for.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => File::open(path),
        opened => opened,
    };
    let file = file.map_err(Error::Unreadable)?;
    let metadata = file.metadata().map_err(Error::Unreadable)?;
    regular(&metadata)?;
    Ok((file, metadata))
}

fn regular(metadata: &Metadata) -> Result<(), Error> {
    let kind = metadata.file_type();
    if kind.is_file() { Ok(()) } else { Err(Error::NotRegular(word(kind))) }
}

fn word(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from(0o600)).expect("a pipe");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).expect("a link");
        for (path, what) in [(pipe.as_path(), "a pipe"), (&link, "a device"), (folder.path(), "a folder")] {
            assert!(matches!(read(path), Err(Error::NotRegular(kind)) if kind == what), "{what}");
        }
        let file = folder.path().join("file");
        fs::write(&file, "some").expect("it is written");
        std::os::unix::fs::symlink("file", folder.path().join("good")).expect("a link");
        assert_eq!(read(&folder.path().join("good")).expect("it is read").bytes.expose(), b"some");
    }

    #[test]
    fn a_file_that_grows_without_end_is_too_large() {
        // Of the length zero, and with more than is asked for.
        assert!(matches!(read(Path::new("/proc/self/pagemap")), Err(Error::TooLarge | Error::Unreadable(_))));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        File::create(&file).and_then(|file| file.set_len(MAX_FILE + 1)).expect("it is made");
        assert!(matches!(read(&file), Err(Error::TooLarge)));
    }
}
