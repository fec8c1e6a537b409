//! TLS in the kernel: its socket options, and the messages that carry the type of a record.
//!
//! The interface is that of `linux/tls.h` and of the kernel's page `networking/tls`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::SockRef;
use tokio::io::Interest;

use super::Duplex;
use super::syscall::{self, Control};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Send,
    Receive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// The type of the records. `None`: the peer has ended its direction.
    pub(crate) kind: Option<u8>,
    /// The records of one receive are of one type.
    pub(crate) len: usize,
}

/// Attaches the kernel's TLS to the socket, for good. Nothing changes before a direction gets its key.
pub(crate) fn attach(socket: &impl AsFd) -> io::Result<()> {
    syscall::set_option(socket.as_fd(), libc::SOL_TCP, libc::TCP_ULP, b"tls")
}

/// From here on the kernel seals, or opens, the records of this direction. `key` is one of the structures
/// `tls12_crypto_info_*`. May be called again with a new key. Errors: The kernel does not know version or suite; it has
/// a key already and cannot take another.
pub(crate) fn set_key(socket: &impl AsFd, direction: Direction, key: &[u8]) -> io::Result<()> {
    let name = match direction {
        Direction::Send => libc::TLS_TX,
        Direction::Receive => libc::TLS_RX,
    };
    syscall::set_option(socket.as_fd(), libc::SOL_TLS, name, key)
}

/// Sends one record of another type than application data, all of it or nothing.
/// Errors: `WouldBlock` if there is no room.
pub(crate) fn try_send_record(socket: &impl Duplex, kind: u8, body: &[u8]) -> io::Result<()> {
    let control = Control { level: libc::SOL_TLS, name: libc::TLS_SET_RECORD_TYPE, value: kind };
    socket.try_io(Interest::WRITABLE, || syscall::send_with(socket.as_fd(), body, control).map(drop))
}

/// Receives the opened content of records of one type. Unlike with a plain socket, a short receive does not mean that
/// the socket is empty: a record of another type may follow. Errors: `WouldBlock` if no whole record is there.
/// `EBADMSG`, `EMSGSIZE` and `EINVAL` are the peer's fault: a record that does not authenticate, is too long, or is
/// none.
pub(crate) fn try_receive(socket: &impl Duplex, buf: &mut [u8]) -> io::Result<Received> {
    let mut received = Received { kind: None, len: 0 };
    socket.try_io(Interest::READABLE, || {
        let (len, control) = syscall::receive_with(socket.as_fd(), buf)?;
        let of_record = |it: &Control| it.level == libc::SOL_TLS && it.name == libc::TLS_GET_RECORD_TYPE;
        received = Received { kind: control.filter(of_record).map(|it| it.value), len };
        Ok(())
    })?;
    Ok(received)
}

/// Lets the socket send again after a refused record: the error stays at the socket, for whichever call comes next,
/// until it is read.
pub(crate) fn clear_error(socket: &impl AsFd) {
    // The error is known already, from the receive that failed.
    let _ = SockRef::from(socket).take_error();
}

/// Ready when the kernel has given all records to TCP. The kernel accepts bytes before that: a record that found no
/// room waits beside the socket, and neither `shutdown` nor `close` waits for it. Room in the socket means that no
/// record waits for room.
pub(crate) fn poll_drained(cx: &mut Context<'_>, socket: &impl Duplex) -> Poll<io::Result<()>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_io(Interest::WRITABLE, || has_room(socket.as_fd())) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

fn has_room(socket: BorrowedFd<'_>) -> io::Result<()> {
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
    let ready = rustix::event::poll(&mut asked, Some(&AT_ONCE))?;
    if ready > 0 { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_socket_without_tls_gives_bytes_without_a_type() {
        let (near, far) = pair().await;
        far.writable().await.unwrap();
        assert_eq!(far.try_write(b"plain").unwrap(), 5);
        near.readable().await.unwrap();
        let mut buf = [0; 16];
        let received = try_receive(&near, &mut buf).unwrap();
        assert_eq!((received, &buf[..5]), (Received { kind: None, len: 5 }, &b"plain"[..]));
        let none = try_receive(&near, &mut buf).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        drop(far);
        near.readable().await.unwrap();
        assert_eq!(try_receive(&near, &mut buf).unwrap(), Received { kind: None, len: 0 });
    }

    #[tokio::test]
    async fn a_key_before_the_kernel_sees_the_socket_is_refused() {
        let (near, _far) = pair().await;
        assert!(set_key(&near, Direction::Send, &[0; 40]).is_err());
        assert!(set_key(&near, Direction::Receive, &[0; 40]).is_err());
    }

    #[tokio::test]
    async fn a_socket_is_drained_when_it_has_room_again() {
        let (near, far) = pair().await;
        near.writable().await.unwrap();
        while near.try_write(&[0; 1 << 16]).is_ok() {}
        let waiting = std::future::poll_fn(|cx| Poll::Ready(poll_drained(cx, &near).is_pending())).await;
        assert!(waiting, "a full socket is not drained");
        let read = async {
            let mut buf = vec![0; 1 << 16];
            loop {
                far.readable().await.unwrap();
                let _ = far.try_read(&mut buf);
            }
        };
        tokio::select! {
            done = std::future::poll_fn(|cx| poll_drained(cx, &near)) => done.unwrap(),
            () = read => unreachable!("it reads for ever"),
        }
    }
}
