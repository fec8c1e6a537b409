//! Checks a peer against `allow` and `allow_users`.
//!
//! Pure once loaded: the user database is read when the configuration is, never per connection.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::config::values::{Access, User};
use crate::net::Peer;

/// The allowed clients, with user names resolved to ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    networks: Vec<IpNet>,
    users: Vec<u32>,
}

impl Admission {
    /// Resolves the names of users by `/etc/passwd`; read only if there is a name.
    pub fn load(access: &Access) -> Result<Self, Error> {
        Self::load_with(access, Path::new("/etc/passwd"))
    }

    fn load_with(access: &Access, database: &Path) -> Result<Self, Error> {
        let named = access.users.iter().any(|user| matches!(user, User::Name(_)));
        let passwd = match named {
            true => fs::read(database).map_err(Error::UserDatabase)?,
            false => Vec::new(),
        };
        // Only names and numbers are used; a comment in another encoding must not hide them.
        let passwd = String::from_utf8_lossy(&passwd);
        let uid = |user: &User| match user {
            User::Id(uid) => Ok(*uid),
            User::Name(name) => uid_of(&passwd, name).ok_or_else(|| Error::UnknownUser(name.clone())),
        };
        let users = access.users.iter().map(uid).collect::<Result<_, _>>()?;
        Ok(Self { networks: access.networks.clone(), users })
    }

    /// Whether this peer is allowed. An empty list of its kind admits all: without networks a TCP listener is on a
    /// loopback address, without users a Unix socket is guarded by its mode.
    ///
    /// A list of users is exact: root is no exception.
    pub(crate) fn check(&self, peer: &Peer) -> Result<(), Refused> {
        match peer {
            Peer::Tcp(address) => {
                // A listener on [::] sees IPv4 clients as ::ffff:192.0.2.1; networks are written as IPv4.
                let ip = address.ip().to_canonical();
                let admitted = self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&ip));
                admitted.then_some(()).ok_or(Refused::Network(ip))
            }
            Peer::Unix { uid, .. } => {
                let admitted = self.users.is_empty() || self.users.contains(uid);
                admitted.then_some(()).ok_or(Refused::User(*uid))
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0} is in no network of `allow`")]
    Network(IpAddr),
    #[error("user id {0} is not in `allow_users`")]
    User(u32),
}

impl Refused {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Network(_) => "network_not_allowed",
            Self::User(_) => "user_not_allowed",
        }
    }
}

/// Why the list of allowed clients cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user database cannot be read.
    #[error("cannot read /etc/passwd for the names in `allow_users` (a number needs no look-up)")]
    UserDatabase(#[source] io::Error),
    /// No such user.
    #[error("no user {0:?} in /etc/passwd; a user of another directory can be given by number")]
    UnknownUser(String),
}

impl Error {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::UserDatabase(_) => "user_database_unreadable",
            Self::UnknownUser(_) => "user_unknown",
        }
    }
}

/// The id of a user in the format of passwd(5): name, password, uid, ..., separated by colons.
fn uid_of(passwd: &str, name: &str) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let uid = fields.nth(1)?;
        if found { uid.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0::/root:/bin/sh\n# a remark\nbroken\napp:x:1001:1001:App:/:/bin/false\nbad:x:-1:0::/:\n";

    fn access(networks: &[&str], users: &[User]) -> Access {
        Access { networks: networks.iter().map(|net| net.parse().unwrap()).collect(), users: users.to_vec() }
    }

    fn load(access: &Access) -> Result<Admission, Error> {
        let folder = tempfile::tempdir().unwrap();
        let passwd = folder.path().join("passwd");
        fs::write(&passwd, PASSWD).unwrap();
        Admission::load_with(access, &passwd)
    }

    fn tcp(ip: &str) -> Peer {
        Peer::Tcp((ip.parse::<IpAddr>().unwrap(), 40000).into())
    }

    #[test]
    fn only_peers_of_a_named_network_may_come() {
        let admission = load(&access(&["192.0.2.0/24", "2001:db8::/32"], &[])).unwrap();
        for ip in ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"] {
            assert_eq!(admission.check(&tcp(ip)), Ok(()), "{ip}");
        }
        for ip in ["198.51.100.1", "::ffff:198.51.100.1", "::1", "127.0.0.1"] {
            let refused = admission.check(&tcp(ip)).unwrap_err();
            assert_eq!(refused.reason(), "network_not_allowed", "{ip}");
        }
    }

    #[test]
    fn only_named_users_may_come_and_root_is_no_exception() {
        let admission = load(&access(&[], &[User::Name("app".into()), User::Id(7)])).unwrap();
        for uid in [1001, 7] {
            assert_eq!(admission.check(&Peer::Unix { uid, pid: None }), Ok(()));
        }
        assert_eq!(admission.check(&Peer::Unix { uid: 0, pid: None }), Err(Refused::User(0)));
    }

    #[test]
    fn without_a_word_everybody_may_come_who_reaches_the_socket() {
        let admission = load(&Access::default()).unwrap();
        assert_eq!(admission.check(&tcp("127.0.0.1")), Ok(()));
        assert_eq!(admission.check(&Peer::Unix { uid: 1234, pid: Some(1) }), Ok(()));
    }

    #[test]
    fn a_user_that_does_not_exist_is_an_error() {
        for name in ["nobody-here", "bad", "broken", ""] {
            let error = load(&access(&[], &[User::Name(name.into())])).unwrap_err();
            assert_eq!(error.reason(), "user_unknown", "{name}");
        }
    }
}
