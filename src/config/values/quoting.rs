//! Strings and keys, quoted for a configuration.

use std::fmt::Write;

use crate::escape::is_invisible;

/// A value: a basic string of TOML. Text from another party (the names of a certificate, say) cannot leave the string,
/// and `${` in it does not become a variable of the environment.
pub fn string(text: &str) -> String {
    basic(&text.replace("${", "$${"))
}

/// A key of TOML: bare where it may be. Keys know no variables.
pub fn key(name: &str) -> String {
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { basic(name) }
}

fn basic(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if is_invisible(letter) => {
                let _ = match u32::from(letter) {
                    short @ ..=0xffff => write!(out, "\\u{short:04X}"),
                    long => write!(out, "\\U{long:08X}"),
                };
            }
            letter => out.push(letter),
        }
    }
    out + "\""
}
