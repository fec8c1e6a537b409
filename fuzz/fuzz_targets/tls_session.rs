//! Any server after the handshake; see `checks/session/mod.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/session/mod.rs"]
mod session;

fuzz_target!(|data: &[u8]| session::check(data));
