//! Configurations of other proxies: each case is a folder with what is made of it beside.
//!
//! `EGRET_BLESS=1` writes the expectations anew; read the difference before it is committed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use egret::config::{self, Style};
use egret::tools::import::files::{Disk, Files, ReadError};
use egret::tools::import::findings::CODES;
use egret::tools::import::nginx::parse::{self, Directive};
use egret::tools::import::nginx::token::{Lexer, TokenKind, write_word};
use egret::tools::import::report::Outcome;
use egret::tools::import::{Imported, Options, nginx, stunnel};

use proptest::prelude::*;

/// The files of a case, seen as if its folder were the working folder: expectations name no folder of this machine.
struct Folder(PathBuf);

impl Files for Folder {
    fn read(&self, path: &Path) -> Result<String, ReadError> {
        Disk::below(&self.0).read(&self.0.join(path))
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadError> {
        Disk::below(&self.0).list(&self.0.join(folder))
    }

    fn certificates(&self, path: &Path) -> Option<String> {
        Disk::below(&self.0).certificates(&self.0.join(path))
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        Disk::below(&self.0).mode(&self.0.join(path))
    }
}

/// One text, and nothing else.
struct Text<'a>(&'a str);

impl Files for Text<'_> {
    fn read(&self, path: &Path) -> Result<String, ReadError> {
        if path == Path::new("nginx.conf") {
            Ok(self.0.to_owned())
        } else {
            Err(ReadError::System(io::ErrorKind::NotFound.into()))
        }
    }

    fn list(&self, _: &Path) -> Result<Vec<String>, ReadError> {
        Ok(Vec::new())
    }
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import");
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn import_case(case: &Path, options: &Options) -> Imported {
    let files = Folder(case.to_path_buf());
    let imported = match case.join("nginx.conf").exists() {
        true => nginx::import(&files, Path::new("nginx.conf"), options),
        false => stunnel::import(&files, Path::new("stunnel.conf"), options),
    };
    let imported = imported.unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    if let Some(problems) = &imported.broken {
        panic!("{}: what was made does not load:\n{problems}\n{}", case.display(), imported.config.unwrap());
    }
    imported
}

fn import_text(text: &str, options: &Options) -> Imported {
    nginx::import(&Text(text), Path::new("nginx.conf"), options).unwrap_or_else(|error| panic!("{error}"))
}

/// Findings, and below them what became of every directive.
fn told(imported: &Imported) -> String {
    let mut text = imported.render(Style::Plain);
    text += "\ncarried:\n";
    for entry in &imported.report.entries {
        if let Some(Outcome::Carried(_)) = &entry.outcome {
            let detail = entry.detail();
            let source = &imported.report.sources[entry.place.file];
            let at = source.position(entry.place.start);
            text += &format!("  {}:{}:{}: `{}` -> {detail}\n", source.origin(), at.line, at.column, entry.text);
        }
    }
    text
}

fn compare(path: &Path, told: &str) -> Option<String> {
    if env::var_os("EGRET_BLESS").is_some() {
        fs::write(path, told).unwrap();
        return None;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    (expected != told).then(|| format!("{}:\n--- expected\n{expected}\n--- told\n{told}", path.display()))
}

#[test]
fn cases_become_what_is_expected() {
    let mut different = Vec::new();
    for case in cases() {
        let imported = import_case(&case, &Options::default());
        let config = imported.config.clone().unwrap_or_else(|| panic!("{}: nothing was carried", case.display()));
        different.extend(compare(&case.join("expected.toml"), &config));
        different.extend(compare(&case.join("expected.txt"), &told(&imported)));
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

#[test]
fn there_are_enough_cases_of_nginx() {
    let count = cases().iter().filter(|case| case.join("nginx.conf").exists()).count();
    assert!(count >= 25, "{count}");
}

/// Counted without the importer's parser: what ends with `;`, or begins a block.
fn statements(text: &str) -> usize {
    let mut count = 0;
    for line in text.lines() {
        let (mut quote, mut before) = (None, ' ');
        for letter in line.chars() {
            match (quote, letter) {
                (None, '#') if before.is_whitespace() => break,
                (None, '"' | '\'') if before.is_whitespace() => quote = Some(letter),
                (Some(open), close) if open == close => quote = None,
                (None, ';') => count += 1,
                (None, '{') if before != '$' => count += 1,
                _ => {}
            }
            before = letter;
        }
    }
    count
}

#[test]
fn no_directive_is_dropped_in_silence() {
    for case in cases() {
        for options in [Options::default(), Options { faithful: true, ..Options::default() }] {
            let imported = import_case(&case, &options);
            let [all, carried, found, listed] = imported.report.counts();
            assert_eq!(carried + found + listed, all, "{}", case.display());
            // What is inside a block of Lua is not nginx's.
            let foreign = case.ends_with("lua");
            if case.join("nginx.conf").exists()
                && !foreign
                && imported.report.findings.iter().all(|one| one.code.word != "difference")
            {
                let sources = imported.report.sources.iter();
                let expected: usize = sources.map(|source| statements(source.text())).sum();
                assert_eq!(all, expected, "{}: directives that are in the text", case.display());
            }
            for entry in &imported.report.entries {
                match entry.outcome.as_ref().unwrap() {
                    Outcome::Listed(why) => {
                        let made_up = entry.text.starts_with("zzdirective");
                        assert!(made_up || !why.contains("does not know"), "{}: {entry:?}", case.display());
                    }
                    Outcome::Found(code) => {
                        let place = |start: usize| start <= entry.place.end;
                        let told =
                            imported.report.findings.iter().any(|one| one.code.word == *code && place(one.place.start));
                        assert!(told, "{}: {entry:?} has no finding", case.display());
                    }
                    Outcome::Carried(_) => {}
                }
            }
        }
    }
}

#[test]
fn what_egret_check_says_of_the_results_is_known() {
    // Everything that `egret check` may still advise about a safe reading: what only a person can decide.
    let known = ["ip-without-name", "loopback-browser", "allow-everyone", "tls12-only", "one-certificate-for-many"];
    for case in cases() {
        let text = import_case(&case, &Options::default()).config.unwrap();
        let loaded = config::parse("imported.toml", &text, &|_| None).unwrap();
        let codes: Vec<_> = config::lint(&loaded).into_iter().map(|advice| advice.code).collect();
        assert!(codes.iter().all(|code| known.contains(code)), "{}: {codes:?}\n{text}", case.display());
    }
}

#[test]
fn every_kind_of_finding_has_its_row_and_occurs() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/import.md")).unwrap();
    let tables = page.split("| code |").skip(1).map(|rest| rest.split("\n\n").next().unwrap());
    let rows = tables.flat_map(str::lines).filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let rows: Vec<&str> = rows.collect();
    let mut seen = BTreeMap::new();
    for case in cases() {
        for finding in import_case(&case, &Options::default()).report.findings {
            seen.insert(finding.code.word, finding.code.weight);
        }
    }
    for code in CODES {
        assert!(rows.contains(&code.word), "docs/import.md has no row for {}", code.word);
        assert!(seen.contains_key(code.word), "no case shows {}", code.word);
    }
    let stale: Vec<_> = rows.iter().filter(|row| !CODES.iter().any(|code| code.word == **row)).collect();
    assert!(stale.is_empty(), "docs/import.md has rows for words that the code does not have: {stale:?}");
}

/// Every word that a person could have chosen is replaced by one that nobody else uses, and looked for.
#[test]
fn masked_output_shows_nothing_of_the_input() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/secrets/nginx.conf")).unwrap();
    let imported = import_text(&text, &Options { redact: true, ..Options::default() });
    assert!(imported.broken.is_none(), "{:?}", imported.broken);
    let config = imported.config.clone().unwrap();
    let shown = format!("{config}{}{:#}", told(&imported), imported.report.to_json(Some(&config)));
    let secret =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.len() > 2 && word.starts_with("zz"));
    let secret: Vec<_> = secret.collect();
    assert!(secret.len() > 20, "the words were not found");
    for word in secret {
        assert!(!shown.contains(word), "{word} is shown:\n{shown}");
    }
    assert!(!shown.contains("198.51.100."), "an address is shown:\n{shown}");
    let plain = import_text(&text, &Options::default());
    assert_eq!(imported.report.counts(), plain.report.counts(), "masks change nothing");
    let words = |imported: &Imported| imported.report.findings.iter().map(|one| one.code.word).collect::<Vec<_>>();
    assert_eq!(words(&imported), words(&plain));
}

fn rebuilt(tree: &[Directive], into: &mut String) {
    for directive in tree {
        for word in std::iter::once(&directive.name).chain(&directive.arguments) {
            *into += &write_word(&word.text);
            into.push(' ');
        }
        match &directive.block {
            None => into.push_str(";\n"),
            Some(block) => {
                into.push_str("{\n");
                rebuilt(block, into);
                into.push_str("}\n");
            }
        }
    }
}

fn shape(tree: &[Directive]) -> Vec<(Vec<String>, Option<usize>)> {
    let mut shapes = Vec::new();
    for directive in tree {
        let words = std::iter::once(&directive.name).chain(&directive.arguments).map(|word| word.text.clone());
        shapes.push((words.collect(), directive.block.as_ref().map(Vec::len)));
        shapes.extend(shape(directive.children()));
    }
    shapes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Tokens stand where they say, in order, and between them is nothing but space and comments.
    #[test]
    fn tokens_stand_where_they_say(text in "[a-z $\\{\\};#\"'\\\\\n\t\\-ä]{0,60}") {
        let mut lexer = Lexer::new(&text);
        let mut last = 0;
        while let Ok(Some(token)) = lexer.token() {
            prop_assert!(last <= token.span.start && token.span.start < token.span.end);
            let between = &text[last..token.span.start];
            prop_assert!(between.trim().is_empty() || between.contains('#'), "{between:?} was skipped");
            let raw = &text[token.span.clone()];
            match token.kind {
                TokenKind::End => prop_assert_eq!(raw, ";"),
                TokenKind::Open => prop_assert_eq!(raw, "{"),
                TokenKind::Close => prop_assert_eq!(raw, "}"),
                TokenKind::Word(word) => prop_assert!(word.len() <= raw.len(), "a word does not grow"),
            }
            last = token.span.end;
        }
    }

    /// What was read can be written, and is read again as the same.
    #[test]
    fn trees_survive_being_written(text in "([a-z]{1,3}( [a-z$\"'\\\\]{1,4}| \"[a-z ;\\{\\\\]{0,4}\"){0,3}[;\\{\\}]\n?){0,12}\\}{0,2}") {
        if let Ok(tree) = parse::parse(&text, 0, &mut 0) {
            let mut again = String::new();
            rebuilt(&tree, &mut again);
            let second = parse::parse(&again, 0, &mut 0).map_err(|error| TestCaseError::fail(format!("{error}: {again}")))?;
            prop_assert_eq!(shape(&second), shape(&tree));
        }
    }

    /// Any arrangement of real words: no panic, every directive accounted for, and what is made loads.
    #[test]
    fn whatever_is_made_loads(picks in prop::collection::vec((0..PIECES.len(), 0..4usize), 1..40)) {
        let mut text = String::new();
        let mut depth = 0;
        for (piece, closes) in picks {
            text += PIECES[piece];
            text.push('\n');
            depth += usize::from(PIECES[piece].ends_with('{'));
            for _ in 0..closes.saturating_sub(2).min(depth) {
                text.push_str("}\n");
                depth -= 1;
            }
        }
        text.push_str(&"}".repeat(depth));
        for options in [Options::default(), Options { faithful: true, ..Options::default() }, Options { redact: true, ..Options::default() }] {
            if let Ok(imported) = nginx::import(&Text(&text), Path::new("nginx.conf"), &options) {
                prop_assert!(imported.broken.is_none(), "{}\n{text}", imported.broken.unwrap());
                let [all, carried, found, listed] = imported.report.counts();
                prop_assert_eq!(carried + found + listed, all);
                prop_assert!(!imported.render(Style::Plain).is_empty());
            }
        }
    }
}

/// Pieces of configurations that have something to say to each other.
const PIECES: &[&str] = &[
    "http {",
    "stream {",
    "server {",
    "location / {",
    "location /a {",
    "upstream a {",
    "upstream b.example.com {",
    "map $ssl_preread_server_name $up {",
    "map $host $up {",
    "a.example.com a;",
    "*.example.com b.example.com;",
    "~^x\\.example\\.com$ 192.0.2.1:443;",
    "default a;",
    "server a.example.com:443;",
    "server 192.0.2.1:8443 backup weight=2;",
    "server [2001:db8::1]:443 down;",
    "server unix:/run/x.sock;",
    "listen 8080;",
    "listen 443 ssl;",
    "listen [::]:443;",
    "listen 127.0.0.1:443 default_server;",
    "listen unix:/run/in.sock;",
    "listen 53 udp;",
    "listen 192.0.2.9:7000-7003;",
    "allow 10.0.0.0/8;",
    "deny all;",
    "allow all;",
    "deny 10.1.0.0/16;",
    "proxy_pass https://a;",
    "proxy_pass a;",
    "proxy_pass $up;",
    "proxy_pass https://$up:443/x;",
    "proxy_pass http://c.example.com:443;",
    "proxy_pass 192.0.2.7:5432;",
    "grpc_pass grpcs://b.example.com;",
    "proxy_ssl on;",
    "ssl_preread on;",
    "proxy_ssl_certificate c.pem;",
    "proxy_ssl_certificate $up;",
    "proxy_ssl_certificate_key k.pem;",
    "proxy_ssl_verify on;",
    "proxy_ssl_trusted_certificate ca.pem;",
    "proxy_ssl_name n.example.com;",
    "proxy_ssl_name \"${not a name\";",
    "proxy_ssl_server_name on;",
    "proxy_ssl_session_reuse off;",
    "proxy_ssl_protocols TLSv1 TLSv1.3;",
    "proxy_ssl_protocols TLSv1.2;",
    "proxy_timeout 1h 5m;",
    "proxy_timeout 0;",
    "proxy_connect_timeout 100y;",
    "proxy_ssl_alpn h2 http/1.1;",
    "proxy_ssl_conf_command Groups X25519:P-256;",
    "proxy_ssl_conf_command Groups X25519MLKEM768;",
    "resolver 127.0.0.1:53 [::1] valid=10s;",
    "set $up a;",
    "limit_conn_zone $server_port zone=z:1m;",
    "limit_conn z 5;",
    "worker_processes 4;",
    "include missing.conf;",
];
