//! Connecting to the first of several addresses that answers. Loopback only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use egret::net::Options;
use egret::pipeline::originate::dial::{Cause, dial, dial_before};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::support::PATIENCE;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// An address that swallows connection attempts: a listener whose backlog is full.
struct BlackHole {
    address: SocketAddr,
    _listener: Socket,
    backlog: Vec<Socket>,
}

impl BlackHole {
    fn at(ip: IpAddr) -> Self {
        let any_port = SocketAddr::new(ip, 0);
        let listener = Socket::new(Domain::for_address(any_port), Type::STREAM, None).unwrap();
        listener.bind(&any_port.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // More than the backlog holds; those that do not fit go on trying, like everyone after them.
        let backlog = (0..4).map(|_| fill(address)).collect();
        Self { address, _listener: listener, backlog }
    }
}

fn fill(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let _ = socket.connect(&address.into());
    // Time for the handshake on loopback, so that the queue is filled in order.
    std::thread::sleep(Duration::from_millis(20));
    socket
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((V4, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address of loopback where nobody listens, and where nobody will: the port stays bound.
fn nobody(ip: IpAddr) -> (Socket, SocketAddr) {
    let any_port = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(any_port), Type::STREAM, None).unwrap();
    socket.bind(&any_port.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

#[tokio::test]
async fn ipv4_wins_when_ipv6_is_black_holed() {
    let hole = BlackHole::at(V6);
    let (_listener, address) = listener().await;
    let started = Instant::now();
    let (tcp, reached) = timeout(Duration::from_secs(10), dial(&[hole.address, address])).await.unwrap().unwrap();
    assert_eq!((reached, tcp.peer_addr().unwrap()), (address, address));
    assert!(started.elapsed() >= Duration::from_millis(200), "the preferred address had its chance");
    assert!(tcp.nodelay().unwrap(), "the options of every connection");
}

#[tokio::test]
async fn refused_address_starts_the_next_at_once() {
    let refusing: Vec<_> = (0..200).map(|_| nobody(V4)).collect();
    let (_listener, address) = listener().await;
    let mut addresses: Vec<SocketAddr> = refusing.iter().map(|(_, address)| *address).collect();
    addresses.push(address);
    // Two hundred attempts a delay apart would take 50 s.
    let dialed = timeout(PATIENCE, dial(&addresses)).await.expect("no attempt waits for the delay");
    assert_eq!(dialed.unwrap().1, address);
}

#[tokio::test]
async fn failure_names_every_address() {
    let (_a, first) = nobody(V4);
    let (_b, second) = nobody(V4);
    let error = dial(&[first, second]).await.unwrap_err();
    assert_eq!(error.reason(), "connect_refused");
    let text = error.to_string();
    for address in [first, second] {
        assert!(text.contains(&format!("{address}: ")), "{text}");
    }
    assert_eq!(dial(&[]).await.unwrap_err().reason(), "connect_failed");
}

#[tokio::test]
async fn deadline_still_says_what_was_tried() {
    let hole = BlackHole::at(V4);
    let (_a, refusing) = nobody(V6);
    let deadline = Instant::now() + Duration::from_millis(600);
    let error = dial_before(&[hole.address, refusing], &Options::default(), Some(deadline)).await.unwrap_err();
    let of = |address| error.attempts.iter().find(|attempt| attempt.address == address).unwrap().cause;
    assert_eq!(of(hole.address), Cause::Timeout);
    assert_eq!(of(refusing), Cause::Refused);
    assert_eq!(error.reason(), "connect_refused");
    let error = dial_before(&[hole.address], &Options::default(), Some(Instant::now() + Duration::from_millis(50)))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "connect_timeout");
}

#[tokio::test]
async fn losers_of_the_race_are_dropped() {
    let hole = BlackHole::at(V4);
    let (listener, address) = listener().await;
    let addresses = [hole.address, address];
    let (tcp, reached) = dial(&addresses).await.unwrap();
    assert_eq!(reached, address);
    let _accepted = listener.accept().await.unwrap();
    let trying = connecting_to(hole.address);
    assert_eq!(trying.len(), hole.backlog.len(), "an attempt is left: {trying:?}");
    drop(tcp);
}

/// Sockets of this machine that are connected or connecting to an address of IPv4.
fn connecting_to(address: SocketAddr) -> Vec<String> {
    let IpAddr::V4(ip) = address.ip() else { panic!("IPv4 only") };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to = |line: &&str| line.split_whitespace().nth(2) == Some(&*wanted);
    table.lines().filter(to).map(str::to_owned).collect()
}

#[tokio::test]
async fn nobody_is_connected_to_itself() {
    // A free port of the range the kernel picks our own port from. Towards one address it goes through
    // that range in steps, so enough attempts come by the port itself.
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let mut bounds = range.split_whitespace().map(|bound| bound.parse::<u16>().unwrap());
    let (low, high) = (bounds.next().unwrap(), bounds.next().unwrap());
    let free = |port: &u16| std::net::TcpListener::bind((V4, *port)).is_ok();
    let port = (low..high).step_by(2).skip(50).find(free).unwrap();
    for _ in 0..u32::from(high - low) {
        match dial(&[SocketAddr::new(V4, port)]).await {
            Err(error) => assert_eq!(error.reason(), "connect_refused", "{error}"),
            Ok((tcp, _)) => assert_ne!(tcp.local_addr().unwrap(), tcp.peer_addr().unwrap()),
        }
    }
}
