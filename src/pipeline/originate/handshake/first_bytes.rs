//! Guesses the protocol of a server that does not speak TLS from its first bytes.

use std::fmt;

use crate::protocols::Upgrade;

/// What the first bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// An HTTP response.
    Http,
    /// An SSH banner (RFC 4253 section 4.2).
    Ssh,
    /// A server whose protocol egret can speak before TLS.
    Upgrade(Upgrade),
    /// An error of Redis.
    Redis,
    /// A SETTINGS frame of HTTP/2.
    Http2,
    /// Something else.
    Unknown,
}

/// What bytes that are no TLS record look like; `None` if they may be one (RFC 8446 section 5.1): content
/// type 20 to 24, then the major version 3.
pub fn plaintext(bytes: &[u8]) -> Option<Plaintext> {
    match bytes {
        [20..=24] | [20..=24, 3, ..] | [] => None,
        [b'H', b'T', b'T', b'P', b'/', ..] => Some(Plaintext::Http),
        [b'S', b'S', b'H', b'-', ..] => Some(Plaintext::Ssh),
        [b'-', b'A'..=b'Z', b'A'..=b'Z', ..] => Some(Plaintext::Redis),
        [0, 0, _, 4, ..] => Some(Plaintext::Http2),
        _ => Some(Upgrade::of_answer(bytes).map_or(Plaintext::Unknown, Plaintext::Upgrade)),
    }
}

impl fmt::Display for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Http => "HTTP without TLS: is this the port of https?",
            Self::Ssh => "SSH: is this the right port?",
            Self::Upgrade(protocol) => return write!(f, "{}, which begins TLS by a request of its own", protocol.name),
            Self::Redis => "Redis without TLS: is this its tls-port?",
            Self::Http2 => "HTTP/2 without TLS: is this the port of https?",
            Self::Unknown => "an unknown protocol in plaintext",
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_tls_is_not_called_plaintext() {
        for bytes in [&b""[..], b"\x16", b"\x16\x03\x03\x00\x7a", b"\x15\x03\x01\x00\x02\x02\x28"] {
            assert_eq!(plaintext(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn greetings_are_told_apart() {
        let of = |word| Plaintext::Upgrade(Upgrade::of(word).unwrap());
        let greetings: [(&[u8], Plaintext); 15] = [
            (b"HTTP/1.1 400 Bad Request\r\n", Plaintext::Http),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Plaintext::Ssh),
            (b"220 mail.example.com ESMTP\r\n", of("smtp")),
            (b"220 (vsFTPd 3.0.3)\r\n", of("ftp")),
            (b"* OK IMAP4rev1\r\n", of("imap")),
            (b"+OK ready\r\n", of("pop3")),
            (b"201 news.example.com ready (no posting)\r\n", of("nntp")),
            (b"\"IMPLEMENTATION\" \"x\"\r\nOK\r\n", of("sieve")),
            (b"<?xml version='1.0'?><stream:stream xmlns='jabber:client'>", of("xmpp")),
            (b"<?xml version='1.0'?><stream:stream xmlns='jabber:server'>", of("xmpp-server")),
            (b"\x30\x0c\x02\x01\x00\x78\x07\x0a\x01\x02\x04\x00\x04\x00", of("ldap")),
            (b"-ERR unknown command\r\n", Plaintext::Redis),
            (b"\x4a\x00\x00\x00\x0a8.0.36\0", of("mysql")),
            (b"EFATAL:  unsupported frontend protocol\n", of("postgres")),
            (b"\x00\x00\x12\x04\x00", Plaintext::Http2),
        ];
        for (bytes, guess) in greetings {
            assert_eq!(plaintext(bytes), Some(guess), "{bytes:?}");
        }
    }
}
