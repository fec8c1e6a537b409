//! TCP Fast Open (RFC 7413): the two options that no crate has a safe call for.
//!
//! With that of `kernel_tls` the only unsafe code of egret. It is sound because `setsockopt(2)` reads
//! `size_of::<c_int>()` bytes at the address of a `c_int` that lives through the call, keeps neither, and refuses
//! whatever is no open TCP socket; the borrowed descriptor is open for as long as the call lasts.

#![expect(unsafe_code, reason = "see above")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Takes data of up to `queue` clients that are not known to be at the address they claim, before accept.
///
/// # Errors
/// The kernel does not have it.
pub(super) fn accept(listener: impl AsFd, queue: i32) -> io::Result<()> {
    set(listener, libc::TCP_FASTOPEN, queue)
}

/// Connects with the first write, if the server has given a cookie before.
///
/// # Errors
/// The kernel does not have it, or it is switched off (`net.ipv4.tcp_fastopen`).
pub(super) fn connect(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::TCP_FASTOPEN_CONNECT, 1)
}

fn set(socket: impl AsFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let (fd, length) = (socket.as_fd().as_raw_fd(), size_of_val(&value) as libc::socklen_t);
    // SAFETY: see the head of this file.
    let done = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, option, (&raw const value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_tcp_socket_takes_it_and_any_other_refuses() {
        accept(TcpListener::bind("127.0.0.1:0").unwrap(), 16).unwrap();
        assert!(accept(UdpSocket::bind("127.0.0.1:0").unwrap(), 16).is_err());
        assert!(connect(UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
    }
}
