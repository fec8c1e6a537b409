//! Any server's first bytes inside TLS: no panic, and a key only where one was announced.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/keys.rs"]
mod keys;

fuzz_target!(|data: &[u8]| keys::check(data));
