//! egret: plain TCP in, verified mutual TLS out.
//!
//! The rooms, from the top of the order of imports to its bottom. A module imports only from rooms below its own;
//! `tests/it/architecture.rs` holds the order and checks every path.
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`cli`] | arguments and output, one file for each command |
//! | [`tools`] | what the commands do: check, diff, explain, import, certificates, demo |
//! | [`control`] | the life of the process: snapshot, supervise, reload, signals, admin |
//! | [`pipeline`] | **one connection: accept, admit, classify, route, originate, relay, report** |
//! | [`tls`] | records, sessions, the handshake over a socket, buffers |
//! | [`credentials`] | identities, trust, certificates: read, judged, compared |
//! | [`observe`] | metrics, log, and the queue by which everything leaves the process |
//! | [`net`] | sockets |
//! | [`protocols`] | what is spoken in plaintext before TLS: one file and one row of a table for each protocol |
//! | [`config`] | text to values: keys, defaults, mistakes |
//! | [`drain`], `memory`, `escape`, `wording`, [`secret`], [`random`] | stop, wait, force; the budget; text of strangers made visible; errors of libraries in words; values that cannot be printed; the generator's first seed |
//!
//! Begin with [`pipeline::connection`]: it is the sequence that everything else serves.

pub mod cli;
pub mod tools;

pub mod control;

pub mod pipeline;

pub mod credentials;
pub mod tls;

pub mod observe;

pub mod config;
pub mod net;
pub mod protocols;

pub mod drain;
mod escape;
mod memory;
pub mod random;
pub(crate) mod secret;
mod wording;
