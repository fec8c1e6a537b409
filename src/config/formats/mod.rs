//! The formats of single values: each string parsed on its own, whatever the other keys are.

mod address;
mod bytes;
mod digest;
mod host;
mod time;
mod word;

pub(crate) use self::address::{DnsServer, Listen, Mode};
pub(crate) use self::bytes::Bytes;
pub(crate) use self::digest::{CertificateText, Pin};
// Public through `credentials::fingerprint`, for the tests.
pub use self::digest::{hex, labelled_hex};
pub(crate) use self::host::ServedName;
pub(crate) use self::time::Limit;
pub(crate) use self::word::{Alpn, AnswerWord, Congestion, Location, LogLevel, Reason, Reference, VerifyWord};
