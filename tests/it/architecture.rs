//! The order of imports is a list; a list cannot have a cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A module imports only from lines below its own; modules on one line are strangers to each other. A name covers
/// everything inside it that has no line of its own.
const ORDER: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["tools::certificates", "tools::check", "tools::demo", "tools::explain", "tools::import"],
    &["control::supervise"],
    &["control::admin"],
    &["control::reload"],
    &["control::program", "control::reload_fingerprint", "control::signals"],
    &["control::snapshot"],
    &["control::disk", "control::hardening", "control::systemd"],
    &["pipeline::accept"],
    &["pipeline::connection"],
    &["pipeline::report"],
    &["pipeline::route"],
    &["pipeline::classify", "pipeline::originate", "pipeline::relay"],
    &["pipeline::admit", "pipeline::answer"],
    &["credentials", "tls"],
    &["observe::logging", "observe::tasks"],
    &["observe::metrics", "observe::writer"],
    &["net"],
    &["config"],
    &["protocols"],
    &["drain", "escape", "memory", "random", "secret", "wording"],
];

/// The same inside `originate`; its own `mod.rs` is above all of them.
const ORIGINATE: &[&[&str]] = &[
    &["pipeline::originate"],
    &["pipeline::originate::background"],
    &["pipeline::originate::pool::take", "pipeline::originate::prove"],
    &["pipeline::originate::pool::replenish"],
    &["pipeline::originate::serve"],
    &["pipeline::originate::distrust", "pipeline::originate::outcome", "pipeline::originate::retry"],
    &["pipeline::originate::upstream"],
    &["pipeline::originate::attempts", "pipeline::originate::cancellation"],
    &["pipeline::originate::failure"],
    &["pipeline::originate::servers::endpoints"],
    &["pipeline::originate::servers::endpoint"],
    &["pipeline::originate::servers::balance", "pipeline::originate::servers::health"],
    &["pipeline::originate::handshake"],
    &["pipeline::originate::login"],
    &[
        "pipeline::originate::dial",
        "pipeline::originate::origin",
        "pipeline::originate::servers::resolve",
        "pipeline::originate::upgrade",
    ],
    &["pipeline::originate::pool"],
    &["pipeline::originate::negotiated", "pipeline::originate::origin::ahead", "pipeline::originate::servers::account"],
    &["pipeline::originate::channel", "pipeline::originate::key_log", "pipeline::originate::origin::resumption"],
    &["pipeline::originate::hello"],
];

/// Inside `credentials`.
const CREDENTIALS: &[&[&str]] = &[
    &["credentials::inventory", "credentials::part"],
    &["credentials::identity", "credentials::trust"],
    &["credentials::observation"],
    &["credentials::contents", "credentials::presented", "credentials::refusal"],
    &["credentials::period"],
    &["credentials::certificate"],
    &["credentials::files", "credentials::fingerprint", "credentials::pem"],
];

/// Inside `explain`.
const EXPLAIN: &[&[&str]] = &[
    &["tools::explain"],
    &["tools::explain::redact", "tools::explain::run", "tools::explain::text"],
    &["tools::explain::exchange", "tools::explain::notes", "tools::explain::target"],
    &["tools::explain::repair"],
    &["tools::explain::cause"],
    &["tools::explain::chain", "tools::explain::plaintext_probe", "tools::explain::probe"],
    &["tools::explain::wire"],
    &["tools::explain::attempt", "tools::explain::hello", "tools::explain::question"],
    &["tools::explain::legacy_hello", "tools::explain::report"],
];

#[test]
fn modules_import_only_from_below() {
    assert_downward(ORDER);
}

#[test]
fn rooms_of_originate_import_only_from_below() {
    assert_downward(ORIGINATE);
}

#[test]
fn rooms_of_credentials_import_only_from_below() {
    assert_downward(CREDENTIALS);
}

#[test]
fn rooms_of_explain_import_only_from_below() {
    assert_downward(EXPLAIN);
}

#[test]
fn every_module_has_its_line() {
    for module in modules().into_keys().filter(|module| !is_map(module)) {
        assert!(line_of(ORDER, &module).is_some(), "{module} has no line in the order");
    }
}

#[test]
fn no_line_is_of_a_module_that_is_gone() {
    let modules = modules();
    for name in [ORDER, ORIGINATE, CREDENTIALS, EXPLAIN].concat().concat() {
        assert!(modules.contains_key(name), "{name} is in an order and not in src");
    }
}

#[test]
fn rooms_do_not_import_each_other_in_a_circle() {
    let room = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let mut edges = BTreeSet::new();
    let known = modules();
    for (module, file) in &known {
        let imports = targets(&known, module, &code(file));
        edges.extend(imports.into_iter().map(|target| (room(module), room(&target))));
    }
    let circles: Vec<_> = edges.iter().filter(|(a, b)| a < b && edges.contains(&(b.clone(), a.clone()))).collect();
    assert!(circles.is_empty(), "rooms that import each other: {circles:?}");
}

#[test]
fn a_path_from_above_is_found_in_every_form() {
    let known = ["snapshot", "relay", "relay::upload", "relay::clock", "route", "net"];
    let known: BTreeMap<_, _> = known.map(|module| (module.to_owned(), PathBuf::new())).into();
    let found = |module: &str, text: &str| {
        let order: &[&[&str]] = &[&["snapshot"], &["relay", "route"], &["relay::upload"], &["relay::clock"], &["net"]];
        wrong_in(order, &known, module, &text.parse().expect("the text is Rust"))
    };
    for (module, text, wrong) in [
        ("relay", "use crate::net::Stream; // crate::snapshot in a comment", &[][..]),
        ("relay", "use crate::{route, snapshot::{self, Snapshot}};", &["route", "snapshot"]),
        ("relay", "fn f() { g(crate::snapshot::build()) }", &["snapshot"]),
        ("relay", "fn f() { warn!(at = %super::snapshot::now(), \"crate::route\") }", &["snapshot"]),
        ("relay::clock", "use super::Stream;", &["relay"]),
        ("relay::clock", "use super::{upload::Upload, super::net};", &["relay::upload"]),
        ("relay::clock", "fn f() { super::super::route::find() }", &["route"]),
        ("relay", "use self::clock::Clock; use upload::Upload; mod clock; mod upload;", &[]),
        ("net", "pub(in crate::snapshot) fn f() {} /// crate::relay\n fn g() {}", &[]),
        ("net", "#[cfg(test)] mod tests { use crate::snapshot::Snapshot; }", &[]),
    ] {
        assert_eq!(found(module, text), wrong, "{module}: {text}");
    }
}

fn assert_downward(order: &[&[&str]]) {
    let known = modules();
    let mut wrong = Vec::new();
    for (module, file) in &known {
        let imports = wrong_in(order, &known, module, &code(file));
        wrong.extend(imports.into_iter().map(|target| format!("{module} imports {target}")));
    }
    assert!(wrong.is_empty(), "imports from above or from a sibling:\n{}", wrong.join("\n"));
}

/// The first page of the library or of a room: declarations and re-exports, above all that it shows.
fn is_map(module: &str) -> bool {
    ["lib", "control", "observe", "pipeline", "pipeline::originate::servers", "tools"].contains(&module)
}

/// The modules that the code of `module` imports against the order.
fn wrong_in(order: &[&[&str]], known: &BTreeMap<String, PathBuf>, module: &str, code: &TokenStream) -> Vec<String> {
    let Some((own, own_name)) = line_of(order, module) else { return Vec::new() };
    let allowed = |target: &String| line_of(order, target).is_none_or(|(line, name)| line > own || name == own_name);
    targets(known, module, code).into_iter().filter(|target| !allowed(target)).collect()
}

/// The line of the longest name in the order that is a prefix of `module`.
fn line_of<'a>(order: &[&[&'a str]], module: &str) -> Option<(usize, &'a str)> {
    let lines = order.iter().enumerate().flat_map(|(line, names)| names.iter().map(move |name| (line, *name)));
    lines
        .filter(|(_, name)| module.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
        .max_by_key(|(_, name)| name.len())
}

/// The modules of the library that the code of `module` names, sorted.
fn targets(known: &BTreeMap<String, PathBuf>, module: &str, code: &TokenStream) -> Vec<String> {
    let mut paths = Vec::new();
    read_paths(code.clone(), &mut paths);
    let targets: BTreeSet<_> = paths.iter().filter_map(|path| target(known, module, path)).collect();
    targets.into_iter().collect()
}

/// The module that a path leads to, whichever of its forms it has; none for a path into another crate.
fn target(known: &BTreeMap<String, PathBuf>, module: &str, path: &[String]) -> Option<String> {
    let mut base: Vec<&str> = module.split("::").collect();
    let mut rest: Vec<&str> = path.iter().map(String::as_str).collect();
    match *rest.first()? {
        "crate" => base.clear(),
        "super" | "self" => {}
        first if path.len() > 1 && known.contains_key(&format!("{module}::{first}")) => {}
        _ => return None,
    }
    while let Some("crate" | "self" | "super") = rest.first().copied() {
        if rest.remove(0) == "super" {
            base.pop();
        }
    }
    let whole = [base, rest].concat();
    (1..=whole.len()).rev().map(|n| whole[..n].join("::")).find(|path| known.contains_key(path))
}

/// Collects every path of the code, those of `use` trees and of macros included, tests left out.
fn read_paths(code: TokenStream, paths: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = code.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(punct) if punct.as_char() == '#' && is_test(tokens.get(at + 1)) => {
                at += tokens[at..].iter().position(ends_item).unwrap_or(tokens.len() - at);
            }
            // `pub(in crate::room)` says who may import, and imports nothing.
            TokenTree::Ident(word) if word == "pub" && is_group(tokens.get(at + 1), Delimiter::Parenthesis) => at += 1,
            TokenTree::Ident(word) if word == "mod" => at += 1,
            TokenTree::Ident(_) => at += read_tree(&tokens[at..], &[], paths).saturating_sub(1),
            TokenTree::Group(group) => read_paths(group.stream(), paths),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
}

/// Reads one path, or a tree of them, that begins with an identifier; says how many tokens it has.
fn read_tree(tokens: &[TokenTree], before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let (mut path, mut at) = (before.to_vec(), 0);
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        path.push(word.to_string());
        at += 1;
        if !(is_colon(tokens.get(at)) && is_colon(tokens.get(at + 1))) {
            break;
        }
        at += 2;
        if let Some(TokenTree::Group(group)) = tokens.get(at) {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            let items = inner.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','));
            for item in items.filter(|item| !item.is_empty()) {
                read_tree(item, &path, paths);
            }
            return at + 1;
        }
    }
    paths.push(path);
    at
}

fn is_colon(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
}

fn is_group(token: Option<&TokenTree>, delimiter: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
}

/// `[cfg(test)]`.
fn is_test(token: Option<&TokenTree>) -> bool {
    token.is_some_and(|token| token.to_string().replace(' ', "") == "[cfg(test)]")
}

/// The last token of an item: its body, or its semicolon.
fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    }
}

/// Every module of the library and its file. Files of tests are none.
fn modules() -> BTreeMap<String, PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    for file in rust_files(&source) {
        let module = module_of(file.strip_prefix(&source).expect("the file is in src"));
        if !module.split("::").any(|part| part == "tests") {
            found.insert(module, file);
        }
    }
    found
}

fn code(file: &Path) -> TokenStream {
    fs::read_to_string(file).expect("a source file can be read").parse().expect("a source file is Rust")
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
