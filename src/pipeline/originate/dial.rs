//! A TCP connection to the first of several addresses that answers (Happy Eyeballs v2, RFC 8305).
//!
//! Addresses are tried with alternating families, a new one every 250 ms or as soon as the last has failed. The first
//! connection wins, the others are dropped: a network that swallows IPv6 costs a quarter of a second.

use std::collections::HashSet;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until};

use crate::net::{self, Options, Role};
use crate::pipeline::originate::pool::waiting;

/// Between the starts of two attempts (RFC 8305 section 5, "connection attempt delay").
pub(crate) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Connects to the first address that answers. The socket has the default options.
///
/// Takes as long as the kernel does (minutes): the caller bounds it, or calls [`dial_before`], which
/// then still says what was tried. Cancel safe: attempts end with the future.
pub async fn dial(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), Error> {
    dial_before(addresses, &Options::default(), None).await
}

/// The same with options and a deadline. When it passes, attempts without an answer are listed as such.
pub async fn dial_before(
    addresses: &[SocketAddr],
    options: &Options,
    deadline: Option<Instant>,
) -> Result<(TcpStream, SocketAddr), Error> {
    race(addresses, options, deadline).await.map(|dialed| (dialed.tcp, dialed.address))
}

#[derive(Debug)]
pub(crate) struct Dialed {
    pub(crate) tcp: TcpStream,
    pub(crate) address: SocketAddr,
    /// Addresses that failed before, or whose attempt began earlier and had no answer yet.
    pub(crate) lost: Vec<ConnectFailure>,
}

pub(crate) async fn race(
    addresses: &[SocketAddr],
    options: &Options,
    deadline: Option<Instant>,
) -> Result<Dialed, Error> {
    let mut waiting = schedule(addresses).into_iter();
    let mut race = Race::default();
    // `None`: at once, without a timer; its resolution of a millisecond is ten connects on loopback.
    let mut next_start = None;
    loop {
        if next_start.is_none()
            && let Some(address) = waiting.next()
        {
            race.start(address, options);
            next_start = Some(Instant::now() + ATTEMPT_DELAY);
        }
        if race.running.is_empty() {
            return Err(Error { attempts: race.lost });
        }
        tokio::select! {
            biased;
            (address, outcome) = race.next() => match outcome {
                Ok(tcp) => return Ok(Dialed { tcp, address, lost: race.overtaken() }),
                Err(error) => {
                    let cause = Cause::from(&error);
                    race.lost.push(ConnectFailure { address, cause, detail: error.to_string() });
                    // No address is better than another while descriptors are missing.
                    if cause == Cause::NoDescriptors {
                        return Err(Error { attempts: race.lost });
                    }
                    next_start = None;
                }
            },
            () = until(next_start), if waiting.len() > 0 => next_start = None,
            () = until(deadline) => return Err(race.out_of_time()),
        }
    }
}

/// The order of attempts: families alternate, beginning with that of the first address; inside a family the given
/// order; each address once (RFC 8305 section 4).
pub(crate) fn schedule(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    if let [only] = addresses {
        return vec![*only];
    }
    let mut seen = HashSet::new();
    let unique = addresses.iter().copied().filter(|address| seen.insert(*address));
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = unique.partition(|address| address.is_ipv6() == first_is_v6);
    let mut order = Vec::with_capacity(preferred.len() + other.len());
    let mut preferred = preferred.into_iter();
    let mut other = other.into_iter();
    loop {
        let before = order.len();
        order.extend(preferred.next());
        order.extend(other.next());
        if order.len() == before {
            return order;
        }
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

#[derive(Default)]
struct Race {
    running: Vec<(SocketAddr, Instant, Connecting)>,
    lost: Vec<ConnectFailure>,
}

impl Race {
    fn start(&mut self, address: SocketAddr, options: &Options) {
        let socket = options.socket(address, Role::Connect);
        // Where workers idle, the server accepts the connection while the ClientHello is made.
        if !waiting::leave_workers_idle() {
            socket.iter().for_each(|socket| options.hold_last_segment(socket));
        }
        self.running.push((address, Instant::now(), Box::pin(async move { connect(socket?, address).await })));
    }

    async fn next(&mut self) -> (SocketAddr, io::Result<TcpStream>) {
        poll_fn(|cx| {
            for at in 0..self.running.len() {
                let (address, _, connecting) = &mut self.running[at];
                if let Poll::Ready(outcome) = connecting.as_mut().poll(cx) {
                    let address = *address;
                    drop(self.running.remove(at));
                    return Poll::Ready((address, outcome));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The attempts that lost the race. The one that began last has not lost: it had no time.
    fn overtaken(mut self) -> Vec<ConnectFailure> {
        let now = Instant::now();
        let slow = self.running.iter().filter(|(_, began, _)| now - *began >= ATTEMPT_DELAY);
        self.lost.extend(slow.map(|(address, ..)| ConnectFailure {
            address: *address,
            cause: Cause::Timeout,
            detail: "another address answered that was asked later".to_owned(),
        }));
        self.lost
    }

    fn out_of_time(mut self) -> Error {
        let silent = self.running.iter().map(|(address, ..)| ConnectFailure {
            address: *address,
            cause: Cause::Timeout,
            detail: "no answer within the deadline".to_owned(),
        });
        self.lost.extend(silent);
        Error { attempts: self.lost }
    }
}

async fn connect(socket: socket2::Socket, address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    // A port of the ephemeral range where nobody listens can be picked as our own: TCP then connects
    // the socket to itself.
    if tcp.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(tcp)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// No address accepted a connection.
#[derive(Debug)]
pub struct Error {
    /// In the order in which they ended. Empty if there was no address to try, or no time.
    pub attempts: Vec<ConnectFailure>,
}

/// A failed connection attempt to one address.
#[derive(Debug)]
pub struct ConnectFailure {
    /// Where to.
    pub address: SocketAddr,
    /// The class of its error.
    pub cause: Cause,
    pub(crate) detail: String,
}

/// Why an attempt failed. Ordered by how specific it is: of several attempts, the most specific cause is the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// No route: also what IPv6 addresses give on a machine without IPv6.
    Unreachable,
    /// EADDRNOTAVAIL: every local port towards this address is taken (or the family has no local address).
    NoPorts,
    /// Anything else; the detail says what.
    Other,
    /// No answer.
    Timeout,
    /// The connection was reset before it was established.
    Reset,
    /// Nobody listens there.
    Refused,
    /// The process or the system has no descriptor left.
    NoDescriptors,
}

impl Cause {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Unreachable => "connect_unreachable",
            Self::NoPorts => "no_ports",
            Self::Timeout => "connect_timeout",
            Self::Reset => "connect_reset",
            Self::Refused => "connect_refused",
            Self::NoDescriptors => "no_descriptors",
            Self::Other => "connect_failed",
        }
    }

    /// The cause is on this machine; the address may be healthy.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::NoPorts | Self::NoDescriptors)
    }
}

impl Error {
    /// The reason of the most specific cause.
    pub fn reason(&self) -> &'static str {
        self.attempts.iter().map(|attempt| attempt.cause).max().unwrap_or(Cause::Other).reason()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.attempts.is_empty() {
            return f.write_str("there was no address to connect to");
        }
        for (index, ConnectFailure { address, detail, .. }) in self.attempts.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {detail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<&io::Error> for Cause {
    fn from(error: &io::Error) -> Self {
        if net::is_out_of_descriptors(error) {
            return Self::NoDescriptors;
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Self::Reset,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
                Self::Unreachable
            }
            io::ErrorKind::AddrNotAvailable => Self::NoPorts,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses() -> impl Strategy<Value = Vec<SocketAddr>> {
        // Few hosts, to get duplicates.
        let address = (any::<bool>(), 0u8..12).prop_map(|(v6, host)| match v6 {
            true => SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()], 443)),
            false => SocketAddr::from(([192, 0, 2, host], 443)),
        });
        prop::collection::vec(address, 0..24)
    }

    fn unique(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut seen = HashSet::new();
        addresses.iter().copied().filter(|address| seen.insert(*address)).collect()
    }

    proptest! {
        #[test]
        fn every_address_is_tried_once_and_families_keep_their_order(given in addresses()) {
            let order = schedule(&given);
            for v6 in [true, false] {
                let of = |list: &[SocketAddr]| list.iter().copied().filter(|a| a.is_ipv6() == v6).collect::<Vec<_>>();
                prop_assert_eq!(of(&order), of(&unique(&given)));
            }
        }

        #[test]
        fn families_take_turns_while_both_are_left(given in addresses()) {
            let order = schedule(&given);
            prop_assert_eq!(order.first(), given.first());
            for (at, pair) in order.windows(2).enumerate() {
                if pair[0].is_ipv6() == pair[1].is_ipv6() {
                    let family = pair[0].is_ipv6();
                    prop_assert!(order[at..].iter().all(|a| a.is_ipv6() == family), "{order:?}");
                }
            }
        }
    }

    #[test]
    fn reason_is_that_of_the_most_telling_attempt() {
        let address = SocketAddr::from(([192, 0, 2, 1], 443));
        let attempt = |cause| ConnectFailure { address, cause, detail: String::new() };
        let attempts = vec![attempt(Cause::Refused), attempt(Cause::Unreachable)];
        assert_eq!(Error { attempts }.reason(), "connect_refused");
        for (errno, reason) in [
            (rustix::io::Errno::MFILE, "no_descriptors"),
            (rustix::io::Errno::NFILE, "no_descriptors"),
            (rustix::io::Errno::ADDRNOTAVAIL, "no_ports"),
            (rustix::io::Errno::NETUNREACH, "connect_unreachable"),
            (rustix::io::Errno::HOSTUNREACH, "connect_unreachable"),
            (rustix::io::Errno::TIMEDOUT, "connect_timeout"),
            (rustix::io::Errno::CONNRESET, "connect_reset"),
            (rustix::io::Errno::ACCESS, "connect_failed"),
        ] {
            let cause = Cause::from(&io::Error::from(errno));
            assert_eq!(Error { attempts: vec![attempt(cause)] }.reason(), reason);
        }
    }
}
