//! From an upstream's name to a verified TLS stream: resolve, dial, upgrade, handshake, in one deadline.
//!
//! | file | idea |
//! | --- | --- |
//! | `upstream` | one upstream's way out: what it owns, and one attempt |
//! | `attempts` | which server comes next, and how long it may take |
//! | [`dial`] | Happy Eyeballs over the addresses of a name |
//! | [`upgrade`] | plaintext before TLS |
//! | [`handshake`], `hello`, `retry` | TLS; what its ClientHello offers; once more with less in it |
//! | `login`, `serve` | a login that goes on inside TLS; an attempt for a client, with it |
//! | `channel` | TLS with a server before a stream begins |
//! | [`origin`] | one identity, trust and server name, with its sessions and a ClientHello made ahead |
//! | [`pool`] | finished handshakes that wait for clients |
//! | [`servers`] | names, addresses, health |
//! | `outcome`, `background` | what attempts say of health; checks and a next handshake while no client waits |
//! | `prove` | one origination without a client, to know that an upstream can be reached |
//! | `cancellation` | which endpoint holds which session |
//! | `failure` | why a server could not be originated to |
//!
//! An [`Originator`] is one upstream's way out. It owns an [`origin::Origin`] per server name, and each origin owns its
//! verifier, its client certificate and its resumption store: nothing of one identity can reach another. Each address
//! of a server is an [`Endpoint`]. Origins and endpoints are carried over a reload as the same objects when nothing of
//! the origin's key changed.

mod attempts;
mod background;
mod cancellation;
mod channel;
pub mod dial;
mod distrust;
mod failure;
pub mod handshake;
pub(crate) mod hello;
pub mod key_log;
mod login;
pub(crate) mod negotiated;
pub mod origin;
mod outcome;
pub mod pool;
mod prove;
mod retry;
mod serve;
pub mod servers;
pub mod upgrade;
mod upstream;

pub(crate) use cancellation::Cancellable;
pub(crate) use distrust::Distrust;
pub(crate) use failure::Failure;
pub(crate) use pool::hand_over::Client;
pub(crate) use upstream::{Opened, Originated, Originator, Wire};
