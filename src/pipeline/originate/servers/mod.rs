//! Where an upstream's connections can go: names resolved to endpoints, and how each endpoint does.
//!
//! | file | idea |
//! | --- | --- |
//! | [`resolve`] | DNS by time to live, one cache |
//! | [`endpoints`] | the addresses of all servers of an upstream, kept fresh |
//! | [`endpoint`] | one address: its origin, its streams, its health |
//! | [`balance`] | which endpoint comes next |
//! | [`health`] | ejection and its back-off; pure |
//! | [`account`] | what is counted for an endpoint |

pub(crate) mod account;
pub(crate) mod balance;
pub(crate) mod endpoint;
pub(crate) mod endpoints;
pub(crate) mod health;
pub mod resolve;
