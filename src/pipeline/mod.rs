//! One connection, in the order in which it happens.
//!
//! ```text
//! accept -> admit -> classify -> route -> originate (pool | dial -> upgrade -> handshake) -> relay -> report
//! ```
//!
//! | file | what happens there |
//! | --- | --- |
//! | [`accept`] | a listener accepts, pauses when descriptors are out, hands over |
//! | [`admit`] | which clients may connect: networks, users |
//! | [`connection`] | the story of one connection, without mechanism |
//! | [`answer`] | the last words to a client that cannot be served |
//! | [`classify`] | what the client says first |
//! | [`route`] | (listener, class) to upstream; a pure look-up |
//! | [`originate`] | resolve, dial, upgrade, handshake, in one deadline; pool and sessions |
//! | [`relay`] | bytes both ways until both ends are done |
//! | [`report`] | the one log line and the one set of metrics of a connection |

pub(crate) mod accept;
pub mod admit;
pub(crate) mod answer;
pub mod classify;
pub(crate) mod connection;
pub mod originate;
pub mod relay;
pub(crate) mod report;
pub mod route;
