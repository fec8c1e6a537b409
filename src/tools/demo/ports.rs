//! Where to listen: the ports of the story if they are free, others if not.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::tools::demo::Error;

#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) with_identity: Port,
    pub(super) without_identity: Port,
    /// `/status`, `/metrics`.
    pub(super) admin: Port,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    /// The documented port.
    pub(super) wanted: u16,
    /// The port that was free.
    pub(super) port: u16,
}

impl Ports {
    /// Tries the ports. They are free again afterwards, since egret binds them itself: if another process takes one in
    /// these milliseconds, the start fails with an error.
    pub(super) fn choose() -> Result<Self, Error> {
        // All are held until all are chosen, so that no two are the same.
        let (with_identity, _first) = Port::choose(8080)?;
        let (without_identity, _second) = Port::choose(8081)?;
        let (admin, _third) = Port::choose(9465)?;
        Ok(Self { with_identity, without_identity, admin })
    }

    /// A sentence for each port that differs from the documented one.
    pub(super) fn replaced(&self) -> impl Iterator<Item = String> {
        let all = [self.with_identity, self.without_identity, self.admin];
        all.into_iter().filter(|one| one.port != one.wanted).map(|one| {
            let Port { wanted, port } = one;
            format!("Port {wanted} is taken: {port} is used in its place.\n")
        })
    }
}

impl Port {
    fn choose(wanted: u16) -> Result<(Self, TcpListener), Error> {
        let listener = match bind(wanted) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => bind(0),
            bound => bound,
        };
        let listener = listener.map_err(Error::Listen)?;
        let port = listener.local_addr().map_err(Error::Listen)?.port();
        Ok((Self { wanted, port }, listener))
    }

    pub(super) fn address(self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

/// Like the listeners of egret, the standard library sets SO_REUSEADDR: what is free here is free there.
fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_replaced_by_a_free_one() {
        let taken = bind(0).unwrap();
        let wanted = taken.local_addr().unwrap().port();
        let (other, _held) = Port::choose(wanted).unwrap();
        assert_ne!(other.port, wanted);
        let free = Port { wanted: 1, port: 1 };
        let ports = Ports { with_identity: free, without_identity: other, admin: free };
        let said: Vec<String> = ports.replaced().collect();
        assert_eq!(said, [format!("Port {wanted} is taken: {} is used in its place.\n", other.port)]);
    }
}
