//! egret: plain TCP in, verified mutual TLS out.
//!
//! The tree is the way of the data, and this is its map:
//!
//! ```text
//! accept -> admit -> classify -> route -> originate -> relay -> report
//! ```
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`listener`] | accepts, pauses when descriptors are out, hands over |
//! | [`admit`] | who may come: networks, users |
//! | [`connection`] | the story of one connection, without mechanism |
//! | [`classify`] | what the client says first; pure parsers with the reading around them |
//! | [`route`] | (listener, class) to upstream; a pure look-up |
//! | [`originate`] | resolve, dial, upgrade, handshake; identity, trust, resumption |
//! | [`relay`] | bytes both ways until both ends are done |
//! | [`report`] | the one log line and the one set of metrics of a connection |
//!
//! Around it: [`config`] turns text into values, [`snapshot`] values into live things, [`reload`] replaces one
//! generation by the next, [`supervise`] starts and stops everything. [`admin`], [`metrics`] and [`logging`] let
//! people watch; what they write leaves by a [`writer`], which nothing waits for. [`explain`] says why an upstream cannot be reached and what mends it, [`import`] reads
//! configurations of other proxies, [`demo`] shows it all without set-up. [`tls`] is the record layer, [`net`] and
//! [`secret`] are the floor.
//!
//! A module imports only from below its own line of a list that `tests/it/architecture.rs` checks.

// -- the way of the data --
pub mod admit;
pub mod classify;
pub mod connection;
pub mod listener;
pub mod originate;
pub mod relay;
pub mod report;
pub mod route;

// -- text -> values -> live things --
pub mod config;
pub mod outline;
pub mod snapshot;

// -- lifecycle --
pub mod bundle;
pub mod check;
pub mod cli;
pub mod demo;
pub mod drain;
pub mod explain;
pub mod reload;
pub mod signals;
pub mod supervise;
pub mod systemd;
mod tasks;

// -- tools for people --
pub mod import;

// -- watching --
pub mod admin;
pub mod logging;
mod memory;
pub mod metrics;

// -- the floor --
mod escape;
pub mod net;
pub mod secret;
pub mod tls;
pub mod writer;
