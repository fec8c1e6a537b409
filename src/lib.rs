//! egret: plain TCP in, verified mutual TLS out.
pub mod config;
pub mod metrics;
pub mod net;
pub mod secret;
