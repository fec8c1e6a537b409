use std::time::Duration;

/// Options of TCP connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Silence before the peer is probed. `None`: it never is. Default 60 s.
    pub keepalive: Option<Duration>,
    /// Longest time that sent bytes may stay unacknowledged. `None`: as long as the kernel tries. Default none.
    pub user_timeout: Option<Duration>,
    /// Data in the first packet (RFC 7413). Default false.
    pub fast_open: bool,
    /// Several paths for one connection (RFC 8684). Default false.
    pub multipath: bool,
    /// The kernel's name of the congestion control. `None`: the kernel's default.
    pub congestion: Option<String>,
}

/// Well below the idle time-outs of common firewalls (350 s at the shortest that is documented for cloud load
/// balancers).
const KEEPALIVE: Duration = Duration::from_secs(60);

impl Default for Tcp {
    fn default() -> Self {
        let keepalive = Some(KEEPALIVE);
        let user_timeout = None;
        let congestion = None;
        Self { keepalive, user_timeout, fast_open: false, multipath: false, congestion }
    }
}
