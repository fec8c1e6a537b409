//! What the kernel counts of this process, under the names that the client libraries of Prometheus use.
//!
//! Read when they are asked for, and written as text: a `Counter` of the registry has no fractions of a second.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What is read when the process starts: with no descriptor left no file can be opened, and these metrics are wanted then.
pub(super) struct Process {
    memory: Option<File>,
    started: Option<f64>,
}

type Reading = fn(&Process) -> Option<f64>;

/// Name, type, help, and how the value is read; without a value the family is left out.
#[rustfmt::skip]
const FAMILIES: [(&str, &str, &str, Reading); 6] = [
    ("process_cpu_seconds_total", "counter", "User and system CPU time of the process, in seconds.", |_| cpu()),
    ("process_resident_memory_bytes", "gauge", "Resident memory of the process, in bytes.", |process| process.pages(1)),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory of the process, in bytes.", |process| process.pages(0)),
    ("process_open_fds", "gauge", "Open file descriptors.", |_| open_files()),
    ("process_max_fds", "gauge", "Most file descriptors that the process may open.", |_| most_files()),
    ("process_start_time_seconds", "gauge", "When the process started, as Unix time.", |process| process.started),
];

impl Process {
    pub(super) fn new() -> Self {
        Self { memory: File::open("/proc/self/statm").ok(), started: started() }
    }

    /// The families in the text format of Prometheus.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for (name, kind, help, read) in FAMILIES {
            if let Some(value) = read(self) {
                // Writing to a string cannot fail.
                let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
            }
        }
        text
    }

    /// A field of `/proc/self/statm`, in bytes. The kernel writes seven numbers of at most 20 digits.
    fn pages(&self, field: usize) -> Option<f64> {
        let mut text = [0; 7 * 21];
        let length = self.memory.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = str::from_utf8(&text[..length]).ok()?;
        let pages: f64 = text.split_whitespace().nth(field)?.parse().ok()?;
        Some(pages * page_size() as f64)
    }
}

fn cpu() -> Option<f64> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let time = Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?);
    Some(time.as_secs_f64())
}

/// Since Linux 6.2 the size of the folder is their number; before, it is 0. Reading the names of 100,000 descriptors
/// would take the admin endpoint tens of milliseconds each time.
fn open_files() -> Option<f64> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).ok()?.len() {
        0 => Some(fs::read_dir(folder).ok()?.count() as f64),
        count => Some(count as f64),
    }
}

/// The limit in force; without a limit, infinity.
fn most_files() -> Option<f64> {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(Some(f64::INFINITY), |limit| Some(limit as f64))
}

fn started() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let since_boot = ticks_of_start(&stat)? / clock_ticks_per_second() as f64;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + since_boot)
}

/// Field 22 of proc(5). The name in field 2 may hold spaces and parentheses, so counting begins after its end.
fn ticks_of_start(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        for name in ["egret", "e g r e t", "e) 1 (2", ")"] {
            let fields: String = (3..30).map(|field| format!(" {field}")).collect();
            assert_eq!(ticks_of_start(&format!("7 ({name}){fields}")), Some(22.0), "{name}");
        }
        assert_eq!(ticks_of_start("7 (egret) S 1"), None);
    }

    #[test]
    fn every_family_has_a_value_that_can_be() {
        let text = Process::new().render();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("no {name}:\n{text}")).parse().unwrap()
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_resident_memory_bytes") > 100_000.0, "{text}");
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"), "{text}");
        // btime has whole seconds, and the clock may have been set.
        let started = value("process_start_time_seconds");
        assert!(started > now - 86_400.0 && started < now + 2.0, "{started} {now}");
        assert_eq!(text.matches("# TYPE").count(), FAMILIES.len());
    }
}
