//! The memory that the process may use, and how it is shared out: buffers, connections, sessions, sockets.
//!
//! A container's limit is seldom the machine's: what exceeds it is killed with every stream. So the smallest limit on
//! the path of nested control groups counts, and half of it is the budget. A quarter is for the kernel's buffers of
//! sockets, which a control group of version 2 is charged for; the rest is for the program itself, its queues (log, key
//! log, admin, DNS: 5 MiB at most), pipes of pass-through streams and what the allocator keeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a connection holds at most in the smallest buffers, one for each direction (18.5 KiB each), with its task and
/// its TLS session (9 KiB by measurement, `docs/hot-path.md`).
const CONNECTION: u64 = 48 << 10;
/// What a warm connection holds at most: its task and session, and a greeting of 16 KiB.
const WARM: u64 = 32 << 10;
/// What the kernel's four buffers of a connection hold together at least (two sides, two directions; 8 KiB each). The kernel
/// counts 2,304 bytes for a segment of 1,460, so that three of them fit.
const SOCKETS: u64 = 32 << 10;
/// A smaller budget bounds the kernel's buffers. The kernel lets those of one stalled stream grow to 8.5 MiB (measured with a
/// client that read 4 MiB and stopped): 8 such streams fill a container of 64 MiB; bounded, 20 hold 2 MiB. A larger budget
/// leaves the sizes to the kernel, since every bound costs throughput on long paths.
const SMALL: u64 = 128 << 20;
/// Not less than 1 + 1/2 + 1/3 + ... + 1/n for the most connections of a small budget, n = 1024.
const HARMONIC: usize = 8;
/// Bytes of all pipes: what Linux grants one user (`pipe-user-pages-soft`, pipe(7)).
const MOST_PIPES: u64 = 64 << 20;
/// Buffers above the smallest, all streams together: 64 MiB are some 250 of the largest. More are needed only while
/// that many peers are slow at the same time.
const MOST_BUFFERS: u64 = 64 << 20;
/// Sessions for resumption, of a budget up to 1 GiB. Twelve origins may be full, a thousand have room for a dozen each.
const USUAL_SESSIONS: u64 = 32 << 20;
/// Sessions of the largest budgets: 100,000 tickets with a short chain take 148 MiB (`docs/scale.md`).
const MOST_SESSIONS: u64 = 256 << 20;
/// scrypt with the largest memory that OWASP recommends (N = 2^17, r = 8, p = 1) takes 128 MiB; with OpenSSL's
/// default (N = 2^14) 16 MiB.
const MOST_DERIVATION: u64 = 128 << 20;

static BUFFERS: AtomicUsize = AtomicUsize::new(MOST_BUFFERS as usize);
static SESSIONS: AtomicUsize = AtomicUsize::new(USUAL_SESSIONS as usize);
static PIPES: AtomicUsize = AtomicUsize::new(MOST_PIPES as usize);
static WARMED: AtomicUsize = AtomicUsize::new(usize::MAX);
static SPARE_SOCKETS: AtomicUsize = AtomicUsize::new(UNBOUNDED);

/// The kernel decides.
const UNBOUNDED: usize = usize::MAX;

/// The memory that this process may use, and what limits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// In bytes.
    pub(crate) bytes: u64,
    /// The file that holds the limit.
    pub(crate) source: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Connections at once, those whose handshake is under way among them.
    pub(crate) connections: usize,
    buffers: usize,
    sessions: usize,
    warm: usize,
    pipes: usize,
    /// Bytes of kernel buffers beyond each connection's minimum; `None`: not bounded.
    sockets: Option<usize>,
}

impl Shares {
    /// Shares out `budget` bytes; a part is for up to `warm` warm connections.
    pub(crate) fn of(budget: u64, warm: usize) -> Self {
        let buffers = (budget / 4).min(MOST_BUFFERS);
        // Of 1 GiB both are the same.
        let sessions = (budget / 8).min(USUAL_SESSIONS).max(budget / 32).min(MOST_SESSIONS);
        let kept_warm = (budget / 8).min(warm as u64 * WARM);
        let left = budget - buffers - sessions - kept_warm;
        let (connections, sockets) = match budget < SMALL {
            true => {
                let connections = (left / CONNECTION).min(budget / 4 / SOCKETS);
                (connections, Some(budget / 2 - connections * SOCKETS))
            }
            false => (left / CONNECTION, None),
        };
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            connections: size(connections).max(1),
            buffers: size(buffers),
            sessions: size(sessions),
            warm: size(budget / 8 / WARM).max(1),
            pipes: size((budget / 8).min(MOST_PIPES)),
            sockets: sockets.map(size),
        }
    }

    pub(crate) fn apply(self) {
        BUFFERS.store(self.buffers, Ordering::Relaxed);
        SESSIONS.store(self.sessions, Ordering::Relaxed);
        WARMED.store(self.warm, Ordering::Relaxed);
        PIPES.store(self.pipes, Ordering::Relaxed);
        SPARE_SOCKETS.store(self.sockets.unwrap_or(UNBOUNDED), Ordering::Relaxed);
    }
}

/// Bytes of each of the kernel's buffers of one more stream, where there are `streams` with it; `None`: the kernel decides.
/// The more streams there are, the less a new one gets.
pub(crate) fn for_socket_buffer(streams: usize) -> Option<usize> {
    let spare = SPARE_SOCKETS.load(Ordering::Relaxed);
    (spare != UNBOUNDED).then(|| socket_buffer(spare, streams))
}

/// Bytes of the kernel's receive buffer of a connection that waits to be accepted; `None`: the kernel decides.
pub(crate) fn for_waiting_socket() -> Option<usize> {
    (SPARE_SOCKETS.load(Ordering::Relaxed) != UNBOUNDED).then_some(SOCKETS as usize / 4)
}

/// The k-th of the open streams began when at least k were open. So their sum is bounded by the harmonic series, in
/// whatever order others ended.
fn socket_buffer(spare: usize, streams: usize) -> usize {
    (SOCKETS as usize + spare / (HARMONIC * streams.max(1))) / 4
}

pub(crate) fn for_warm() -> usize {
    WARMED.load(Ordering::Relaxed)
}

pub(crate) fn for_pipes() -> usize {
    PIPES.load(Ordering::Relaxed)
}

pub(crate) fn for_buffers() -> usize {
    BUFFERS.load(Ordering::Relaxed)
}

pub(crate) fn for_key_derivation() -> u64 {
    limit().map_or(MOST_DERIVATION, |limit| (limit.bytes / 4).min(MOST_DERIVATION))
}

pub(crate) fn for_sessions() -> usize {
    SESSIONS.load(Ordering::Relaxed)
}

/// The smallest limit of this process's control groups, or the machine's memory. `None`: neither is known.
pub(crate) fn limit() -> Option<Limit> {
    limit_below(Path::new("/"))
}

/// As [`limit`], with `proc` and the control groups below `root`.
fn limit_below(root: &Path) -> Option<Limit> {
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let groups = text("proc/self/cgroup");
    let mounts = text("proc/self/mountinfo");
    let limits = hierarchies(&groups, &mounts).into_iter().flat_map(|hierarchy| hierarchy.limits(root));
    limits.chain(machine(root)).min_by_key(|limit| limit.bytes)
}

/// One tree of control groups that limits memory, and where this process is in it.
struct Hierarchy<'a> {
    mount: &'a str,
    /// The group that is mounted there: in a container, not the root of the tree.
    root: &'a str,
    group: &'a str,
    files: &'static [&'static str],
}

/// Of version 2: `high` throttles until nothing moves, `max` kills.
const UNIFIED: &[&str] = &["memory.max", "memory.high"];
/// Of version 1.
const LEGACY: &[&str] = &["memory.limit_in_bytes"];

/// Those of cgroups(7), by `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn hierarchies<'a>(groups: &'a str, mounts: &'a str) -> Vec<Hierarchy<'a>> {
    mounts.lines().filter_map(|line| hierarchy(groups, line)).collect()
}

fn hierarchy<'a>(groups: &'a str, mount: &'a str) -> Option<Hierarchy<'a>> {
    let (before, after) = mount.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let root = fields.next()?;
    let mount = fields.next()?;
    let mut fields = after.split(' ');
    let kind = fields.next()?;
    let options = fields.nth(1)?;
    let is_memory = |list: &str| list.split(',').any(|controller| controller == "memory");
    let (files, is_ours): (_, fn(&str, &str) -> bool) = match kind {
        "cgroup2" => (UNIFIED, |id, _| id == "0"),
        "cgroup" if is_memory(options) => (LEGACY, |_, list| list.split(',').any(|name| name == "memory")),
        _ => return None,
    };
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let id = fields.next()?;
        let list = fields.next()?;
        let group = fields.next()?;
        is_ours(id, list).then_some(group)
    })?;
    Some(Hierarchy { mount, root, group, files })
}

impl Hierarchy<'_> {
    /// The limits of the group and of those around it, as far as they are mounted.
    fn limits(&self, root: &Path) -> Vec<Limit> {
        let mount = root.join(self.mount.trim_start_matches('/'));
        let inside = Path::new(self.group).strip_prefix(self.root).unwrap_or_else(|_| Path::new(""));
        let inside = inside.strip_prefix("/").unwrap_or(inside);
        let folders = inside.ancestors().map(|group| mount.join(group));
        folders.flat_map(|folder| self.files.iter().filter_map(move |file| read(folder.join(file)))).collect()
    }
}

/// `None` for `max` and for the largest number of version 1: both mean no limit.
fn read(file: PathBuf) -> Option<Limit> {
    let bytes = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
    Some(Limit { bytes, source: file })
}

fn machine(root: &Path) -> Option<Limit> {
    let source = root.join("proc/meminfo");
    let text = fs::read_to_string(&source).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Limit { bytes: kib.checked_mul(1024)?, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
    const V1: &str = "36 32 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      37 32 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      38 32 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn limit_with(groups: &str, mounts: &str, files: &[(&str, &str)]) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let standard =
            [("proc/self/cgroup", groups), ("proc/self/mountinfo", mounts), ("proc/meminfo", "MemTotal: 1048576 kB\n")];
        for (path, text) in standard.iter().chain(files) {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        limit_below(folder.path()).unwrap().bytes / MIB
    }

    #[test]
    fn the_smallest_limit_on_the_path_counts() {
        let small = "67108864\n";
        let large = "268435456\n";
        for (groups, mounts, files, wanted) in [
            ("0::/\n", V2, &[][..], 1024),
            ("0::/a/b\n", V2, &[("sys/fs/cgroup/a/b/memory.max", small)][..], 64),
            ("0::/a/b\n", V2, &[("sys/fs/cgroup/a/memory.max", small), ("sys/fs/cgroup/a/b/memory.max", "max\n")], 64),
            ("0::/a/b\n", V2, &[("sys/fs/cgroup/a/memory.max", small), ("sys/fs/cgroup/a/b/memory.max", large)], 64),
            ("0::/a\n", V2, &[("sys/fs/cgroup/a/memory.max", large), ("sys/fs/cgroup/a/memory.high", small)], 64),
            ("0::/a\n", V2, &[("sys/fs/cgroup/other/memory.max", small)], 1024),
            ("0::/\n", V2, &[("sys/fs/cgroup/memory.max", large)], 256),
            ("4:memory:/a\n0::/\n", V1, &[("sys/fs/cgroup/memory/a/memory.limit_in_bytes", small)], 64),
            ("4:cpu,memory:/a/b\n", V1, &[("sys/fs/cgroup/memory/a/memory.limit_in_bytes", small)], 64),
            ("4:memory:/a\n", V1, &[("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n")], 1024),
            ("4:memory:/a\n", V1, &[("sys/fs/cgroup/cpu/a/memory.limit_in_bytes", small)], 1024),
        ] {
            assert_eq!(limit_with(groups, mounts, files), wanted, "{groups:?} {files:?}");
        }
    }

    /// In a container without its own cgroup namespace, the path is the host's, and the container's group is what is
    /// mounted.
    #[test]
    fn a_path_of_the_host_leads_to_what_is_mounted() {
        let mounts = "37 32 0:32 /docker/c1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        for groups in ["4:memory:/docker/c1\n", "4:memory:/elsewhere\n"] {
            let files = [("sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n")];
            assert_eq!(limit_with(groups, mounts, &files), 64, "{groups:?}");
        }
    }

    #[test]
    fn shares_stay_within_the_budget_at_every_size() {
        for (budget, warm) in
            [(0, 0), (MIB, 256), (16 * MIB, 0), (32 * MIB, 256), (32 * MIB, 9), (1 << 30, 0), (1 << 40, 256)]
        {
            let shares = Shares::of(budget, warm);
            let warm = warm.min(shares.warm) as u64 * WARM;
            let all = shares.connections as u64 * CONNECTION + shares.buffers as u64 + shares.sessions as u64 + warm;
            assert!(all <= budget.max(CONNECTION + WARM), "{all} of {budget}");
        }
        let large = Shares::of(1 << 40, 256);
        assert_eq!((large.buffers as u64, large.sessions as u64), (MOST_BUFFERS, MOST_SESSIONS));
        assert_eq!((large.pipes as u64, large.sockets), (MOST_PIPES, None));
        assert!(Shares::of(32 * MIB, 0).connections >= 250);
    }

    #[test]
    fn sessions_grow_with_a_budget_of_more_than_a_gibibyte() {
        for (budget, sessions) in [(64, 8), (256, 32), (512, 32), (1024, 32), (4096, 128), (8192, 256), (65536, 256)] {
            assert_eq!(Shares::of(budget * MIB, 0).sessions as u64, sessions * MIB, "{budget} MiB");
        }
    }

    #[test]
    fn the_buffers_of_all_sockets_stay_within_half_of_a_small_budget() {
        for budget in [4 * MIB, 16 * MIB, 32 * MIB, SMALL - 1] {
            let Shares { connections, sockets, .. } = Shares::of(budget, 0);
            let spare = sockets.unwrap();
            let all: usize = (1..=connections).map(|streams| 4 * socket_buffer(spare, streams)).sum();
            assert!(all as u64 <= budget / 2, "{all} of {budget} for {connections}");
            assert!(4 * socket_buffer(spare, connections) as u64 >= SOCKETS);
        }
    }
}
