//! TCP Fast Open (RFC 7413): the two options for which no crate has a safe call.

use std::io;
use std::os::fd::AsFd;

use super::syscall;

/// Accepts data in the SYN from up to `queue` clients whose address is not validated yet.
pub(super) fn accept(listener: impl AsFd, queue: i32) -> io::Result<()> {
    set(listener, libc::TCP_FASTOPEN, queue)
}

/// Delays the SYN until the first write, if the server has given a cookie before.
pub(super) fn connect(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::TCP_FASTOPEN_CONNECT, 1)
}

fn set(socket: impl AsFd, option: i32, value: i32) -> io::Result<()> {
    syscall::set_option(socket.as_fd(), libc::IPPROTO_TCP, option, &value.to_ne_bytes())
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
