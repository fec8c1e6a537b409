//! Any bytes as records, and any bytes in records; see `checks/records.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/records.rs"]
mod records;

fuzz_target!(|data: &[u8]| records::check(data));
