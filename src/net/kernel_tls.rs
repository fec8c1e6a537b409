//! TLS in the kernel: its socket options, and the messages that carry the type of a record.
//!
//! `rustix` and `socket2` know none of this, `nix` cannot send the type of a record, and the crates made for it
//! receive into memory of their own; so three system calls stand here as unsafe code, each with the reason why it is
//! sound. The interface is that of `linux/tls.h` and of the kernel's page `networking/tls`.
#![expect(unsafe_code, reason = "setsockopt, sendmsg and recvmsg as no safe crate offers them")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use libc::{c_int, c_void};
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::SockRef;
use tokio::io::Interest;

use super::Duplex;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Away from us.
    Send,
    /// Towards us.
    Receive,
}

/// What one receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The type of the records that the bytes are from. `None`: the peer has ended its direction.
    pub kind: Option<u8>,
    /// How many bytes there are. The records of one receive are of one type.
    pub len: usize,
}

/// Lets the kernel's TLS see the socket. Nothing changes before a direction gets its key. There is no way back.
///
/// # Errors
/// The kernel has none, or the connection is not (or no longer) established.
pub fn attach(socket: &impl AsFd) -> io::Result<()> {
    set_option(socket.as_fd(), libc::SOL_TCP, libc::TCP_ULP, b"tls")
}

/// From here on the kernel makes, or opens, the records of this direction. `key` is one of the structures
/// `tls12_crypto_info_*`. Once more with a new key: the direction goes on with that.
///
/// # Errors
/// The kernel does not know version or suite; it has a key already and cannot take another.
pub fn set_key(socket: &impl AsFd, direction: Direction, key: &[u8]) -> io::Result<()> {
    let name = match direction {
        Direction::Send => libc::TLS_TX,
        Direction::Receive => libc::TLS_RX,
    };
    set_option(socket.as_fd(), libc::SOL_TLS, name, key)
}

fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed. The kernel reads `length` bytes of `value`, which is
    // that long and borrowed for the call, and keeps no pointer.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A control message that carries the type of a record.
#[repr(C)]
struct RecordType {
    header: libc::cmsghdr,
    kind: u8,
}

// What the macros of `sys/socket.h` say of such a message.
// SAFETY: they compute lengths and touch no memory.
const _: () = unsafe {
    assert!(size_of::<RecordType>() == libc::CMSG_SPACE(1) as usize);
    assert!(mem::offset_of!(RecordType, kind) == libc::CMSG_LEN(0) as usize);
};

impl RecordType {
    fn zeroed() -> Self {
        // SAFETY: integers, for all of which zero is a value.
        unsafe { mem::zeroed() }
    }
}

/// Bytes and a control message as the kernel wants them. The pointers are good while what they were made from
/// is borrowed, which the callers see to.
fn message(bytes: &mut libc::iovec, control: &mut RecordType) -> libc::msghdr {
    // SAFETY: integers and pointers, for all of which zero is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = bytes;
    message.msg_iovlen = 1;
    message.msg_control = std::ptr::from_mut(control).cast();
    message.msg_controllen = size_of::<RecordType>() as _;
    message
}

/// Sends one record of another type than application data, all of it or nothing.
///
/// # Errors
/// `WouldBlock` if there is no room.
pub fn try_send_record(socket: &impl Duplex, kind: u8, body: &[u8]) -> io::Result<()> {
    socket.try_io(Interest::WRITABLE, || {
        let mut bytes = libc::iovec { iov_base: body.as_ptr().cast_mut().cast::<c_void>(), iov_len: body.len() };
        let mut control = RecordType::zeroed();
        control.header.cmsg_level = libc::SOL_TLS;
        control.header.cmsg_type = libc::TLS_SET_RECORD_TYPE;
        // SAFETY: computes a length.
        control.header.cmsg_len = unsafe { libc::CMSG_LEN(1) } as _;
        control.kind = kind;
        let message = message(&mut bytes, &mut control);
        // SAFETY: the descriptor is open while it is borrowed. `message` points to `bytes` and `control`, which
        // outlive the call, and `bytes` to `body`, of which the kernel only reads and no more than its length.
        let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    })
}

/// Receives the opened content of records of one type. Unlike with a plain socket, fewer bytes than there is
/// room for do not mean that there are no more: a record of another type may follow.
///
/// # Errors
/// `WouldBlock` if no whole record is there. `EBADMSG`, `EMSGSIZE` and `EINVAL` are the peer's fault: a record
/// that does not authenticate, is too long, or is none.
pub fn try_receive(socket: &impl Duplex, buf: &mut [u8]) -> io::Result<Received> {
    let mut received = Received { kind: None, len: 0 };
    socket.try_io(Interest::READABLE, || {
        let mut bytes = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        let mut control = RecordType::zeroed();
        let mut message = message(&mut bytes, &mut control);
        // SAFETY: the descriptor is open while it is borrowed. The kernel writes at most `buf.len()` bytes to
        // `buf`, which nobody else uses, and at most `msg_controllen` bytes to `control`; all outlive the call.
        let len = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0) };
        received.len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        let typed = control.header.cmsg_level == libc::SOL_TLS && control.header.cmsg_type == libc::TLS_GET_RECORD_TYPE;
        received.kind = typed.then_some(control.kind);
        Ok(())
    })?;
    Ok(received)
}

/// Lets the socket send again after a record that was refused: that error stands at the socket, for whichever call
/// comes next, until somebody has asked for it.
pub fn clear_error(socket: &impl AsFd) {
    // The error is known already, from the receive that failed.
    let _ = SockRef::from(socket).take_error();
}

/// Ready when the kernel has given all records to TCP. It takes bytes before that: a record that found no room
/// waits beside the socket, and neither `shutdown` nor `close` waits for it. Room in the socket means that no
/// record waits for room.
pub fn poll_drained(cx: &mut Context<'_>, socket: &impl Duplex) -> Poll<io::Result<()>> {
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
