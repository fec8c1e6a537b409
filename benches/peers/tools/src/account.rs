//! Who used how much: CPU time and memory from /proc.

use std::fs;

use rustix::param::clock_ticks_per_second;

/// CPU seconds.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

impl Cpu {
    pub fn total(self) -> f64 {
        self.user + self.system
    }
}

/// What /proc/PID/stat says behind the program's name, which may hold anything: state, parent, ...
fn fields(pid: u32) -> Option<Vec<u64>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = line.rsplit_once(") ")?;
    Some(behind.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}

/// `root` and all that descend from it.
fn tree(root: u32) -> Vec<u32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u64)> = pids.filter_map(|pid| Some((pid, fields(pid)?[1]))).collect();
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(&parent) = tree.get(at) {
        tree.extend(parents.iter().filter(|(_, of)| *of == u64::from(parent)).map(|(pid, _)| *pid));
        at += 1;
    }
    tree
}

/// Time of a process and its descendants, reaped ones included.
pub fn cpu(root: u32) -> Cpu {
    let (mut user, mut system) = (0, 0);
    for stat in tree(root).into_iter().filter_map(fields) {
        // utime, stime, cutime, cstime: fields 14 to 17 of proc(5), of which `fields` leaves out two.
        user += stat[11] + stat[13];
        system += stat[12] + stat[14];
    }
    Cpu { user: seconds(user), system: seconds(system) }
}

/// Seconds that these processors were busy since boot, whoever used them.
pub fn busy(processors: &[u32]) -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let wanted = |line: &&str| processors.iter().any(|cpu| line.starts_with(&format!("cpu{cpu} ")));
    let busy = text.lines().filter(wanted).map(|line| {
        // user nice system idle iowait irq softirq steal; what follows is part of user and nice
        let times = line.split_whitespace().skip(1).take(8).map(|time| time.parse::<u64>().unwrap_or(0));
        times.enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, time)| time).sum::<u64>()
    });
    seconds(busy.sum())
}

/// KiB of memory of a process and its descendants; a page that n processes share counts as 1/n.
pub fn pss_kib(root: u32) -> u64 {
    let one = |pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse::<u64>().ok()
    };
    tree(root).into_iter().filter_map(one).sum()
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}
