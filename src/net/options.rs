//! Options of TCP sockets, set before listen, so that accepted connections inherit them, and before connect.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::buffers::bound_connecting;
use super::fast_open;
use crate::config::values::{Name, Tcp};

/// The configured options that this kernel has.
#[derive(Clone, Debug, Default)]
pub struct Options {
    asked: Tcp,
    speaks_first: bool,
}

/// Which end of a connection a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It accepts.
    Listen,
    /// It connects.
    Connect,
}

/// A configured option that this kernel does not have.
#[derive(Debug)]
pub struct Missing {
    /// Its key in the configuration.
    pub option: &'static str,
    /// What the kernel says.
    pub why: String,
}

/// Clients whose data is accepted before their address is validated (RFC 7413 section 5.1): the accept queue of older
/// kernels; each costs a segment of memory.
const FAST_OPEN_QUEUE: i32 = 128;

impl Options {
    /// The options of `asked` that the kernel has, tried on sockets that are never connected; and those that it does
    /// not have.
    pub fn of(asked: &Tcp, role: Role) -> (Self, Vec<Missing>) {
        let mut options = Self { asked: asked.clone(), speaks_first: false };
        // Most kernels have all: one socket shows it, where a socket for each would take half of the time to build a
        // snapshot.
        let all = options.bare(Domain::IPV4).and_then(|socket| {
            PARTS.iter().try_for_each(|part| (part.set)(&options.asked, &SockRef::from(&socket), role))
        });
        if all.is_ok() {
            return (options, Vec::new());
        }
        let mut missing = Vec::new();
        for Part { option, set, clear } in &PARTS {
            let tried =
                options.bare(Domain::IPV4).and_then(|socket| set(&options.asked, &SockRef::from(&socket), role));
            if let Err(error) = tried {
                clear(&mut options.asked);
                missing.push(Missing { option, why: error.to_string() });
            }
        }
        (options, missing)
    }

    /// As [`Self::of`]; what is missing is logged, with `whose` name.
    pub(crate) fn of_or_warn(asked: &Tcp, role: Role, whose: &Name) -> Self {
        let (options, missing) = Self::of(asked, role);
        for Missing { option, why } in missing {
            tracing::warn!(%whose, option, why, "this kernel does not have it: connections go without");
        }
        options
    }

    /// For connections on which this side speaks first, as soon as they are established.
    pub fn speaking_first(self) -> Self {
        Self { speaks_first: true, ..self }
    }

    /// A socket for `address` that has all of them and does not block.
    /// Errors: Those of `socket(2)`: descriptors or memory are out, or the family is not there.
    pub(crate) fn socket(&self, address: SocketAddr, role: Role) -> io::Result<Socket> {
        let socket = self.bare(Domain::for_address(address))?;
        self.set(&socket)?;
        set_fast_open(&self.asked, &SockRef::from(&socket), role)?;
        if role == Role::Connect {
            bound_connecting(&socket);
        }
        Ok(socket)
    }

    /// Of a socket that is about to connect: if this side speaks first, the last segment of TCP's handshake waits for the
    /// first bytes and goes out with them, a segment less for either host. Without such bytes it follows 40 to 200 ms
    /// later, and until then the server has no connection.
    pub(crate) fn hold_last_segment(&self, socket: &Socket) {
        if self.speaks_first {
            // An optimization only: the kernel may refuse it.
            let _ = socket.set_tcp_quickack(false);
        }
    }

    /// Sets those that a socket can be given at any time: no delay of small writes first of all.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn set(&self, socket: impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(&socket);
        socket.set_tcp_nodelay(true)?;
        keep_urgent_in_line(&socket);
        set_keepalive(&self.asked, &socket)?;
        set_user_timeout(&self.asked, &socket)?;
        set_congestion(&self.asked, &socket)
    }

    /// Replaces the options of a listening socket, for connections from now on. Multipath stays as it was.
    pub(super) fn renew(&self, listener: impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(&listener);
        socket.set_keepalive(false)?;
        if !self.asked.multipath {
            socket.set_tcp_user_timeout(None)?;
        }
        socket.set_tcp_congestion(fs::read_to_string(DEFAULT_CONGESTION)?.trim().as_bytes())?;
        fast_open::accept(&listener, if self.asked.fast_open { FAST_OPEN_QUEUE } else { 0 })?;
        self.set(&listener)
    }

    pub(super) fn multipath(&self) -> bool {
        self.asked.multipath
    }

    fn bare(&self, domain: Domain) -> io::Result<Socket> {
        let protocol = if self.asked.multipath { Protocol::MPTCP } else { Protocol::TCP };
        Socket::new(domain, Type::STREAM.nonblocking(), Some(protocol))
    }
}

/// One option: what a kernel lacks (or lacks for multipath sockets) is reported one by one.
struct Part {
    option: &'static str,
    set: fn(&Tcp, &SockRef<'_>, Role) -> io::Result<()>,
    clear: fn(&mut Tcp),
}

/// Multipath first: the others are then tried on the kind of socket that will be used.
const PARTS: [Part; 5] = [
    Part { option: "multipath", set: |_, _, _| Ok(()), clear: |tcp| tcp.multipath = false },
    Part { option: "keepalive", set: |tcp, socket, _| set_keepalive(tcp, socket), clear: |tcp| tcp.keepalive = None },
    Part {
        option: "user_timeout",
        set: |tcp, socket, _| set_user_timeout(tcp, socket),
        clear: |tcp| tcp.user_timeout = None,
    },
    Part { option: "fast_open", set: set_fast_open, clear: |tcp| tcp.fast_open = false },
    Part {
        option: "congestion",
        set: |tcp, socket, _| set_congestion(tcp, socket),
        clear: |tcp| tcp.congestion = None,
    },
];

/// A silent peer is given up after some three times the keepalive time, with the kernel's nine probes.
const PROBES_IN_SILENCE: u32 = 4;

/// Keeps an urgent byte in the stream, as RFC 6093 section 6 recommends: TLS has no out-of-band data, and the byte
/// would be lost. A kernel that refuses has no urgent data for this kind of socket.
pub(super) fn keep_urgent_in_line(socket: &SockRef<'_>) {
    let _ = socket.set_out_of_band_inline(true);
}

fn set_keepalive(tcp: &Tcp, socket: &SockRef<'_>) -> io::Result<()> {
    let Some(silence) = tcp.keepalive else { return Ok(()) };
    let every = (silence / PROBES_IN_SILENCE).max(Duration::from_secs(1));
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(silence).with_interval(every))
}

fn set_user_timeout(tcp: &Tcp, socket: &SockRef<'_>) -> io::Result<()> {
    tcp.user_timeout.map_or(Ok(()), |timeout| socket.set_tcp_user_timeout(Some(timeout)))
}

const DEFAULT_CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const KNOWN_CONGESTION: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// The kernel reports an unknown name as ENOENT.
fn set_congestion(tcp: &Tcp, socket: &SockRef<'_>) -> io::Result<()> {
    let Some(name) = &tcp.congestion else { return Ok(()) };
    socket.set_tcp_congestion(name.as_bytes()).map_err(|error| {
        let known = fs::read_to_string(KNOWN_CONGESTION).unwrap_or_default();
        io::Error::new(error.kind(), format!("{name}: {error}; this kernel has: {}", known.trim()))
    })
}

fn set_fast_open(tcp: &Tcp, socket: &SockRef<'_>, role: Role) -> io::Result<()> {
    match role {
        _ if !tcp.fast_open => Ok(()),
        Role::Connect => fast_open::connect(&**socket),
        Role::Listen if !serves_fast_open() => {
            Err(io::Error::other("switched off for listeners; `sysctl net.ipv4.tcp_fastopen=3` switches it on"))
        }
        Role::Listen => fast_open::accept(&**socket, FAST_OPEN_QUEUE),
    }
}

/// A listener takes the option in any case; whether it takes effect is the second bit of this setting.
fn serves_fast_open() -> bool {
    let setting = fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen").unwrap_or_default();
    setting.trim().parse::<u32>().is_ok_and(|bits| bits & 2 != 0)
}
