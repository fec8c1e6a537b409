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
    /// The greeting `220` of SMTP or FTP.
    Smtp,
    /// The greeting of IMAP (RFC 9051).
    Imap,
    /// The greeting of POP3 (RFC 1939).
    Pop3,
    /// The answer of a server whose protocol egret can speak before TLS.
    Upgrade(Upgrade),
    /// The initial handshake packet of MySQL.
    MySql,
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
        [b'2', b'2', b'0', b' ' | b'-', ..] => Some(Plaintext::Smtp),
        [b'*', b' ', ..] => Some(Plaintext::Imap),
        [b'+', b'O', b'K', ..] => Some(Plaintext::Pop3),
        [b'-', b'A'..=b'Z', b'A'..=b'Z', ..] => Some(Plaintext::Redis),
        [_, _, 0, 0, 10, ..] | [_, 0, 0, 0, 255, ..] => Some(Plaintext::MySql),
        [0, 0, _, 4, ..] => Some(Plaintext::Http2),
        _ => Some(Upgrade::of_answer(bytes).map_or(Plaintext::Unknown, Plaintext::Upgrade)),
    }
}

impl fmt::Display for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Http => "HTTP without TLS: is this the port of https?",
            Self::Ssh => "SSH: is this the right port?",
            Self::Smtp => "SMTP or FTP, which begin in plaintext",
            Self::Imap => "IMAP, which begins in plaintext on this port",
            Self::Pop3 => "POP3, which begins in plaintext on this port",
            Self::Upgrade(protocol) => return write!(f, "{}, which begins TLS by a request of its own", protocol.name),
            Self::MySql => "MySQL, which begins TLS by a request of its own",
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
        let greetings: [(&[u8], Plaintext); 9] = [
            (b"HTTP/1.1 400 Bad Request\r\n", Plaintext::Http),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Plaintext::Ssh),
            (b"220 mail.example.com ESMTP\r\n", Plaintext::Smtp),
            (b"* OK IMAP4rev1\r\n", Plaintext::Imap),
            (b"+OK ready\r\n", Plaintext::Pop3),
            (b"-ERR unknown command\r\n", Plaintext::Redis),
            (b"\x4a\x00\x00\x00\x0a8.0.36\0", Plaintext::MySql),
            (b"EFATAL:  unsupported frontend protocol\n", Plaintext::Upgrade(Upgrade::of("postgres").unwrap())),
            (b"\x00\x00\x12\x04\x00", Plaintext::Http2),
        ];
        for (bytes, guess) in greetings {
            assert_eq!(plaintext(bytes), Some(guess), "{bytes:?}");
        }
    }
}
