//! A user who may read or replace a key may use the identity: accepted modes of its file, and repairs of others.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;

use super::{Error, Wrong};
use crate::credentials::files::Content;

/// How the owner of a file has to change its mode. Depends on where the file is: `chmod` does not work in a mounted
/// secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A volume of Kubernetes, known by the links of its `..data`.
    Volume,
    /// The file system is mounted read-only.
    ReadOnly(PathBuf),
    /// To be run by this process's user, or by root.
    Chmod(&'static str, PathBuf),
    /// To be run by the owner, which is another user.
    ByOwner(u32, PathBuf),
}

const ROOT: u32 = 0;
/// Of the owner root: write and execute for the group, everything for others. A group may read root's file because only
/// root decides who is in it: PostgreSQL takes the keys of servers and clients by the same rule (libpq, "SSL Support").
const LOOSE_OF_ROOT: u32 = 0o037;
/// Of any other owner: everything for group and others.
const LOOSE: u32 = 0o077;

pub(super) fn check(file: &Path, content: &Content, loose_is_fine: bool) -> Result<(), Error> {
    let loose = if content.owner == ROOT { LOOSE_OF_ROOT } else { LOOSE };
    if loose_is_fine || content.mode & loose == 0 {
        return Ok(());
    }
    let remedy = remedy(file, content.owner, rustix::process::geteuid().as_raw());
    Err(Error { file: file.into(), what: Wrong::LooseKeyPermissions { mode: content.mode, remedy } })
}

fn remedy(file: &Path, owner: u32, user: u32) -> Remedy {
    if file.parent().is_some_and(|folder| folder.join("..data").is_symlink()) {
        return Remedy::Volume;
    }
    let read_only = rustix::fs::statvfs(file).is_ok_and(|it| it.f_flag.contains(StatVfsMountFlags::RDONLY));
    match () {
        () if read_only => Remedy::ReadOnly(file.into()),
        () if owner == user || user == ROOT => Remedy::Chmod("0600", file.into()),
        // With 0600 this process could not read it.
        () if owner == ROOT => Remedy::Chmod("0640", file.into()),
        () => Remedy::ByOwner(owner, file.into()),
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume => {
                f.write_str("set `defaultMode: 0400` on the volume of the secret, or 0440 with an `fsGroup` of the pod")
            }
            Self::ReadOnly(file) => {
                write!(
                    f,
                    "{} is on a read-only file system: mount it with mode 0400, or 0440 as root's",
                    file.display()
                )
            }
            Self::Chmod("0600", file) => write!(f, "run `chmod 0600 {}`", file.display()),
            Self::Chmod(mode, file) => write!(f, "run as root `chmod {mode} {}`", file.display()),
            Self::ByOwner(owner, file) => {
                write!(f, "have its owner (uid {owner}) run `chmod 0600 {}`, or give it to this user", file.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_fits_the_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tls.key");
        std::fs::write(&file, "key").expect("it is written");
        for (owner, user, words) in
            [(7, 7, "`chmod 0600 "), (7, ROOT, "`chmod 0600 "), (ROOT, 7, "as root `chmod 0640"), (8, 7, "uid 8")]
        {
            let text = remedy(&file, owner, user).to_string();
            assert!(text.contains(words), "{owner} {user}: {text}");
        }
        std::os::unix::fs::symlink("..1", folder.path().join("..data")).expect("a link");
        assert!(remedy(&file, ROOT, 7).to_string().contains("defaultMode"));
    }
}
