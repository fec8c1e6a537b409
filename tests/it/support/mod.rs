//! What the promises stand on: throw-away certificates, real servers, the real program, and peers that
//! misbehave on purpose.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub(crate) mod account;
pub(crate) mod authority;
pub(crate) mod caddy;
pub(crate) mod cgroup;
pub(crate) mod costly_keys;
pub(crate) mod dns;
pub(crate) mod dovecot;
pub(crate) mod egret;
pub(crate) mod fleet;
pub(crate) mod go;
pub(crate) mod http;
pub(crate) mod mariadb;
pub(crate) mod metrics;
pub(crate) mod name_server;
pub(crate) mod namespace;
pub(crate) mod nginx;
pub(crate) mod openssl;
pub(crate) mod origins;
pub(crate) mod pattern;
pub(crate) mod peer;
pub(crate) mod pki;
pub(crate) mod plain;
pub(crate) mod postfix;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod prosody;
pub(crate) mod records;
pub(crate) mod redis;
pub(crate) mod slapd;
pub(crate) mod systemd;
pub(crate) mod tls_server;
pub(crate) mod vsftpd;

/// How long anything that has to happen may take. Far above what an idle machine needs, so that a busy
/// one fails only when the thing does not happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `probe` gives a value, and gives up with a text that says what was waited for.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// First port that is handed out, and how many follow: below the range from which the kernel takes the
/// ports of outgoing connections (32768 on), so that none of them is in the way.
const PORTS: (u16, u16) = (12_000, 20_000);

/// A loopback port that nobody listens on: for servers that cannot be told to choose one themselves.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two runs of the suite at once begin at different places.
    let start = (std::process::id().wrapping_mul(257) % u32::from(PORTS.1)) as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.0 + (start.wrapping_add(step)) % PORTS.1;
        if TcpListener::bind(loopback(port)).is_ok() {
            return port;
        }
    }
}

/// 127.0.0.1 with this port.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
