//! How many connections the limit of open files allows, with a reserve for what is not a stream.

use rustix::process::{Resource, Rlimit};

use crate::config::values::Limits;
use crate::net;

/// Descriptors that are not streams': standard streams, epoll, listeners, admin connections, files that a
/// reload reads, sockets of name look-ups. Where the limit is small, a quarter of it. Listeners that are more than a quarter of
/// the reserve are counted beside it.
const RESERVED: u64 = 128;

/// Takes all descriptors that the hard limit grants, and says how many those are. The soft limit is low
/// (1024, often) for the sake of programs that use select(2).
pub(super) fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let limit = if rustix::process::setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
    limit.unwrap_or(u64::MAX)
}

/// The connections at once: the configured bound, but no more than the descriptors allow beside those that are `held`: by
/// warm connections, admin addresses and listeners. A configured bound that cannot be granted is logged.
pub(super) fn connections(limits: &Limits, descriptors: u64, held: usize) -> usize {
    let most = connections_within(descriptors, held as u64);
    match limits.max_connections {
        Some(asked) if asked > most => {
            tracing::warn!(
                asked,
                max_connections = most,
                open_files = descriptors,
                "limits.max_connections is more than the hard limit of open files allows: further clients wait; raise \
                 the limit (LimitNOFILE of systemd, ulimit -Hn), or lower max_connections",
            );
            most
        }
        Some(asked) => asked,
        None => most,
    }
}

/// The descriptors of listeners, but for those that the reserve has room for.
pub(super) fn held_by(listeners: usize) -> usize {
    listeners.saturating_sub(RESERVED as usize / 4)
}

/// Two descriptors a stream, one for each side; and two a pipe, which streams share.
fn connections_within(descriptors: u64, held: u64) -> usize {
    let reserved = RESERVED.min(descriptors / 4) + 2 * net::pipes_within(descriptors) as u64;
    let streams = descriptors.saturating_sub(reserved + held);
    usize::try_from(streams / 2).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_pipes_and_warm_connections_leave_a_reserve() {
        for descriptors in [64, 256, 1024, 65_536, 1 << 30] {
            for warm in [0, descriptors / 8, descriptors / 4] {
                let streams = 2 * connections_within(descriptors, warm) as u64;
                let left = descriptors - streams - warm - 2 * net::pipes_within(descriptors) as u64;
                assert!(left >= RESERVED.min(descriptors / 4), "{left} of {descriptors} are left beside {warm} warm");
                assert!(left <= RESERVED + 2, "{left} of {descriptors} are not used");
            }
        }
        assert_eq!(connections_within(0, 0), 1);
        assert_eq!(connections_within(100, 1000), 1);
    }

    #[test]
    fn what_is_asked_for_is_granted_up_to_the_limit() {
        let most = connections_within(256, 0);
        for (asked, granted) in [(None, most), (Some(10), 10), (Some(most), most), (Some(1000), most)] {
            let limits = Limits { max_connections: asked, memory: None, max_warm: None };
            assert_eq!(connections(&limits, 256, 0), granted, "{asked:?}");
        }
    }

    /// If they were not counted, egret would accept clients and then have no descriptor for the server's side.
    #[test]
    fn listeners_have_their_descriptors_beside_the_streams() {
        let limits = Limits { max_connections: None, memory: None, max_warm: None };
        for (listeners, warm) in [(1, 0), (32, 0), (33, 0), (1_000, 256), (10_000, 0), (10_000, 256), (30_000, 0)] {
            let streams = connections(&limits, 20_000, warm + held_by(listeners));
            assert!(2 * streams + warm + listeners <= 20_000 || streams == 1, "{listeners}: {streams}");
        }
        let [one, few] = [1, 32].map(|listeners| connections(&limits, 20_000, held_by(listeners)));
        assert_eq!(one, few, "the reserve has room for these");
    }
}
