//! Clients that speak no TLS: the ones egret is for.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};

use super::PATIENCE;
use super::pattern::{Digest, Pattern};

/// A connection that gives up reading and writing after [`PATIENCE`].
///
/// A client that is refused at once may be reset before connect(2) has returned, which would then take the error off
/// the socket. Here the error stays for the first read or write, as if the reset had come a moment later.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => panic!("{address}: {error}"),
        _ => {}
    }
    let mut waiting = [PollFd::new(&socket, PollFlags::OUT)];
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(poll(&mut waiting, Some(&patience)).unwrap(), 1, "{address}: no answer within {PATIENCE:?}");
    socket.set_nonblocking(false).unwrap();
    let tcp = TcpStream::from(socket);
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_write_timeout(Some(PATIENCE)).unwrap();
    tcp
}

/// How a connection ended for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Clean,
    Reset,
}

/// Says `first`, then reads to the end: what came, and which end it was. No end at all fails.
pub(crate) fn ask(address: SocketAddr, first: &[u8]) -> (Vec<u8>, End) {
    say(address, first, |_| {})
}

/// Says all there is, half-closes, and reads to the end.
pub(crate) fn ask_and_finish(address: SocketAddr, all: &[u8]) -> (Vec<u8>, End) {
    say(address, all, finish)
}

fn say(address: SocketAddr, first: &[u8], then: impl FnOnce(&TcpStream)) -> (Vec<u8>, End) {
    let mut tcp = connect(address);
    // A client that is refused may learn it while it is still talking; the socket reports it once.
    if tcp.write_all(first).is_err() {
        return (read_to_end(&mut tcp).0, End::Reset);
    }
    then(&tcp);
    read_to_end(&mut tcp)
}

/// Reads to the end, whichever it is.
pub(crate) fn read_to_end(tcp: &mut TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    match tcp.read_to_end(&mut bytes) {
        Ok(_) => (bytes, End::Clean),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => (bytes, End::Reset),
        Err(error) => panic!("neither an end nor a reset: {error}"),
    }
}

/// Ends the connection with a reset.
pub(crate) fn reset(tcp: TcpStream) {
    SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
    drop(tcp);
}

/// A piece that is no multiple of a TLS record, so that pieces and records never line up.
const PIECE: usize = 70_001;

/// Sends `length` bytes of the pattern; gives their digest.
pub(crate) fn send(to: &mut impl Write, seed: u64, length: u64) -> String {
    let mut pattern = Pattern::new(seed);
    let mut digest = Digest::new();
    let mut piece = vec![0; PIECE];
    while digest.length < length {
        let size = usize::try_from(length - digest.length).unwrap_or(PIECE).min(PIECE);
        pattern.fill(&mut piece[..size]);
        to.write_all(&piece[..size]).unwrap();
        digest.update(&piece[..size]);
    }
    to.flush().unwrap();
    digest.hex()
}

/// Reads to a clean end; gives length and digest.
pub(crate) fn receive(from: &mut impl Read) -> (u64, String) {
    let mut digest = Digest::new();
    let mut piece = vec![0; 65_536];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return (digest.length, digest.hex()),
            Ok(length) => digest.update(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("after {} bytes: {error}", digest.length),
        }
    }
}

/// No more will be said from this side.
pub(crate) fn finish(tcp: &TcpStream) {
    // The other side may have ended the connection already.
    let _ = tcp.shutdown(Shutdown::Write);
}
