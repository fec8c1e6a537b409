//! TLS below the handshake: our own record layer over the secrets that rustls negotiated.
//!
//! rustls does everything that authenticates the peer (handshake, certificates, key schedule, tickets). After it the
//! records are ours, because only then can many of them be opened in the buffer they were received into, and sealed in
//! the buffer they are sent from.
//!
//! | file | idea |
//! |---|---|
//! | `record` | one record: seal and open in place (RFC 8446 section 5, RFC 5246 section 6.2.3.3) |
//! | `message` | what is not application data: alerts, handshake messages after the handshake |
//! | `kernel` | keys and ciphers for a kernel that makes the records |
//! | `session` | both directions of one connection: keys, key updates, tickets, close_notify |
//! | `handshake` | drives rustls over a socket until the secrets can be taken |
//! | `hello` | ClientHello and ServerHello, read and written part by part |
//! | `handed` | how much rustls is given in one call |
//! | `pool` | buffers that a connection holds only while it has something to move |

pub(crate) mod handed;
pub mod handshake;
pub(crate) mod hello;
pub mod kernel;
mod message;
pub(crate) mod pool;
pub mod record;
pub mod session;
