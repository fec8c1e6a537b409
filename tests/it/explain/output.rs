//! What is shown, what is masked, what is never sent; and that the pages say it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::stage::{HOST, config, explain};
use crate::support::egret::egret;
use crate::support::peer::{Peer, anonymous, mutual};
use crate::support::pki::Pki;

#[test]
fn exit_codes_tell_healthy_broken_and_unusable_apart() {
    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let (address, root) = (peer.address.to_string(), pki.root().display().to_string());
    let run = |more: &[&str]| egret(&[&["explain", &address][..], more].concat());
    let (code, text) = run(&["--server-name", HOST, "--ca", &root]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("No cause found") && text.contains("proxy_ssl_server_name on;"), "{text}");
    let (code, text) = run(&["--server-name", HOST]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("private_authority") && text.contains("[trust.backend]"), "{text}");
    for wrong in [&["--ca", "/nowhere.pem"][..], &["--timeout", "soon"], &["--key", "k"], &["--config", "/nowhere"]] {
        let (code, text) = run(wrong);
        assert_eq!(code, 2, "{wrong:?}: {text}");
    }
    let (_, text) = run(&["--server-name", HOST, "--ca", &root, "--progress"]);
    assert!(text.contains(&format!("egret: trying {address}, TLS 1.2 only")), "{text}");
}

#[test]
fn an_upstream_of_a_configuration_is_told_with_all_that_is_said_of_it() {
    let (pki, next) = (Pki::new(), Pki::new());
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("egret.toml");
    let text = format!(
        "[trust.t]\nroots = [{:?}]\ncandidate_roots = [{:?}]\n\
         [upstreams.db]\nservers = [{{ address = \"{}\", weight = 2, max_connections = 3 }}]\n\
         tls = {{ trust = \"t\", server_name = {HOST:?} }}\n\
         [upstreams.untouched]\nservers = [\"{}\"]\npassthrough = true\n\
         [[listeners]]\nlisten = \"127.0.0.1:0\"\nupstream = \"db\"\n",
        pki.root(),
        next.root(),
        peer.address,
        peer.address,
    );
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let explained = explain(&["--config", &file[..], "--upstream", "db"]);
    assert_eq!(explained.code, 0, "{}", explained.text());
    let chain = &explained.report["chain"];
    assert_eq!((&chain["by_trust"], &chain["by_candidates"]), (&"ok".into(), &"certificate_unknown_issuer".into()));
    let repair = explained.report["repair"]["egret"].as_str().unwrap();
    let server = format!("servers = [{{ address = \"{}\", weight = 2, max_connections = 3 }}]", peer.address);
    assert!(repair.contains(&server) && repair.contains("candidate_roots = "), "{repair}");
    let second = fs::read_to_string(&file).unwrap().replace("servers = [{", "servers = [\"localhost:1\", {");
    fs::write(&file, second).unwrap();
    let (_, told) = egret(&["explain", "--config", &file, "--upstream", "db"]);
    assert!(
        told.contains(&format!("proxy_pass {};", peer.address)) && !told.contains("proxy_pass localhost"),
        "{told}"
    );
    let (code, told) = egret(&["explain", "--config", &file, "--upstream", "untouched"]);
    assert!(
        code == 2 && told.contains("untouched passes the client's own TLS through, and none of egret's is spoken"),
        "{told}"
    );
}

#[test]
fn the_hello_is_shown_field_by_field() {
    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let (address, root) = (peer.address.to_string(), pki.root().display().to_string());
    let arguments = [&address[..], "--server-name", HOST, "--ca", &root, "--show-hello", "--alpn", "postgresql"];
    let explained = explain(&arguments);
    let value = |name: &str| -> String {
        let fields = explained.report["hello"].as_array().unwrap();
        let field = fields.iter().find(|field| field["name"] == name);
        field.unwrap_or_else(|| panic!("no {name} in {fields:?}"))["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(value("server_name"), HOST);
    assert_eq!(value("supported_versions"), "TLSv1.3, TLSv1.2");
    assert_eq!(value("application_layer_protocol_negotiation"), "postgresql");
    assert!(value("key_share").starts_with("X25519MLKEM768 (1216 bytes)"), "{}", value("key_share"));
    assert!(value("bytes").parse::<usize>().is_ok_and(|bytes| bytes > 1_300));
}

/// Some servers choose by the letter, and clients of all makes send lower case.
#[test]
fn names_in_upper_case_are_sent_in_lower_case() {
    let pki = Pki::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = Arc::clone(&seen);
    let peer = Peer::start_tls(anonymous(&pki.server(&[HOST])), move |mut tls| {
        let _ = tls.read(&mut [0; 1]);
        seeing.lock().unwrap().push(tls.conn.server_name().map(str::to_owned));
    });
    let (address, root) = (peer.address.to_string(), pki.root().display().to_string());
    for name in ["SERVER.EXAMPLE.COM", "Server.Example.com", HOST] {
        let explained = explain(&[&address[..], "--server-name", name, "--ca", &root]);
        assert_eq!((explained.code, &explained.report["server_name"]), (0, &HOST.into()), "{}", explained.text());
    }
    let folder = tempfile::TempDir::new().unwrap();
    let tables = format!(
        "[trust.t]\nroots = [{root:?}]\n[upstreams.backend]\nservers = [{address:?}]\n\
         tls = {{ trust = \"t\", server_name = \"Server.EXAMPLE.com\" }}\n"
    );
    let explained = explain(&["--config", &config(&folder, "egret.toml", &tables)]);
    assert_eq!(explained.code, 0, "{}", explained.text());
    let seen = seen.lock().unwrap();
    let sent: Vec<&String> = seen.iter().flatten().collect();
    assert!(sent.len() >= 4 && sent.iter().all(|name| *name == HOST), "{seen:?}");
}

#[test]
fn redaction_leaves_no_name_address_or_path() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let peer = Peer::echo(mutual(&pair, &pki));
    let client = pki.client("secret-client");
    let (address, root) = (peer.address.to_string(), pki.root().display().to_string());
    let (certificate, key) = (client.certificate.display().to_string(), client.key.display().to_string());
    for shape in ["--json", "--show-hello"] {
        let arguments = ["explain", &address, "--server-name", HOST, "--ca", &root, "--cert", &certificate];
        let (code, text) =
            egret(&[&arguments[..], &["--key", &key, "--redact", shape, "--http-get", "/ledger/balance"]].concat());
        assert_eq!(code, 0, "{text}");
        let folder = pki.folder().display().to_string();
        for secret in [HOST, "127.0.0.1", "secret-client", "ledger", "Test Intermediate", &folder, &pair.sha256()] {
            assert!(!text.contains(secret), "{secret} is shown by {shape}:\n{text}");
        }
    }
}

#[test]
fn nothing_is_sent_after_the_handshake() {
    let pki = Pki::new();
    let heard = Arc::new(AtomicUsize::new(0));
    let hearing = Arc::clone(&heard);
    let peer = Peer::start_tls(anonymous(&pki.server(&[HOST])), move |mut tls| {
        let mut all = Vec::new();
        let _ = tls.read_to_end(&mut all);
        hearing.fetch_add(all.len(), Ordering::Relaxed);
    });
    let (address, root) = (peer.address.to_string(), pki.root().display().to_string());
    let explained = explain(&[&address[..], "--server-name", HOST, "--ca", &root]);
    assert_eq!(explained.code, 0, "{}", explained.text());
    assert!(explained.report["attempts"].as_array().unwrap().len() >= 7, "{}", explained.text());
    assert_eq!(heard.load(Ordering::Relaxed), 0);
}

#[test]
fn a_client_certificate_is_kept_from_a_server_that_is_not_believed() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let shown = Arc::new(AtomicUsize::new(0));
    let showing = Arc::clone(&shown);
    let peer = Peer::start_tls(mutual(&pki.server(&[HOST]), &pki), move |mut tls| {
        while tls.conn.is_handshaking() && tls.conn.complete_io(&mut tls.sock).is_ok() {}
        showing.fetch_add(usize::from(tls.conn.peer_certificates().is_some()), Ordering::Relaxed);
    });
    let client = pki.client("app");
    let (certificate, key) = (client.certificate.display().to_string(), client.key.display().to_string());
    let (address, root) = (peer.address.to_string(), stranger.root().display().to_string());
    let own = ["--cert", &certificate, "--key", &key];
    let explained = explain(&[&[&address[..], "--server-name", HOST, "--ca", &root], &own[..]].concat());
    assert_eq!(explained.cause(), "private_authority", "{}", explained.text());
    assert_eq!(shown.load(Ordering::Relaxed), 0);
    assert_eq!(explained.report["client_certificate"]["answered"], false);
}

#[test]
fn the_schema_is_that_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/explain.schema.json");
    let schema = format!("{:#}\n", schemars::schema_for!(egret::tools::explain::report::Explanation).as_value());
    if std::env::var_os("EGRET_BLESS").is_some() {
        fs::write(&file, &schema).unwrap();
    }
    assert_eq!(fs::read_to_string(file).unwrap_or_default(), schema, "EGRET_BLESS=1 writes it anew");
}

#[test]
fn every_finer_word_has_a_row_in_the_page_and_no_row_is_left_over() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let quoted = |text: &str| -> BTreeSet<String> {
        let words = text.split('"').skip(1).step_by(2).filter(|word| !word.is_empty());
        words
            .filter(|word| word.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_'))
            .map(Into::into)
            .collect()
    };
    let kinds = read("src/tools/explain/cause/kind.rs");
    let (_, words) = kinds.split_once("fn word(").unwrap();
    let mut known = quoted(words.split_once("impl ").unwrap().0);
    let notes = read("src/tools/explain/notes.rs");
    for part in notes.split("note(").skip(1) {
        let first = part.trim_start();
        known.extend(first.starts_with('"').then(|| first.split('"').nth(1).unwrap().to_owned()));
    }
    let attempts = read("src/tools/explain/attempt.rs");
    let (_, words) = attempts.split_once("fn word(").unwrap();
    known.extend(quoted(words.split_once("fn title").unwrap().0));
    let page = read("docs/explain.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let told: BTreeSet<String> = rows.map(|(word, _)| word.to_owned()).collect();
    assert!(known.len() > 30, "{known:?}");
    assert_eq!(told, known);
}
