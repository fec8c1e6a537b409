//! System calls that the process may no longer make (seccomp(2)).
//!
//! A list of what is forbidden, and not of what is allowed. An allowed list would have to name every call that the C library,
//! the runtime and the cryptography of any version make on any kernel: with the next version of one of them a stream breaks
//! that worked, far from the place that is to blame. What is forbidden has to be complete only against what code of a stranger
//! could use, and these calls have one thing in common: no version of a network proxy has a use for them. They start programs,
//! reach into other processes, change mounts, namespaces, users, keys, the clock or the kernel.
//!
//! A forbidden call fails with EPERM, and its thread goes on. The kernel reports the call by a signal (SIGSYS), and egret logs
//! its name. To end the process instead would give one fault of a library the power to end every stream.
//!
//! The kernel remembers for each call that is allowed without a look at its arguments that it is: those cost a test of one
//! bit. Only `clone` is judged by its arguments, and only threads are begun with it.
//!
//! A process that `clone` would begin is refused without a signal: the C library blocks all signals around it, and SIGSYS that
//! is blocked ends the process.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::time::Duration;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::net;

/// Forbidden whatever the arguments.
const FORBIDDEN: &[(&str, c_long)] = &[
    // Programs.
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    #[cfg(target_arch = "x86_64")]
    ("fork", libc::SYS_fork),
    #[cfg(target_arch = "x86_64")]
    ("vfork", libc::SYS_vfork),
    // Other processes.
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("process_madvise", libc::SYS_process_madvise),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("kcmp", libc::SYS_kcmp),
    // Mounts and namespaces.
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("open_tree", libc::SYS_open_tree),
    ("fsopen", libc::SYS_fsopen),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fspick", libc::SYS_fspick),
    // Files past their paths.
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("fanotify_init", libc::SYS_fanotify_init),
    // Users and groups.
    ("setuid", libc::SYS_setuid),
    ("setgid", libc::SYS_setgid),
    ("setreuid", libc::SYS_setreuid),
    ("setregid", libc::SYS_setregid),
    ("setresuid", libc::SYS_setresuid),
    ("setresgid", libc::SYS_setresgid),
    ("setfsuid", libc::SYS_setfsuid),
    ("setfsgid", libc::SYS_setfsgid),
    ("setgroups", libc::SYS_setgroups),
    // Keys of the kernel.
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("keyctl", libc::SYS_keyctl),
    // The kernel itself, and parts of it in which most faults of the last years were.
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("delete_module", libc::SYS_delete_module),
    ("kexec_load", libc::SYS_kexec_load),
    #[cfg(target_arch = "x86_64")]
    ("kexec_file_load", libc::SYS_kexec_file_load),
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("reboot", libc::SYS_reboot),
    ("swapon", libc::SYS_swapon),
    ("swapoff", libc::SYS_swapoff),
    ("syslog", libc::SYS_syslog),
    ("acct", libc::SYS_acct),
    ("quotactl", libc::SYS_quotactl),
    ("personality", libc::SYS_personality),
    #[cfg(target_arch = "x86_64")]
    ("iopl", libc::SYS_iopl),
    #[cfg(target_arch = "x86_64")]
    ("ioperm", libc::SYS_ioperm),
    #[cfg(target_arch = "x86_64")]
    ("modify_ldt", libc::SYS_modify_ldt),
    // The clock and the names of the machine.
    ("settimeofday", libc::SYS_settimeofday),
    ("clock_settime", libc::SYS_clock_settime),
    ("adjtimex", libc::SYS_adjtimex),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("sethostname", libc::SYS_sethostname),
    ("setdomainname", libc::SYS_setdomainname),
];

/// Answered as by a kernel that does not have them, for which every caller has another way. The arguments of `clone3` are in
/// memory, where a filter cannot judge them: the C library then uses `clone`. `io_uring` makes calls past every filter.
const ABSENT: &[c_long] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Why the calls are not restricted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("there is no list for this processor ({ARCH})")]
    Processor,
    #[error("SIGSYS cannot be received: {0}")]
    Signal(#[from] std::io::Error),
    #[error("{0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("{0}")]
    Refused(#[from] seccompiler::Error),
}

/// Restricts this thread, and those that it starts from now on.
pub(super) fn restrict() -> Result<(), Error> {
    let processor = TargetArch::try_from(ARCH).map_err(|_| Error::Processor)?;
    let filters = [forbidden(processor)?, absent(processor)?];
    net::note_refused_calls()?;
    filters.iter().try_for_each(|filter| apply_filter(filter))?;
    #[cfg(target_arch = "x86_64")]
    apply_filter(&of_x32())?;
    Ok(())
}

fn forbidden(processor: TargetArch) -> Result<BpfProgram, Error> {
    let rules = FORBIDDEN.iter().map(|(_, number)| (*number, Vec::new())).collect();
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trap, processor)?.try_into()?)
}

fn absent(processor: TargetArch) -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = ABSENT.iter().map(|number| (*number, Vec::new())).collect();
    // A process, where a thread is meant.
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    let no_thread = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_thread])?]);
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, absent, processor)?.try_into()?)
}

/// The same calls have other numbers in the x32 interface of x86-64 kernels, all from this one on. No program of 64 bits
/// uses them.
#[cfg(target_arch = "x86_64")]
fn of_x32() -> BpfProgram {
    use libc::{BPF_ABS, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO};
    const X32: u32 = 0x4000_0000;
    let line = |code: u32, jf, k| {
        let code = u16::try_from(code).expect("codes of instructions have 16 bits");
        seccompiler::sock_filter { code, jt: 0, jf, k }
    };
    vec![
        // The number of the call is the first field of `seccomp_data`.
        line(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        line(BPF_JMP | BPF_JGE | BPF_K, 1, X32),
        line(BPF_RET | BPF_K, 0, SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()),
        line(BPF_RET | BPF_K, 0, SECCOMP_RET_ALLOW),
    ]
}

/// Between two lines of the log: a thread that tries in a loop must not fill it.
const PAUSE: Duration = Duration::from_secs(1);

/// Logs calls that were refused, until the process ends.
pub(crate) async fn log_refused() {
    let Ok(mut refused) = signal(SignalKind::from_raw(libc::SIGSYS)) else { return };
    // Some may have been refused before the signal was looked for.
    loop {
        for (number, count) in net::take_refused_calls() {
            let name = FORBIDDEN.iter().find(|(_, forbidden)| *forbidden == number).map(|(name, _)| *name);
            let call = name.unwrap_or("other");
            tracing::error!(
                call,
                number,
                count,
                "forbidden system call: a fault, or code of a stranger in this process"
            );
        }
        tokio::time::sleep(PAUSE).await;
        if refused.recv().await.is_none() {
            return;
        }
    }
}
