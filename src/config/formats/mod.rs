//! The formats of single values: what a string means on its own, whatever stands beside it.

mod address;
mod bytes;
mod digest;
mod host;
mod time;
mod word;

pub use self::address::{DnsServer, Listen, Mode};
pub use self::bytes::Bytes;
pub use self::digest::{CertificateText, Pin, hex, labelled_hex};
pub use self::host::ServedName;
pub use self::time::Limit;
pub use self::word::{Alpn, Congestion, Location, LogLevel, Reason, Reference, VerifyWord};
