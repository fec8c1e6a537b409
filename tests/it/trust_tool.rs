//! `egret trust`: what a server presents, what a file holds, what ends when.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tempfile::TempDir;
use time::Duration;

use crate::support::authority::{Ca, Leaf, Wish, openssl};
use crate::support::openssl::OpensslServer;
use crate::support::pki::Pki;

fn trust(folder: &Path, arguments: &[&str], answer: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    command.current_dir(folder).arg("trust").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that asks nothing may be gone before the answer.
    let _ = child.stdin.take().unwrap().write_all(answer.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn sha256(pem: &str) -> String {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    egret::credentials::fingerprint::labelled_hex(&egret::credentials::fingerprint::sha256(&der))
}

#[test]
fn fetch_believes_the_authority_and_not_the_leaf() {
    let (folder, pki) = (TempDir::new().unwrap(), Pki::new());
    let server = OpensslServer::start(&pki, &pki.server(&["localhost"]), &[]);
    let address = server.address.to_string();
    let intermediate = sha256(&fs::read_to_string(pki.intermediate()).unwrap());
    let fetch = ["fetch", &address, "--server-name", "localhost", "--output", "got.pem"];

    let output = trust(folder.path(), &fetch, "no\n");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("trust on first use") && text(&output).contains(&intermediate));
    let output = trust(folder.path(), &fetch, "");
    assert_eq!(output.status.code(), Some(1), "no answer is no yes: {}", text(&output));
    let other = sha256(&fs::read_to_string(pki.root()).unwrap());
    let output = trust(folder.path(), &[&fetch[..], &["--fingerprint", &other]].concat(), "yes\n");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(!folder.path().join("got.pem").exists(), "written unconfirmed");

    let output = trust(folder.path(), &fetch, "yes\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("roots = [\"got.pem\"]"), "{}", text(&output));
    let got = fs::read_to_string(folder.path().join("got.pem")).unwrap();
    assert_eq!(sha256(&got), intermediate);
    let output = trust(folder.path(), &fetch, "yes\n");
    assert_eq!(output.status.code(), Some(2), "it was overwritten: {}", text(&output));
}

/// An authority that serves under its own certificate, as `openssl req -x509` makes it, is no root of a chain.
#[test]
fn fetch_by_fingerprint_asks_nothing() {
    let (folder, pki) = (TempDir::new().unwrap(), Pki::new());
    let pair = pki.stock_self_signed("self", "localhost", &[]);
    let server = OpensslServer::start(&pki, &pair, &[]);
    let (address, pem) = (server.address.to_string(), fs::read_to_string(&pair.certificate).unwrap());
    let fingerprint = sha256(&pem).to_uppercase().replace("SHA256:", "sha256:");
    let fetch = ["fetch", &address, "--output", "got.pem", "--fingerprint", &fingerprint];
    let output = trust(folder.path(), &fetch, "");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("certificate = \"got.pem\""), "the leaf is all there is: {}", text(&output));
    assert_eq!(sha256(&fs::read_to_string(folder.path().join("got.pem")).unwrap()), sha256(&pem));
}

#[test]
fn fetch_says_why_nothing_came() {
    let folder = TempDir::new().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = trust(folder.path(), &["fetch", &free.to_string()], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("(connect_refused)"), "{}", text(&output));
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap().to_string();
    let greeter = std::thread::spawn(move || {
        let (mut stream, _) = plain.accept().unwrap();
        stream.write_all(b"220 mail.example.com ESMTP\r\n").unwrap();
    });
    let output = trust(folder.path(), &["fetch", &address], "");
    greeter.join().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("(no_certificate)"), "{}", text(&output));
}

fn show(folder: &Path, arguments: &[&str]) -> Value {
    let output = trust(folder, &[&["show"], arguments, &["--json"]].concat(), "");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn show_tells_roles_owners_and_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let root = Ca::new("House Root");
    let leaf = root.leaf(&Wish::default());
    let pem = [&leaf.key.serialize_pem(), &leaf.pem, &root.pem, &root.crl(&[&leaf.serial], Duration::days(3))];
    fs::write(folder.path().join("all.pem"), pem.map(String::as_str).concat()).unwrap();
    let items = show(folder.path(), &["all.pem"]);
    let roles: Vec<_> = items.as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!(roles, ["key", "certificate", "certificate", "crl"]);
    assert_eq!(items[0]["certificate"], 2);
    assert_eq!(items[1]["role"], "certificate of a server or client");
    assert_eq!(items[1]["sha256"], sha256(&leaf.pem));
    assert_eq!(items[2]["role"], "root certificate");
    assert_eq!(items[3]["revoked"], 1);
    let output = trust(folder.path(), &["show", "all.pem"], "");
    assert!(text(&output).contains("1. private key: that of certificate 2"), "{}", text(&output));
    let secret: String = leaf.key.serialize_pem().lines().nth(1).unwrap().to_owned();
    assert!(!text(&output).contains(&secret), "a key was shown");
}

#[test]
fn show_opens_pkcs12_and_notes_old_certificates() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    openssl(
        path,
        &[
            "req",
            "-new",
            "-nodes",
            "-newkey",
            "rsa:2048",
            "-subj",
            "/CN=old.example.com",
            "-keyout",
            "k.pem",
            "-out",
            "r.pem",
        ],
    );
    openssl(path, &["x509", "-req", "-in", "r.pem", "-signkey", "k.pem", "-days", "9", "-out", "c.pem"]);
    openssl(
        path,
        &["pkcs12", "-export", "-inkey", "k.pem", "-in", "c.pem", "-passout", "pass:secret", "-out", "all.p12"],
    );
    fs::write(path.join("password"), "secret\n").unwrap();
    let items = show(path, &["all.p12", "--password-file", "password"]);
    let certificate = items.as_array().unwrap().iter().find(|item| item["kind"] == "certificate").unwrap();
    assert_eq!(certificate["version"], 1);
    assert_eq!(certificate["notes"].as_array().unwrap().len(), 2, "version 1, and the common name: {certificate:#}");
    assert!(
        items.as_array().unwrap().iter().any(|item| item["kind"] == "key" && item["certificate"].is_u64()),
        "{items:#}"
    );
    let output = trust(path, &["show", "all.p12"], "");
    assert!(output.status.code() == Some(2) && text(&output).contains("--password-file"), "{}", text(&output));
    fs::write(path.join("junk"), [0, 1, 2]).unwrap();
    assert_eq!(trust(path, &["show", "junk"], "").status.code(), Some(2));
    assert_eq!(trust(path, &["show", "nowhere"], "").status.code(), Some(2));
}

/// Days are told rounded down.
const HOUR: Duration = Duration::hours(1);

#[test]
fn expiry_lists_all_that_ends_the_nearest_first() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    let root = Ca::new("House Root");
    root.leaf(&Wish { cn: "app", until: Duration::days(40) + HOUR, ..Wish::default() }).write(path, "app");
    // What is over is listed as well, although nothing can run with it.
    let past = Wish { cn: "past", from: Duration::days(-9), until: Duration::days(-2) - HOUR, ..Wish::default() };
    root.leaf(&past).write(path, "past");
    fs::write(path.join("root.pem"), &root.pem).unwrap();
    fs::write(path.join("house.crl"), root.crl(&[], Duration::days(5) + HOUR)).unwrap();
    Leaf::self_signed(&Wish { cn: "exact", until: Duration::days(20) + HOUR, ..Wish::default() }, false)
        .write(path, "exact");
    let configuration = |identity: &str| {
        format!(
            "[identities.app]\ncertificate = '{identity}.crt'\nprivate_key = '{identity}.key'\n\
             [trust.house]\nroots = ['root.pem']\ncrls = ['house.crl']\n[trust.exact]\ncertificate = 'exact.crt'\n\
             [upstreams.a]\nservers = ['a.example.com:1']\ntls = {{ identity = 'app', trust = 'house' }}\n\
             [upstreams.b]\nservers = ['b.example.com:1']\ntls = {{ trust = 'exact' }}\n\
             [[listeners]]\nlisten = '127.0.0.1:1'\nupstream = 'a'\n[[listeners]]\nlisten = '127.0.0.1:2'\nupstream = 'b'\n"
        )
    };
    let expiry = |identity: &str, within: &str| {
        fs::write(path.join("egret.toml"), configuration(identity)).unwrap();
        let output = trust(path, &["expiry", "egret.toml", "--within", within, "--json"], "");
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        let row = |row: &Value| {
            format!("{} {} {}", row["kind"].as_str().unwrap(), row["name"].as_str().unwrap(), row["days"])
        };
        let rows: Vec<_> = list.as_array().unwrap().iter().map(row).collect();
        (output.status.code(), rows)
    };
    let (code, rows) = expiry("app", "5");
    assert_eq!(rows[..3], ["crl house 5", "certificate exact 20", "identity app 40"]);
    assert!(rows.len() == 4 && rows[3].starts_with("root house "), "{rows:?}");
    assert_eq!(code, Some(0));
    assert_eq!(expiry("app", "6").0, Some(1));
    let (code, rows) = expiry("past", "1");
    assert_eq!((code, rows[0].as_str()), (Some(1), "identity app -3"));
    fs::remove_file(path.join("root.pem")).unwrap();
    assert_eq!(trust(path, &["expiry", "egret.toml"], "").status.code(), Some(2), "what is not known is not fine");
}
