//! Landlock (landlock(7)): what the process may still do with files, ports, and processes outside.
//!
//! Reading is not restricted: a reload may name files in any folder. Nothing that egret does after its start writes, makes,
//! renames or executes a file, but for Unix sockets, which are made and removed in the folders that the configuration named
//! at the start. Ports are restricted where no reload can bring others: with a configuration by arguments or variables.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::{
    ABI, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::ports::Ports;

/// Rights on files of this version and of those before; the crate leaves out what the kernel does not know. Later ones are
/// about connecting to Unix sockets, which a supervisor's socket needs.
const KNOWN: ABI = ABI::V7;

/// Device and inode of a folder: a rule holds for the folder, and not for another one that takes its place.
type Folder = (u64, u64);

/// The folders in which sockets may be made and removed, once that is restricted.
static SOCKET_FOLDERS: OnceLock<Vec<Folder>> = OnceLock::new();

/// Whether this process may make no socket there, whatever the system says.
pub(crate) fn forbids_socket(path: &Path) -> bool {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    let is_known = |known: &Vec<Folder>| {
        let above = folder.iter().flat_map(|folder| folder.ancestors());
        above.filter_map(identity).any(|folder| known.contains(&folder))
    };
    folder.is_some() && SOCKET_FOLDERS.get().is_some_and(|known| !is_known(known))
}

fn identity(folder: &Path) -> Option<Folder> {
    folder.metadata().ok().map(|folder| (folder.dev(), folder.ino()))
}

/// What is restricted.
pub(super) struct Restrictions {
    pub(super) sockets: Vec<PathBuf>,
    /// `None`: a reload may bring others.
    pub(super) ports: Option<Ports>,
    pub(super) scopes: BitFlags<Scope>,
}

/// Why a restriction is not in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("this kernel has no Landlock, or a sandbox around egret hides it")]
    NotImplemented,
    #[error("Landlock is switched off in this kernel")]
    NotEnabled,
    #[error("this kernel's Landlock does not know it")]
    NotKnown,
    #[error("{0}")]
    Refused(#[from] RulesetError),
}

/// Restricts this thread, and those that it starts from now on. Files, ports, scopes: each has its result, since kernels
/// learnt them one after the other.
pub(super) fn restrict(what: &Restrictions) -> Vec<(&'static str, Result<(), Error>)> {
    let mut results = vec![("files", files(&what.sockets))];
    if let Some(ports) = &what.ports {
        results.push(("ports", enforced(restricted_ports(ports))));
    }
    results.push(("scopes", enforced(scoped(what.scopes))));
    results
}

fn files(sockets: &[PathBuf]) -> Result<(), Error> {
    let known = sockets.iter().filter_map(|folder| identity(folder)).collect();
    enforced(restricted_files(sockets))?;
    // Set once: the process has one start.
    let _ = SOCKET_FOLDERS.set(known);
    Ok(())
}

fn restricted_files(folders: &[PathBuf]) -> Result<RulesetCreated, RulesetError> {
    let changes = AccessFs::from_write(KNOWN) | AccessFs::Execute;
    let rules = folders.iter().filter_map(|folder| PathFd::new(folder).ok());
    let rules = rules.map(|folder| PathBeneath::new(folder, AccessFs::MakeSock | AccessFs::RemoveFile));
    Ruleset::default().handle_access(changes)?.create()?.add_rules(rules.map(Ok::<_, RulesetError>))
}

fn restricted_ports(ports: &Ports) -> Result<RulesetCreated, RulesetError> {
    let mut handled = BitFlags::from(AccessNet::BindTcp);
    if ports.connect.is_some() {
        handled |= AccessNet::ConnectTcp;
    }
    let connect = ports.connect.iter().flatten().map(|port| NetPort::new(*port, AccessNet::ConnectTcp));
    let bind = ports.bind.iter().map(|port| NetPort::new(*port, AccessNet::BindTcp));
    let rules = connect.chain(bind).map(Ok::<_, RulesetError>);
    Ruleset::default().handle_access(handled)?.create()?.add_rules(rules)
}

fn scoped(scopes: BitFlags<Scope>) -> Result<RulesetCreated, RulesetError> {
    Ruleset::default().scope(scopes)?.create()
}

fn enforced(ruleset: Result<RulesetCreated, RulesetError>) -> Result<(), Error> {
    let status = ruleset?.restrict_self()?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced, _) => Ok(()),
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Err(Error::NotEnabled),
        (RulesetStatus::NotEnforced, LandlockStatus::NotImplemented) => Err(Error::NotImplemented),
        (RulesetStatus::NotEnforced, LandlockStatus::Available { .. }) => Err(Error::NotKnown),
    }
}

/// Folders that systemd has made for this unit: sockets of a later reload go there.
pub(super) fn runtime_folders() -> impl Iterator<Item = PathBuf> {
    let folders = env::var_os("RUNTIME_DIRECTORY");
    folders.into_iter().flat_map(|folders| env::split_paths(&folders).collect::<Vec<_>>())
}
