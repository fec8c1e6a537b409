//! All integration tests in one binary: one link, one set of fixtures, a module per theme.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    missing_docs,
    reason = "a panic is how a test says what is wrong, and nobody reads the API of its fixtures"
)]

mod support;

mod activation;
mod admin;
mod admin_addresses;
mod alerts;
mod answers;
mod architecture;
mod bad_input;
mod benches;
mod bulk;
mod cancel;
mod certificate_files;
mod certificate_sources;
mod chains;
mod check;
mod classify;
mod config;
mod credential_mutations;
mod credentials;
mod database_tunnel;
mod databases;
mod demo;
mod deploy;
mod dial;
mod diff;
mod docs;
mod document;
mod drain;
mod exec;
mod explain;
mod failures;
mod failures_steps;
mod faults;
mod fuzzed;
mod gauges;
mod generated;
mod handshake;
mod hardening;
mod hung_disk;
mod identity;
mod import;
mod import_losses;
mod import_mutations;
mod import_peers;
mod import_stories;
mod interop;
mod intolerance;
mod intolerance_origins;
mod kernel_tls;
mod key_log;
mod kubernetes;
mod late_alerts;
mod leaving;
mod lifecycle;
mod listeners;
mod log;
mod memory;
mod memory_secrets;
mod mysql;
mod needs;
mod parts;
mod passthrough;
mod pool;
mod protocols;
mod readiness;
mod relay;
mod reload;
mod reload_streams;
mod renegotiation;
mod repairs;
mod resolve;
mod resumption;
mod resumption_real;
mod revocation;
mod rotation;
mod seeds;
mod servers;
mod sessions;
mod signals;
mod sockets;
mod starved;
mod supervision;
mod trust;
mod trust_tool;
mod upgrade;
mod watch;
