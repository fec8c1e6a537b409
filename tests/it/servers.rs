//! Several servers: who gets a stream, and that no stream pays for a server that fails.

mod balance;
mod names;
mod outages;
