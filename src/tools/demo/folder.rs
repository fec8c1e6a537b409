//! A folder for nobody else, which goes away.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::tools::demo::Error;

/// A folder with mode 0700 among the temporary files. It is removed when this value is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self, Error> {
        // mkdir fails where anything exists, so that a guessed name gains an attacker nothing.
        let path = std::env::temp_dir().join(format!("egret-demo-{:016x}", fastrand::u64(..)));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|cause| Error::Folder { path: path.clone(), cause })?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a new file that only its owner may read.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.0.join(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match opened.and_then(|mut file| file.write_all(text.as_bytes())) {
            Ok(()) => Ok(path),
            Err(cause) => Err(Error::Folder { path, cause }),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Somebody else may have removed it; nobody is left who could do more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn folder_and_files_are_the_owners_alone_and_go_away() {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = Folder::new().unwrap();
        let file = folder.write("a.key", "secret").unwrap();
        assert_eq!((mode(folder.path()), mode(&file)), (0o700, 0o600));
        assert!(folder.write("a.key", "another").is_err(), "a file is written once");
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
