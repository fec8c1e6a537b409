//! The files that are read. A configuration may come from a stranger: what it names is read only if it is a regular
//! file of bounded size below one folder, and nothing of a key, a device or the process ever gets into memory.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refuses.
    #[error("{0}")]
    System(io::Error),
    /// It lies elsewhere, perhaps behind a symbolic link.
    #[error("it is outside of {}, the folder that is read (`--root DIR` names another)", .0.display())]
    Outside(PathBuf),
    /// A folder, a FIFO, a device or a socket.
    #[error("it is not a regular file")]
    NotRegular,
    /// More than [`LARGEST`] bytes.
    #[error("it is larger than {} MiB", LARGEST >> 20)]
    TooLarge,
    /// Not UTF-8, or with NUL bytes.
    #[error("it is not text in UTF-8")]
    NotText,
    /// A certificate or a key.
    #[error("it is a PEM file, not a configuration")]
    Pem,
}

impl ReadError {
    /// The file exists and is readable, and is no part of a configuration: such an `include` is an attack or a mistake.
    pub(crate) fn is_no_configuration(&self) -> bool {
        matches!(self, Self::NotRegular | Self::TooLarge | Self::NotText | Self::Pem)
    }
}

/// Where the files are. Tests have them in memory.
pub trait Files {
    /// The text of the file that the user named.
    ///
    /// # Errors
    /// It cannot be read, or is not text.
    fn main(&self, path: &Path) -> Result<String, ReadError> {
        self.read(path)
    }

    /// The text of a file that a configuration includes.
    ///
    /// # Errors
    /// It cannot be read, may not be read, or is not text.
    fn read(&self, path: &Path) -> Result<String, ReadError>;

    /// The names in a folder, in any order.
    ///
    /// # Errors
    /// It cannot be listed, or may not be.
    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadError>;

    /// The certificates of a file that a configuration names; it is only asked what they are, and never shown.
    fn certificates(&self, path: &Path) -> Option<String> {
        self.read(path).ok()
    }

    /// The permission bits of a key file, if it is there.
    fn mode(&self, _path: &Path) -> Option<u32> {
        None
    }

    /// What is equal for two paths of one file.
    fn identity(&self, path: &Path) -> PathBuf {
        path.to_path_buf()
    }
}

/// The files of this machine, below one folder.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
}

/// The largest file that is read; generated maps of a hundred thousand names have a few megabytes.
pub(crate) const LARGEST: u64 = 16 << 20;
/// The largest file of certificates: the roots of Mozilla have 220 KB.
const LARGEST_CERTIFICATES: u64 = 2 << 20;
/// Folders whose files are the kernel's answers, secrets of the process among them, and no configuration.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Folders of distributions' packages that their own configurations link to (Debian: `modules-enabled`).
const PACKAGES: [&str; 2] = ["/usr/share/nginx", "/usr/share/doc/stunnel4"];

impl Disk {
    /// Files below `root`; a symbolic link counts by what it points at.
    pub fn below(root: &Path) -> Self {
        let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
        Self { root: fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf()) }
    }

    /// The path without symbolic links, if it may be read.
    fn permitted(&self, path: &Path) -> Result<PathBuf, ReadError> {
        let real = fs::canonicalize(path).map_err(ReadError::System)?;
        let below = |folders: &[&str]| folders.iter().any(|folder| real.starts_with(folder));
        if below(&KERNEL) || !(real.starts_with(&self.root) || below(&PACKAGES)) {
            return Err(ReadError::Outside(self.root.clone()));
        }
        Ok(real)
    }
}

impl Files for Disk {
    fn main(&self, path: &Path) -> Result<String, ReadError> {
        // Standard input and the pipes of a shell are fine here: the user named them.
        text(fs::File::open(path).map_err(ReadError::System)?, LARGEST)
    }

    fn read(&self, path: &Path) -> Result<String, ReadError> {
        text(regular(&self.permitted(path)?)?, LARGEST)
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadError> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let entries = fs::read_dir(self.permitted(folder)?).map_err(ReadError::System)?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.take(MOST_NAMES).collect())
    }

    fn certificates(&self, path: &Path) -> Option<String> {
        let real = fs::canonicalize(path).ok()?;
        if KERNEL.iter().any(|folder| real.starts_with(folder)) {
            return None;
        }
        bounded(regular(&real).ok()?, LARGEST_CERTIFICATES).ok()
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        let about = fs::metadata(path).ok()?;
        about.is_file().then(|| about.permissions().mode() & 0o7777)
    }

    fn identity(&self, path: &Path) -> PathBuf {
        fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
    }
}

/// Names of one folder that are read: more than [`crate::tools::import::nginx::include`] would read.
const MOST_NAMES: usize = 10_000;

/// Opens regular files only. Non-blocking, since opening a FIFO would wait for its writer.
fn regular(path: &Path) -> Result<fs::File, ReadError> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(ReadError::System)?;
    match file.metadata().map_err(ReadError::System)?.is_file() {
        true => Ok(file),
        false => Err(ReadError::NotRegular),
    }
}

fn bounded(file: fs::File, most: u64) -> Result<String, ReadError> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(ReadError::System)?;
    if bytes.len() as u64 > most {
        return Err(ReadError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|_| ReadError::NotText)
}

fn text(file: fs::File, most: u64) -> Result<String, ReadError> {
    let text = bounded(file, most)?;
    if text.contains('\0') {
        return Err(ReadError::NotText);
    }
    if text.lines().any(|line| line.trim_start().starts_with("-----BEGIN ")) {
        return Err(ReadError::Pem);
    }
    Ok(text)
}
