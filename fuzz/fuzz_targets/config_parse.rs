//! Any text: a configuration or problems, never a panic, not even when the problems are rendered.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // One variable is set, so that both outcomes of a reference occur.
    let env = |name: &str| (name == "SET").then(|| "value".to_owned());
    match egret::config::parse("fuzz.toml", text, &env) {
        Ok(loaded) => drop(egret::config::lint(&loaded)),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
});
