//! The system calls that no crate has a safe form of, made safe: socket options of any name, control messages that
//! carry a byte, signals of any number, fork and execve. All the unsafe code of egret is here, and each block says why it is sound.
//!
//! `rustix` and `socket2` know neither TCP Fast Open nor kernel TLS, `nix` cannot send the type of a record, and the
//! crates made for kernel TLS receive into memory of their own. `rustix` has neither real-time signals nor the mask of
//! a thread, and takes for granted that the process group has a number in this PID namespace.
//!
//! `tests/sanitize/run` compiles this file by itself and runs its tests under AddressSanitizer, Valgrind and Miri, so
//! it uses nothing but the standard library and `libc`.
#![expect(
    unsafe_code,
    reason = "setsockopt, ioctl, sendmsg, recvmsg, malloc_trim, signals, process groups, fork, execve, SIGSYS as no safe crate offers them"
)]

use std::collections::BTreeMap;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, c_void};

/// Sets a socket option to a value of any length. The kernel refuses what it does not know, and what is too short.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed. The kernel reads `length` bytes of `value`, which is
    // that long and borrowed for the call, and keeps no pointer.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes in the socket's queue to its peer: with TCP those that are not acknowledged (SIOCOUTQ, tcp(7)).
pub(crate) fn output_queue(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut queued: c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed. The kernel writes one integer to `queued`, which outlives
    // the call, and keeps no pointer.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
    if done == 0 { Ok(usize::try_from(queued).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Returns freed memory that the allocator holds to the system, in whole pages (malloc_trim(3)). Where the C library
/// has no such call, nothing happens.
pub(crate) fn trim_heap() {
    // SAFETY: the call takes no pointer, may be made by any thread at any time, and gives back only pages of which the
    // allocator has lent nothing.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Sends a signal of any number to one process. Zero and negative numbers, which are groups to kill(2), are refused.
pub(crate) fn send_signal(process: i32, signal: c_int) -> io::Result<()> {
    if process <= 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the call takes two numbers and no pointer. What the receiver does with a signal is its own affair.
    let done = unsafe { libc::kill(process, signal) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The process group of this process. `None`: it is of another PID namespace, and has no number in this one.
pub(crate) fn own_process_group() -> Option<i32> {
    // SAFETY: the call takes nothing and cannot fail.
    let group = unsafe { libc::getpgrp() };
    (group > 0).then_some(group)
}

/// Whether this process leads its session: then no shell has it as a job.
pub(crate) fn leads_session() -> bool {
    // SAFETY: both calls take a number at most and no pointer. A session of another PID namespace is 0.
    unsafe { libc::getsid(0) == libc::getpid() }
}

/// Stops this process, as a shell's job is stopped; returns when it is continued. The signal goes to this thread, which so
/// takes it before the call returns: one to the process might be taken by another thread a moment later.
pub(crate) fn stop_until_continued() {
    // SAFETY: the call takes a number. SIGSTOP has no handler.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Blocks a signal for this thread and all that it starts from now on. A program that is started by `std` gets an empty
/// mask.
pub(crate) fn block_signal(signal: c_int) -> io::Result<()> {
    change_mask(libc::SIG_BLOCK, signal)
}

fn change_mask(how: c_int, signal: c_int) -> io::Result<()> {
    let mut set = mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initialises the set that the other two calls read; all three get a pointer that is valid
    // for the call and keep none. A null pointer in place of the former mask is allowed.
    let failed = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

/// Takes over a descriptor that was open when the process began. It is checked to be open, and marked as taken: a second
/// call for it fails.
pub(crate) fn adopt_descriptor(descriptor: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers. It fails for a descriptor that is not open.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // Everything that this process opens itself has the flag; what it was given at its start has not.
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and no other owner has it: those of this process are marked, and this one is marked now.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Puts this process' group into the foreground of the terminal on standard input. Best effort.
pub(crate) fn take_terminal() {
    // Out of the background, which stops a process that does not block the signal.
    let _ = change_mask(libc::SIG_BLOCK, libc::SIGTTOU);
    // SAFETY: both calls take numbers.
    unsafe { libc::tcsetpgrp(libc::STDIN_FILENO, libc::getpgrp()) };
    let _ = change_mask(libc::SIG_UNBLOCK, libc::SIGTTOU);
}

/// Replaces the program of this process by `file`, with no signal blocked or ignored. Returns only if it fails.
pub(crate) fn execute<'a>(
    file: &OsStr,
    arguments: impl Iterator<Item = &'a OsString>,
    variables: &BTreeMap<OsString, OsString>,
) -> io::Error {
    let text = |bytes: &[u8]| CString::new(bytes);
    let variable = |(name, value): (&OsString, &OsString)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat());
    let strings = || {
        let arguments = arguments.map(|argument| text(argument.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let variables = variables.iter().map(variable).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, NulError>((text(file.as_bytes())?, arguments, variables))
    };
    let Ok((file, arguments, variables)) = strings() else { return io::ErrorKind::InvalidInput.into() };
    let end = std::iter::once(std::ptr::null());
    let [arguments, variables] = [&arguments, &variables]
        .map(|list| list.iter().map(|text| text.as_ptr()).chain(end.clone()).collect::<Vec<_>>());
    // SAFETY: as in `change_mask`; the set is initialised by the first call. The arrays end with a null pointer, and they
    // and their strings outlive the call of execve(2).
    unsafe {
        let mut none = mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
        // Signals that egret forwards would be lost if the program ignored them, as it would if egret was started so: by
        // nohup, or in the background of a script. Numbers that cannot be set are skipped by the kernel.
        for number in 1..=libc::SIGRTMAX() {
            libc::signal(number, libc::SIG_DFL);
        }
        libc::execve(file.as_ptr(), arguments.as_ptr(), variables.as_ptr());
    }
    io::Error::last_os_error()
}

/// Makes a second process, a copy of this one: its number, or `None` in the copy. Errors: The kernel's; `Unsupported` if
/// this process has other threads.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // Without /proc the caller's word counts.
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the process has other threads"));
    }
    // SAFETY: with one thread, no lock is held and no structure half changed by a thread that the copy does not have:
    // the copy may do whatever this process may.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        child if child > 0 => Ok(Some(child)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the system call of this number, with the arguments behind it, for tests: of calls that touch no memory of this
/// process with these arguments.
#[cfg(debug_assertions)]
pub(crate) fn any_call(numbers: &[libc::c_long]) -> io::Result<libc::c_long> {
    let mut call = [0; 7];
    let length = numbers.len().min(call.len());
    call[..length].copy_from_slice(&numbers[..length]);
    let [number, a, b, c, d, e, f] = call;
    // SAFETY: the caller's word: debug builds only, asked for by a variable of the environment.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result >= 0 { Ok(result) } else { Err(io::Error::last_os_error()) }
}

/// Calls that a filter of system calls has refused with SIGSYS since the last look, by their numbers; the last of them counts
/// all that have higher numbers.
static REFUSED: [AtomicU32; 1024] = [const { AtomicU32::new(0) }; 1024];

/// From now on, a call that is refused with SIGSYS (by a filter with SECCOMP_RET_TRAP) is counted, and fails with EPERM. A
/// SIGSYS that another process sends still ends the process. Errors: the kernel's; `Unsupported` on other processors than
/// those of the filter.
pub(crate) fn note_refused_calls() -> io::Result<()> {
    if cfg!(not(any(target_arch = "x86_64", target_arch = "aarch64"))) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_refused;
    // SAFETY: zero is a value of every field of the structure, which outlives the call. The handler makes only calls that are
    // safe in a signal handler, allocates nothing and takes no lock.
    let failed = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Number and count of the calls that were refused since the last time.
pub(crate) fn take_refused_calls() -> Vec<(libc::c_long, u32)> {
    let counts = REFUSED.iter().map(|count| count.swap(0, Ordering::Relaxed));
    (0..).zip(counts).filter(|(_, count)| *count > 0).collect()
}

/// `si_code` of a filter's signal (asm-generic/siginfo.h).
const SYS_SECCOMP: c_int = 1;

extern "C" fn on_refused(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO two valid pointers, to a `siginfo_t` and a `ucontext_t` of this
    // thread. For SIGSYS of a filter the former has, on machines of 64 bits, behind three integers and padding the address of
    // the call, and then its number. Where the call's result goes is the register that the kernel takes it from when the
    // handler returns.
    unsafe {
        if (*info).si_code != SYS_SECCOMP {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
            return;
        }
        let number = info.cast::<c_int>().add(6).read();
        let place = usize::try_from(number).unwrap_or(usize::MAX).min(REFUSED.len() - 1);
        REFUSED[place].fetch_add(1, Ordering::Relaxed);
        let context = context.cast::<libc::ucontext_t>();
        #[cfg(target_arch = "x86_64")]
        {
            (*context).uc_mcontext.gregs[libc::REG_RAX as usize] = -i64::from(libc::EPERM);
        }
        #[cfg(target_arch = "aarch64")]
        {
            (*context).uc_mcontext.regs[0] = (-i64::from(libc::EPERM)).cast_unsigned();
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = context;
    }
}

/// A control message: ancillary data of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) level: c_int,
    pub(crate) name: c_int,
    pub(crate) value: u8,
}

pub(crate) fn send_with(socket: BorrowedFd<'_>, bytes: &[u8], control: Control) -> io::Result<usize> {
    let mut bytes = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(), iov_len: bytes.len() };
    let mut control = Slot::from(control);
    let message = message(&mut bytes, &mut control);
    // SAFETY: the descriptor is open while it is borrowed. `message` points to `bytes` and `control`, which outlive
    // the call, and `bytes` to the caller's, of which the kernel only reads and no more than their length.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives bytes, and the control message that came with them if there was one of a byte.
/// Errors: The kernel's; `WouldBlock` if nothing is there.
pub(crate) fn receive_with(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<(usize, Option<Control>)> {
    let mut bytes = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let mut control = Slot::zeroed();
    let mut message = message(&mut bytes, &mut control);
    // SAFETY: the descriptor is open while it is borrowed. The kernel writes at most `buf.len()` bytes to `buf`, which
    // nobody else uses, and at most `msg_controllen` bytes to `control`; all outlive the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    Ok((received, control.read()))
}

#[repr(C)]
struct Slot {
    header: libc::cmsghdr,
    value: u8,
}

// Sizes by the macros of `sys/socket.h`.
const _: () = unsafe {
    assert!(size_of::<Slot>() == libc::CMSG_SPACE(1) as usize);
    assert!(mem::offset_of!(Slot, value) == libc::CMSG_LEN(0) as usize);
};

impl Slot {
    fn zeroed() -> Self {
        // SAFETY: integers, for all of which zero is a value.
        unsafe { mem::zeroed() }
    }

    /// `None`: the kernel wrote nothing, or something of another length.
    fn read(&self) -> Option<Control> {
        let Self { header, value } = self;
        let control = Control { level: header.cmsg_level, name: header.cmsg_type, value: *value };
        (header.cmsg_len == Self::from(control).header.cmsg_len).then_some(control)
    }
}

impl From<Control> for Slot {
    fn from(control: Control) -> Self {
        let mut slot = Self::zeroed();
        // SAFETY: computes a length and touches no memory.
        slot.header.cmsg_len = unsafe { libc::CMSG_LEN(1) } as _;
        slot.header.cmsg_level = control.level;
        slot.header.cmsg_type = control.name;
        slot.value = control.value;
        slot
    }
}

/// Bytes and a control message as the kernel wants them. The pointers are good while what they were made from
/// is borrowed, which the callers see to.
fn message(bytes: &mut libc::iovec, control: &mut Slot) -> libc::msghdr {
    // SAFETY: integers and pointers, for all of which zero is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = bytes;
    message.msg_iovlen = 1;
    message.msg_control = std::ptr::from_mut(control).cast();
    message.msg_controllen = size_of::<Slot>() as _;
    message
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;

    use super::*;

    const LOW_DELAY: Control = Control { level: libc::IPPROTO_IP, name: libc::IP_TOS, value: 0x10 };

    fn pair() -> (UdpSocket, UdpSocket) {
        let [near, far] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        near.connect(far.local_addr().unwrap()).unwrap();
        far.connect(near.local_addr().unwrap()).unwrap();
        (near, far)
    }

    fn switch(socket: &UdpSocket, level: c_int, name: c_int) {
        set_option(socket.as_fd(), level, name, &1_i32.to_ne_bytes()).unwrap();
    }

    #[test]
    fn signals_go_to_one_process_and_never_to_a_group() {
        for group in [0, -1, i32::MIN] {
            assert_eq!(send_signal(group, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        // Zero only checks that the process is there.
        send_signal(std::process::id() as i32, 0).unwrap();
        assert!(send_signal(std::process::id() as i32, 4096).is_err());
    }

    #[test]
    fn a_blocked_signal_of_a_thread_is_blocked_in_those_that_it_starts() {
        let blocked = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
            u64::from_str_radix(mask, 16).unwrap() & (1 << (libc::SIGTTOU - 1)) != 0
        };
        let of_child = move || {
            block_signal(libc::SIGTTOU).unwrap();
            std::thread::spawn(blocked).join().unwrap()
        };
        assert!(!blocked());
        assert!(std::thread::spawn(of_child).join().unwrap());
        assert!(!blocked(), "another thread's mask is its own");
        assert!(block_signal(4096).is_ok(), "a number that is no signal blocks nothing");
    }

    #[test]
    fn a_message_holds_its_bytes_and_one_control_message() {
        let mut body = *b"body";
        let mut bytes = libc::iovec { iov_base: body.as_mut_ptr().cast(), iov_len: body.len() };
        let mut control = Slot::from(LOW_DELAY);
        let message = message(&mut bytes, &mut control);
        // SAFETY: all that the message points to is alive, and nothing else refers to it meanwhile.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&raw const message);
            assert_eq!(((*first).cmsg_level, (*first).cmsg_type), (LOW_DELAY.level, LOW_DELAY.name));
            assert_eq!(libc::CMSG_DATA(first).read(), LOW_DELAY.value);
            let iovec = message.msg_iov.read();
            assert_eq!(std::slice::from_raw_parts(iovec.iov_base.cast::<u8>(), iovec.iov_len), b"body");
        }
        assert_eq!(control.read(), Some(LOW_DELAY));
        assert_eq!(Slot::zeroed().read(), None);
    }

    #[test]
    fn a_byte_beside_the_bytes_arrives() {
        let (near, far) = pair();
        switch(&far, libc::IPPROTO_IP, libc::IP_RECVTOS);
        assert_eq!(send_with(near.as_fd(), b"hello", LOW_DELAY).unwrap(), 5);
        let mut buf = [9; 8];
        assert_eq!(receive_with(far.as_fd(), &mut buf).unwrap(), (5, Some(LOW_DELAY)));
        assert_eq!(&buf, b"hello\x09\x09\x09");
    }

    #[test]
    fn a_longer_message_or_control_message_is_cut() {
        let (near, far) = pair();
        switch(&far, libc::SOL_SOCKET, libc::SO_TIMESTAMP);
        near.send(b"longer than the room").unwrap();
        let mut buf = [9; 6];
        assert_eq!(receive_with(far.as_fd(), &mut buf[..4]).unwrap(), (4, None));
        assert_eq!(&buf, b"long\x09\x09");
    }

    #[test]
    fn nothing_comes_without_a_message() {
        let (near, far) = pair();
        far.set_nonblocking(true).unwrap();
        assert_eq!(receive_with(far.as_fd(), &mut [0; 4]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        near.send(b"").unwrap();
        assert_eq!(receive_with(far.as_fd(), &mut [0; 4]).unwrap(), (0, None));
    }

    #[test]
    fn the_queue_to_the_peer_holds_what_was_not_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        assert_eq!(output_queue(near.as_fd()).unwrap(), 0);
        // The peer does not read, so what it has no room for stays in the queue.
        near.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(some) = near.write(&[7; 65_536]) {
            sent += some;
        }
        let queued = output_queue(near.as_fd()).unwrap();
        assert!(queued > 0 && queued < sent, "{queued} of {sent}");
        drop(far);
        assert!(output_queue(listener.as_fd()).is_err(), "a listener has no queue to a peer");
    }

    #[test]
    fn memory_in_use_stays_when_the_heap_is_trimmed() {
        let held: Vec<Vec<u8>> = (0..64).map(|byte| vec![byte; 100_000]).collect();
        drop(vec![1_u8; 50_000_000]);
        let trims = [(); 2].map(|()| std::thread::spawn(trim_heap));
        trims.into_iter().for_each(|trim| trim.join().unwrap());
        assert!((0..64).zip(&held).all(|(byte, vec)| vec.iter().all(|held| *held == byte)));
    }

    #[test]
    fn what_the_kernel_does_not_know_is_an_error() {
        let (near, _far) = pair();
        assert!(set_option(near.as_fd(), libc::SOL_TLS, libc::TLS_TX, &[0; 40]).is_err());
        assert!(set_option(near.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, &[]).is_err());
    }
}
