//! PostgreSQL: SSLRequest, and one byte that answers it (protocol 3.0, "SSL Session Encryption").

use std::borrow::Cow;

use super::{Cause, Refusal, Step, Steps};
use crate::config::values::Name;
use crate::config::values::quoting::key;
use crate::escape;

/// The client's side of an SSLRequest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Postgres {
    /// Nothing was said.
    #[default]
    Start,
    /// The request is on its way; the answer is the next single byte.
    Asked,
    /// The server sends an error; what is awaited is its text.
    Complaining,
    /// The outcome is known; stepping again does not change it.
    Agreed,
    /// Likewise.
    Refused(NotAgreed),
}

/// Ends without an agreement that need no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAgreed {
    /// `N`.
    NoTls,
    /// A byte that is none of the protocol's answers.
    Strange(u8),
}

/// Length 8, then the request code 1234.5679.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Of an error so much is read. Servers' own errors at this point are one short line.
const MAX_ERROR: usize = 1024;

/// Of that so many characters are shown.
const MAX_SHOWN: usize = 200;

impl Steps for Postgres {
    fn step(&mut self, input: &[u8]) -> Step {
        match (*self, input) {
            (Self::Start, _) => {
                *self = Self::Asked;
                Step::Write(Cow::Borrowed(&SSL_REQUEST))
            }
            // Exactly one byte: what follows an `S` is TLS.
            (Self::Asked, []) => Step::Need(1),
            (Self::Asked, [b'S', ..]) => self.end(Self::Agreed),
            (Self::Asked, [b'N', ..]) => self.end(Self::Refused(NotAgreed::NoTls)),
            (Self::Asked, [b'E', ..]) => {
                *self = Self::Complaining;
                Step::Rest(MAX_ERROR)
            }
            (Self::Asked, [other, ..]) => self.end(Self::Refused(NotAgreed::Strange(*other))),
            (Self::Complaining, rest) => Step::Fail(Refusal::Error(error_text(rest))),
            (Self::Agreed, _) => Step::Done,
            (Self::Refused(NotAgreed::NoTls), _) => Step::Fail(Refusal::NoTls),
            (Self::Refused(NotAgreed::Strange(byte)), _) => Step::Fail(Refusal::NotTheProtocol(byte)),
        }
    }
}

impl Postgres {
    fn end(&mut self, outcome: Self) -> Step {
        *self = outcome;
        self.step(&[])
    }
}

/// The text behind an `E`: an ErrorResponse (length, then fields of a letter and a string each), or as
/// servers without room for more send it, a bare string.
fn error_text(rest: &[u8]) -> String {
    let text = match rest {
        // No text begins with NUL, and every length of a short message does.
        [0, _, _, _, fields @ ..] => {
            let of = |letter: u8| fields.split(|b| *b == 0).find(|f| f.first() == Some(&letter)).map(|f| &f[1..]);
            match (of(b'M'), of(b'C')) {
                (Some(message), Some(code)) => [message, b" (SQLSTATE ", code, b")"].concat(),
                (Some(message), None) => message.to_vec(),
                (None, _) => Vec::new(),
            }
        }
        text => text.split(|b| *b == 0).next().unwrap_or_default().to_vec(),
    };
    let text = String::from_utf8_lossy(text.trim_ascii()).into_owned();
    let mut shown = String::new();
    text.chars().take(MAX_SHOWN).for_each(|letter| escape::push(&mut shown, letter));
    if shown.is_empty() { "no text".to_owned() } else { shown }
}

/// What to change, if the failure tells.
pub(super) fn repair(cause: &Cause, upstream: &Name) -> Option<String> {
    let remove = || {
        format!(
            "if this server speaks TLS from the first byte, it is not PostgreSQL (or not by SSLRequest); \
             remove from [upstreams.{}]:\n    upgrade = \"postgres\"",
            key(upstream.as_str())
        )
    };
    match cause {
        Cause::Refusal(Refusal::NoTls) => Some(
            "the server has TLS switched off; in its postgresql.conf, then reload it:\n    ssl = on\n    \
             ssl_cert_file = 'server.crt'\n    ssl_key_file = 'server.key'"
                .to_owned(),
        ),
        Cause::Refusal(Refusal::NotTheProtocol(_)) | Cause::Closed => Some(remove()),
        Cause::Refusal(Refusal::Error(_)) | Cause::PlaintextInjection | Cause::Io(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answered(answer: &[u8]) -> (Postgres, Step) {
        let mut machine = Postgres::default();
        assert_eq!(machine.step(&[]), Step::Write(Cow::Borrowed(&SSL_REQUEST)));
        assert_eq!(machine.step(&[]), Step::Need(1));
        let step = machine.step(answer);
        (machine, step)
    }

    #[test]
    fn one_byte_decides() {
        assert_eq!(answered(b"S").1, Step::Done);
        assert_eq!(answered(b"N").1, Step::Fail(Refusal::NoTls));
        assert_eq!(answered(b"H").1, Step::Fail(Refusal::NotTheProtocol(b'H')));
        assert_eq!(answered(b"E").1, Step::Rest(MAX_ERROR));
    }

    #[test]
    fn both_forms_of_an_error_are_read() {
        let v3 = b"\0\0\0\x40SFATAL\0C53300\0Msorry, too many clients already\0\0";
        let (mut machine, _) = answered(b"E");
        let shown = "sorry, too many clients already (SQLSTATE 53300)".to_owned();
        assert_eq!(machine.step(v3), Step::Fail(Refusal::Error(shown)));
        let (mut machine, _) = answered(b"E");
        let v2 = b"could not fork new process for connection: \x1b[2J\n\0";
        let shown = "could not fork new process for connection: \\u{1b}[2J".to_owned();
        assert_eq!(machine.step(v2), Step::Fail(Refusal::Error(shown)));
    }

    proptest! {
        #[test]
        fn only_an_s_is_a_yes(byte in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..2048)) {
            let (mut machine, step) = answered(&[byte]);
            prop_assert_eq!(step == Step::Done, byte == b'S');
            if byte == b'E' {
                let Step::Fail(Refusal::Error(text)) = machine.step(&rest) else { panic!("an error is an error") };
                prop_assert!(!text.chars().any(char::is_control));
                prop_assert!(text.chars().count() <= MAX_SHOWN * 10);
            } else {
                prop_assert_eq!(machine.step(&rest), step, "an outcome does not change");
            }
        }
    }
}
