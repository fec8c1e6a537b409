//! Listening sockets: bind and accept, TCP or Unix.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockRef, Type};
use tokio::net::{TcpListener, UnixListener};

use super::buffers::bound_waiting;
use super::options::keep_urgent_in_line;
use super::{Options, Peer, Role, Stream};
use super::{capability, inherited};
use crate::config::values::ListenAddress;
/// A bound address on which connections are accepted.
#[derive(Debug)]
pub struct Socket {
    address: ListenAddress,
    bound: Bound,
}

#[derive(Debug)]
enum Bound {
    /// With the options that accepted connections do not inherit.
    Tcp(TcpListener, Option<Options>),
    /// The file is unlinked before the socket goes: a successor that takes a file without a socket for stale
    /// then never has its own unlinked. `None`: the file is the supervisor's.
    Unix(#[expect(dead_code, reason = "held for its drop")] Option<Unlink>, UnixListener),
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct BindError {
    address: ListenAddress,
    cause: io::Error,
}

impl BindError {
    /// The path of a Unix socket that this process may not make.
    pub(crate) fn forbidden_socket(&self) -> Option<&Path> {
        match &self.address {
            ListenAddress::Unix { path, .. } if self.cause.kind() == io::ErrorKind::PermissionDenied => Some(path),
            ListenAddress::Unix { .. } | ListenAddress::Tcp(_) => None,
        }
    }
}

/// Connections that may wait for accept. The kernel caps it at `net.core.somaxconn`, 4096 on current Linux.
const BACKLOG: i32 = 4096;

impl Socket {
    /// Binds `address` and listens.
    ///
    /// # Errors
    /// The address is taken, not ours, or not permitted. A Unix socket file on which nobody answers any more
    /// is replaced; any other file in its place is an error.
    pub fn bind(address: &ListenAddress, options: &Options) -> Result<Self, BindError> {
        let bind = || match address {
            ListenAddress::Tcp(tcp) => bind_tcp(*tcp, options),
            ListenAddress::Unix { path, mode } => bind_unix(path, *mode),
        };
        match capability::retry(bind) {
            Ok(bound) => Ok(Self { address: address.clone(), bound }),
            Err(cause) => Err(BindError { address: address.clone(), cause }),
        }
    }

    /// A socket that the supervisor has passed under this name, or with this address; else one that is bound now.
    ///
    /// # Errors
    /// Those of [`Socket::bind`].
    pub(crate) fn take_or_bind(name: &str, address: &ListenAddress, options: &Options) -> Result<Self, BindError> {
        let Some(socket) = inherited::take(name, address) else { return Self::bind(address, options) };
        match adopt(socket, address, options) {
            Ok(bound) => Ok(Self { address: address.clone(), bound }),
            Err(cause) => Err(BindError { address: address.clone(), cause }),
        }
    }

    /// With the port that the kernel chose, where 0 was asked for.
    pub(crate) fn local_address(&self) -> String {
        self.tcp_address().map_or_else(|| self.address.to_string(), |address| address.to_string())
    }

    /// As [`Self::local_address`]; `None` for a Unix socket.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.bound {
            Bound::Tcp(tcp, _) => tcp.local_addr().ok(),
            Bound::Unix(..) => None,
        }
    }

    /// Gives connections from now on these options.
    ///
    /// # Errors
    /// The kernel does not take one.
    pub fn set(&self, options: &Options) -> io::Result<()> {
        match &self.bound {
            Bound::Tcp(tcp, _) => options.renew(tcp),
            Bound::Unix(..) => Ok(()),
        }
    }

    /// The next connection. It has the options of the listener: Linux copies them to the connections of a TCP socket,
    /// which saves four system calls for each.
    ///
    /// # Errors
    /// Those of accept(2); the socket stays good. Cancel safe.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.bound {
            Bound::Tcp(listener, own) => {
                let (tcp, peer) = listener.accept().await?;
                if let Some(options) = own {
                    // A socket whose options cannot be set was reset by its peer: the first read reports it.
                    let _ = options.set(&tcp);
                }
                Ok((Stream::Tcp(tcp), Peer::Tcp(peer)))
            }
            Bound::Unix(_, listener) => {
                let (unix, _) = listener.accept().await?;
                let credentials = unix.peer_cred()?;
                keep_urgent_in_line(&SockRef::from(&unix));
                Ok((Stream::Unix(unix), Peer::Unix { uid: credentials.uid(), pid: credentials.pid() }))
            }
        }
    }
}

fn adopt(socket: socket2::Socket, address: &ListenAddress, options: &Options) -> io::Result<Bound> {
    match address {
        ListenAddress::Tcp(_) => {
            bound_waiting(&socket);
            let listener = TcpListener::from_std(socket.into())?;
            options.renew(&listener)?;
            let own = options.multipath().then(|| options.clone());
            Ok(Bound::Tcp(listener, own))
        }
        ListenAddress::Unix { .. } => Ok(Bound::Unix(None, UnixListener::from_std(socket.into())?)),
    }
}

fn bind_tcp(address: SocketAddr, options: &Options) -> io::Result<Bound> {
    let socket = options.socket(address, Role::Listen)?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // An IPv6 listener is just that; IPv4 is written as a listener of its own.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    bound_waiting(&socket);
    socket.listen(BACKLOG)?;
    // Multipath sockets do not inherit.
    let own = options.multipath().then(|| options.clone());
    TcpListener::from_std(socket.into()).map(|listener| Bound::Tcp(listener, own))
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Bound> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    let unlink = Unlink(path.to_owned());
    // Nobody can connect before listen, so the mode is in force before the first client.
    set_mode(path, mode)?;
    socket.listen(BACKLOG)?;
    Ok(Bound::Unix(Some(unlink), UnixListener::from_std(socket.into())?))
}

/// Changes the mode of a socket's file: who may connect from now on.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    capability::retry(|| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
}

/// Removes the socket file of a killed process: one to which nobody listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match try_connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            // A full queue means that a process listens.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        },
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is in its place")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Non-blocking: connecting to a socket whose queue is full waits until its owner accepts.
fn try_connect(path: &Path) -> io::Result<()> {
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    probe.connect(&socket2::SockAddr::unix(path)?)
}

#[derive(Debug)]
struct Unlink(PathBuf);

impl Drop for Unlink {
    fn drop(&mut self) {
        // If it is gone, so much the better.
        let _ = capability::retry(|| fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_listened_to_is_not_taken_over_even_if_its_queue_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let owner = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        owner.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        owner.listen(0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            if client.connect(&socket2::SockAddr::unix(&path).unwrap()).is_err() {
                break;
            }
            waiting.push(client);
        }
        let address = ListenAddress::Unix { path, mode: 0o600 };
        assert!(Socket::bind(&address, &Options::default()).is_err());
        drop(owner);
        Socket::bind(&address, &Options::default()).unwrap();
    }
}
