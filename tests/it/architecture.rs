//! The order of imports is a list; a list cannot have a cycle.

use std::fs;
use std::path::{Path, PathBuf};

/// A module imports only from lines below its own; modules on one line are strangers to each other.
const ORDER: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["bundle", "check", "demo", "explain", "import"],
    &["supervise"],
    &["admin"],
    &["reload"],
    &["signals"],
    &["listener", "outline"],
    &["snapshot"],
    &["config"],
    &["connection"],
    &["report"],
    &["route"],
    &["classify", "originate", "relay"],
    &["admit", "drain", "logging", "systemd", "tasks"],
    &["tls", "writer"],
    &["memory", "metrics", "net"],
    &["config::values"],
    &["escape", "secret"],
];

/// The same inside `originate`; its own `mod.rs` stands above all of them.
const ORIGINATE: &[&[&str]] = &[
    &["originate"],
    &["originate::background", "originate::judge", "originate::retry", "originate::stock"],
    &["originate::tend"],
    &["originate::round"],
    &["originate::failure"],
    &["originate::endpoints"],
    &["originate::endpoint"],
    &["originate::balance", "originate::health"],
    &["originate::handshake"],
    &["originate::dial", "originate::origin", "originate::resolve", "originate::upgrade"],
    &["originate::pool"],
    &["originate::account", "originate::negotiated", "originate::part"],
    &["originate::identity", "originate::key_log", "originate::resumption", "originate::trust"],
    &["originate::observe"],
    &["originate::contents", "originate::presented", "originate::refusal"],
    &["originate::hello", "originate::period"],
    &["originate::certificate"],
    &["originate::files", "originate::fingerprint", "originate::pem"],
];

/// And inside `explain`.
const EXPLAIN: &[&[&str]] = &[
    &["explain"],
    &["explain::redact", "explain::run", "explain::text"],
    &["explain::notes", "explain::target"],
    &["explain::repair"],
    &["explain::cause"],
    &["explain::chain", "explain::look", "explain::probe"],
    &["explain::attempt", "explain::hello", "explain::report"],
    &["explain::wide"],
];

#[test]
fn modules_import_only_from_below() {
    let wrong = violations(ORDER);
    assert!(wrong.is_empty(), "imports from above or from a sibling:\n{}", wrong.join("\n"));
}

#[test]
fn rooms_of_originate_import_only_from_below() {
    let wrong = violations(ORIGINATE);
    assert!(wrong.is_empty(), "imports from above or from a sibling:\n{}", wrong.join("\n"));
}

#[test]
fn rooms_of_explain_import_only_from_below() {
    let wrong = violations(EXPLAIN);
    assert!(wrong.is_empty(), "imports from above or from a sibling:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_has_its_line() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let module = module_of(file.strip_prefix(&source).expect("the file is in src"));
        assert!(module == "lib" || line_of(ORDER, &module).is_some(), "{module} has no line in the order");
    }
}

#[test]
fn a_path_from_above_is_found() {
    let order: &[&[&str]] = &[&["snapshot"], &["relay", "route"], &["net"]];
    let text =
        "use crate::net::Stream; // crate::snapshot in a comment\nuse crate::{route, snapshot::{self, Snapshot}};";
    assert_eq!(paths(text), ["net::Stream", "route", "snapshot"]);
    assert_eq!(wrong_in(order, "relay", text), ["route", "snapshot"]);
    assert_eq!(paths("use crate::originate::{files, pem};"), ["originate::files", "originate::pem"]);
}

fn violations(order: &[&[&str]]) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in rust_files(&source) {
        let text = fs::read_to_string(&file).expect("a source file can be read");
        let module = module_of(file.strip_prefix(&source).expect("the file is in src"));
        wrong.extend(wrong_in(order, &module, &text).into_iter().map(|path| format!("{module} imports {path}")));
    }
    wrong
}

/// The imports in the text of `module` that the order does not allow.
fn wrong_in(order: &[&[&str]], module: &str, text: &str) -> Vec<String> {
    let Some((own, own_name)) = line_of(order, module) else { return Vec::new() };
    let allowed = |path: &String| line_of(order, path).is_none_or(|(line, name)| line > own || name == own_name);
    paths(text).into_iter().filter(|path| !allowed(path)).collect()
}

/// The line of the longest name in the order that is a prefix of `path`.
fn line_of<'a>(order: &[&[&'a str]], path: &str) -> Option<(usize, &'a str)> {
    let lines = order.iter().enumerate().flat_map(|(line, names)| names.iter().map(move |name| (line, *name)));
    lines
        .filter(|(_, name)| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
        .max_by_key(|(_, name)| name.len())
}

/// What follows each `crate::`, groups in braces taken apart one level deep.
fn paths(text: &str) -> Vec<String> {
    let text: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    // `pub(in crate::room)` says who may import, and imports nothing.
    let text = text.replace("(in crate::", "(in ");
    let mut found = Vec::new();
    for part in text.split("crate::").skip(1) {
        let path = leading_path(part);
        match part[path.len()..].trim_start_matches("::").strip_prefix('{') {
            Some(group) if path.is_empty() => found.extend(group_items(group)),
            Some(group) => found.extend(group_items(group).iter().map(|item| format!("{path}::{item}"))),
            None => found.push(path),
        }
    }
    found
}

fn group_items(group: &str) -> Vec<String> {
    let (mut items, mut depth, mut item) = (Vec::new(), 0, String::new());
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(leading_path(std::mem::take(&mut item).trim())),
            _ if depth == 0 => item.push(letter),
            _ => {}
        }
    }
    items.push(leading_path(item.trim()));
    items.retain(|item| !item.is_empty());
    items
}

fn leading_path(text: &str) -> String {
    let end =
        text.find(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':')).unwrap_or(text.len());
    text[..end].trim_end_matches(':').to_owned()
}

fn module_of(file: &Path) -> String {
    let name = file.with_extension("");
    let parts: Vec<&str> = name.iter().filter_map(|part| part.to_str()).filter(|part| *part != "mod").collect();
    parts.join("::")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("src can be listed") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
