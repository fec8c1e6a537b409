//! A control group with a limit of memory, for a program that has to live in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Removed with the value, which has to outlive the program.
pub(crate) struct Cgroup {
    folder: PathBuf,
}

/// The files of a version: the limit, that of swap with what it has to hold, and what has to be limited for sockets to be
/// counted.
struct Version {
    sockets: Option<&'static str>,
    limit: &'static str,
    swap: &'static str,
    swap_is_total: bool,
}

const V1: Version = Version {
    limit: "memory.limit_in_bytes",
    swap: "memory.memsw.limit_in_bytes",
    swap_is_total: true,
    sockets: Some("memory.kmem.tcp.limit_in_bytes"),
};
const V2: Version = Version { limit: "memory.max", swap: "memory.swap.max", swap_is_total: false, sockets: None };

impl Cgroup {
    /// Makes a group of so many bytes. Where none can be made the test fails, and says why: what it promises was not
    /// looked at.
    pub(crate) fn with_memory(bytes: u64) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("egret-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut errors = Vec::new();
        for (parent, version) in parents() {
            let group = Self { folder: parent.join(&name) };
            match group.make(&version, bytes) {
                Ok(()) => return group,
                Err(error) => errors.push(format!("{}: {error}", parent.display())),
            }
        }
        panic!("no control group with a limit of memory can be made here (it takes root): {errors:?}");
    }

    fn make(&self, version: &Version, bytes: u64) -> std::io::Result<()> {
        fs::create_dir(&self.folder)?;
        fs::write(self.folder.join(version.limit), bytes.to_string())?;
        if let Some(sockets) = version.sockets {
            fs::write(self.folder.join(sockets), (1_u64 << 40).to_string())?;
        }
        // A kernel that counts no swap has no such file.
        let swap = self.folder.join(version.swap);
        if swap.exists() {
            fs::write(swap, if version.swap_is_total { bytes } else { 0 }.to_string())?;
        }
        Ok(())
    }

    /// Bytes of the kernel's buffers of TCP sockets.
    pub(crate) fn sockets(&self) -> u64 {
        let read = |file| fs::read_to_string(self.folder.join(file));
        let number = match read("memory.kmem.tcp.usage_in_bytes") {
            Ok(number) => number,
            Err(_) => {
                let all = read("memory.stat").expect("one of the two versions");
                all.lines().find_map(|line| line.strip_prefix("sock ")).expect("it counts sockets").to_owned()
            }
        };
        number.trim().parse().expect("a number")
    }

    /// Where a process writes its number to be in the group.
    pub(crate) fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The program may take a moment to be gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() || !self.folder.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Groups that may have children with a limit of memory.
fn parents() -> Vec<(PathBuf, Version)> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    mounts.lines().filter_map(|line| parent(line, own)).collect()
}

fn parent(mount: &str, own: &str) -> Option<(PathBuf, Version)> {
    let fields: Vec<&str> = mount.split(' ').collect();
    let (folder, kind, options) = (Path::new(*fields.get(1)?), *fields.get(2)?, *fields.get(3)?);
    match kind {
        "cgroup" if options.split(',').any(|option| option == "memory") => Some((folder.into(), V1)),
        // A group with processes gives its children no controllers: one above it may.
        "cgroup2" => {
            let own = folder.join(own);
            let gives = |group: &&Path| {
                let control = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
                group.starts_with(folder) && control.split_whitespace().any(|name| name == "memory")
            };
            own.ancestors().find(gives).map(|group| (group.into(), V2))
        }
        _ => None,
    }
}
