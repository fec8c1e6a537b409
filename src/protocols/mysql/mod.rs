//! MySQL and MariaDB ("Connection Phase" of the client/server protocol).
//!
//! The server speaks first. A client answers its greeting with a request for TLS, which has the head of the answer that
//! it sends inside TLS. A client of egret sees the greeting without the offer of TLS and answers it in plaintext; egret
//! makes the request of it, and sends the answer when the server is verified. Both sides number their packets until the
//! login is over, and the server's side has one packet more.
//!
//! | file | idea |
//! |---|---|
//! | `packet` | the form of the packets |
//! | `server` | a server without a client |
//! | `client` | the login of a client |

mod client;
mod packet;
mod server;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use server::Server;

use bytes::Bytes;

use super::Protocol;
use super::answers::AnswerFormat;
use super::login::LoginInside;

pub(super) const PROTOCOL: Protocol = Protocol {
    word: "mysql",
    name: "MySQL",
    port: 3306,
    tls_port: None,
    max_idle_age: super::HASTY,
    schemes: &["mysql", "mariadb"],
    stunnel: &[],
    client: None,
    server: |_| Box::new(Server::new(None)),
    login: Some(LoginInside {
        client: || Box::new(Client::default()),
        server: |request| Box::new(Server::new(Some(request))),
        not_spoken: "downstream_not_mysql",
        without_tls: "in its option file:\n    ssl-mode = DISABLED (MySQL)\n    skip-ssl (MariaDB)",
    }),
    answer: Some(AnswerFormat::MYSQL),
    cancellation: None,
    alpn: None,
    is_answer: |bytes| matches!(bytes, [_, _, 0, 0, packet::VERSION, ..] | [_, 0 | 1, 0, 0, 0xff, ..]),
    limits: None,
    server_with_tls: "in the [mysqld] section of its option file, then restart it:\n    \
                      ssl_ca = /etc/mysql/ca.pem\n    ssl_cert = /etc/mysql/server.pem\n    ssl_key = /etc/mysql/server.key",
};

/// A packet under another number.
pub(crate) fn renumbered(packet: Bytes, number: u8) -> Bytes {
    let mut packet = packet.to_vec();
    if let Some(place) = packet.get_mut(3) {
        *place = number;
    }
    packet.into()
}
