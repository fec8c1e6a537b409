//! The content of a watched path, as a digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use crate::control::disk::Running;
use crate::credentials::files;

/// The content of a path. Two are equal if a reader of the path would read the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Missing,
    Empty,
    /// The path exists and cannot be read; the kind of error distinguishes refusals.
    Unreadable(io::ErrorKind),
    /// SHA-256 over the bytes and the permissions of a file, or of the files of a folder.
    Digest([u8; 32]),
}

impl Content {
    pub(super) fn is_void(&self) -> bool {
        matches!(self, Self::Missing | Self::Empty)
    }
}

/// Reads all files. A file on a disk that hangs counts as unreadable until it has been read.
pub(super) fn read(reading: &Arc<Running<PathBuf>>, files: &[PathBuf]) -> BTreeMap<PathBuf, Content> {
    let contents = reading.each(files.to_vec(), |file| content(file)).into_iter();
    let contents = contents.map(|content| content.unwrap_or(Content::Unreadable(io::ErrorKind::TimedOut)));
    files.iter().cloned().zip(contents).collect()
}

/// More than the largest bundle of roots (1 MiB) or revocation list (some MiB) that is in common use.
/// Of a longer file the rest is known by length and time of modification only.
const MAX_READ: u64 = 16 << 20;

/// About ten times the folder of roots of a Debian system (some 450 links). Further files are not read.
const MAX_ENTRIES: usize = 4096;

fn content(path: &Path) -> Content {
    let mut digest = Context::new(&SHA256);
    let added = match fs::metadata(path) {
        Ok(about) if about.is_dir() => add_folder(&mut digest, path),
        Ok(about) if about.len() == 0 && about.is_file() => return Content::Empty,
        Ok(about) => add_file(&mut digest, path, &about),
        Err(error) => Err(error),
    };
    match added {
        Ok(()) => Content::Digest(digest.finish().as_ref().try_into().expect("SHA-256 is 32 bytes")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Content::Missing,
        Err(error) => Content::Unreadable(error.kind()),
    }
}

/// The files directly in a folder, in the order of their names; folders in it are not entered.
fn add_folder(digest: &mut Context, folder: &Path) -> io::Result<()> {
    let names: io::Result<BTreeSet<_>> =
        fs::read_dir(folder)?.take(MAX_ENTRIES).map(|entry| entry.map(|entry| entry.file_name())).collect();
    for name in names? {
        let path = folder.join(&name);
        // A file of a folder that cannot be read is absent from the digest.
        if let Ok(about) = fs::metadata(&path)
            && about.is_file()
        {
            digest.update(&(name.len() as u64).to_le_bytes());
            digest.update(name.as_encoded_bytes());
            let _ = add_file(digest, &path, &about);
        }
    }
    Ok(())
}

fn add_file(digest: &mut Context, path: &Path, about: &Metadata) -> io::Result<()> {
    let (file, _) = files::open(path).map_err(|error| match error {
        files::Error::Unreadable(error) => error,
        _ => io::ErrorKind::InvalidInput.into(),
    })?;
    // Room for all of it at once: a vector that grows leaves copies behind, and it may be a key.
    let length = usize::try_from(about.len().min(MAX_READ)).unwrap_or(0);
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(length));
    file.take(MAX_READ).read_to_end(&mut bytes)?;
    digest.update(&about.mode().to_le_bytes());
    digest.update(&(bytes.len() as u64).to_le_bytes());
    digest.update(&bytes);
    if about.len() > MAX_READ {
        digest.update(&about.len().to_le_bytes());
        digest.update(&about.mtime().to_le_bytes());
        digest.update(&about.mtime_nsec().to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_changes_with_its_files_and_not_with_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("a.pem"), "one").unwrap();
        let before = content(path);

        fs::create_dir(path.join("inner")).unwrap();
        fs::write(path.join("inner/b.pem"), "two").unwrap();
        assert_eq!(content(path), before);

        symlink("inner/b.pem", path.join("b.pem")).unwrap();
        let with_b = content(path);
        assert_ne!(with_b, before);
        fs::rename(path.join("b.pem"), path.join("c.pem")).unwrap();
        assert_ne!(content(path), with_b);
    }

    #[test]
    fn permissions_count_and_times_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        fs::write(&file, "key").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let loose = content(&file);
        fs::write(&file, "key").unwrap();
        assert_eq!(content(&file), loose);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_ne!(content(&file), loose);
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        assert_eq!(content(Path::new("/dev/zero")), Content::Unreadable(io::ErrorKind::InvalidInput));
        assert_eq!(content(Path::new("/dev/null/x")), Content::Unreadable(io::ErrorKind::NotADirectory));
        assert_eq!(content(Path::new("/nothing-here")), Content::Missing);
    }
}
