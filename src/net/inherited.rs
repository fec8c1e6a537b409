//! Listening sockets that a supervisor has made and passed on: socket activation of systemd (sd_listen_fds(3)).
//!
//! systemd keeps them open while egret restarts: clients that come meanwhile wait in the queue, and none is refused. So
//! a socket is never closed here for good: a listener gets a copy, and may come back after a reload that removed it.

use std::env;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{SockAddr, Socket, Type};

use super::syscall;
use crate::config::values::ListenAddress;

struct Inherited {
    /// `FileDescriptorName=` of the unit; by default the unit's own name.
    name: String,
    socket: Socket,
    /// Whether a listener has had a copy since the start.
    is_claimed: AtomicBool,
}

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;
/// More than a unit has; a larger number is no number of sockets.
const MOST: i32 = 4096;

static SOCKETS: LazyLock<Vec<Inherited>> = LazyLock::new(adopt);

/// Takes the descriptors over. They were open when the process began, so their numbers are no other file's.
fn adopt() -> Vec<Inherited> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let inherited = passed_to(i32::try_from(std::process::id()).ok()).filter_map(|descriptor| {
        let name = names.next().unwrap_or_default().to_owned();
        let adopted = syscall::adopt_descriptor(descriptor).and_then(prepared);
        match adopted {
            Ok(socket) => Some(Inherited { name, socket, is_claimed: AtomicBool::new(false) }),
            Err(error) => {
                tracing::warn!(descriptor, name, %error, "a descriptor that the supervisor passed cannot be used");
                None
            }
        }
    });
    inherited.collect()
}

/// Closes them in a copy of this process, which is about to become another program.
pub(crate) fn close_all() {
    let of_parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get());
    for descriptor in passed_to(of_parent) {
        // Dropped, and so closed; what is not open needs no closing.
        let _ = syscall::adopt_descriptor(descriptor);
    }
}

/// The descriptors that were passed to this process.
fn passed_to(process: Option<i32>) -> std::ops::Range<i32> {
    let number = |name: &str| env::var(name).ok()?.parse::<i32>().ok();
    match process.is_some() && number("LISTEN_PID") == process {
        true => FIRST..FIRST + number("LISTEN_FDS").unwrap_or(0).clamp(0, MOST),
        false => FIRST..FIRST,
    }
}

fn prepared(descriptor: OwnedFd) -> std::io::Result<Socket> {
    let socket = Socket::from(descriptor);
    if !socket.is_listener()? || socket.r#type()? != Type::STREAM {
        return Err(std::io::Error::other("it is no listening stream socket"));
    }
    // Programs that egret starts do not get it.
    socket.set_cloexec(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A copy of the socket for this listener: the one that has its name, or else its address.
pub(super) fn take(name: &str, address: &ListenAddress) -> Option<Socket> {
    let of_kind = |one: &&Inherited| {
        let is_unix = one.socket.local_addr().is_ok_and(|local| local.is_unix());
        is_unix == matches!(address, ListenAddress::Unix { .. })
    };
    let mut of_its_kind = SOCKETS.iter().filter(of_kind);
    let named = of_its_kind.clone().find(|one| one.name == name);
    let found =
        named.or_else(|| of_its_kind.find(|one| one.socket.local_addr().is_ok_and(|local| is(&local, address))));
    found.and_then(|one| {
        one.is_claimed.store(true, Ordering::Relaxed);
        let copy = one.socket.try_clone();
        copy.inspect_err(|error| tracing::warn!(name, %error, "the supervisor's socket cannot be used")).ok()
    })
}

/// Warns of every socket that no listener has. The kernel completes connections to it, and nobody accepts them: its
/// clients wait until they give up. To be called when everything listens.
pub(crate) fn warn_of_unclaimed_sockets() {
    for one in SOCKETS.iter().filter(|one| !one.is_claimed.load(Ordering::Relaxed)) {
        let address = one.socket.local_addr().map(|address| shown(&address)).unwrap_or_default();
        tracing::warn!(name = one.name, address, "no listener takes a socket that the supervisor passed");
    }
}

/// As a listener's address is written.
fn shown(address: &SockAddr) -> String {
    let unix = || address.as_pathname().map(|path| format!("unix:{}", path.display()));
    address.as_socket().map(|tcp| tcp.to_string()).or_else(unix).unwrap_or_default()
}

fn is(local: &SockAddr, address: &ListenAddress) -> bool {
    match address {
        ListenAddress::Tcp(tcp) => local.as_socket() == Some(*tcp),
        ListenAddress::Unix { path, .. } => local.as_pathname() == Some(path.as_path()),
    }
}
