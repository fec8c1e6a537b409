//! What the benchmarks of modules stand on, and the operations without I/O, which are also counted in
//! instructions. Each operation is set up once and is then ready to be done again and again.

#![allow(dead_code, reason = "every benchmark uses a part of it")]

pub(crate) mod credentials;
pub(crate) mod operations;
pub(crate) mod sessions;
pub(crate) mod tls;
