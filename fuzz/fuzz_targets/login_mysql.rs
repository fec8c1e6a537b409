//! See the check.
#![no_main]

#[path = "../checks/login.rs"]
mod login;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| login::check(data));
