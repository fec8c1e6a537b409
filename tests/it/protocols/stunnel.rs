//! Each `protocol =` that clients of stunnel can have: imported, and run against a server of the protocol.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::faults::MODELS;
use crate::support::egret::Egret;
use crate::support::peer::{Peer, accepted, anonymous, echo};
use crate::support::pki::Pki;
use crate::support::plain::{self, End};
use crate::support::process::attempt;
use crate::support::{free_port, loopback};

const HOST: &str = "server.example.com";

/// stunnel's word, the protocol of egret, and first bytes of a client.
const IMPORTED: [(&str, &str, &[u8]); 6] = [
    ("imap", "imap", b"a1 CAPABILITY\r\n"),
    ("ldap", "ldap", b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00"),
    ("nntp", "nntp", b"CAPABILITIES\r\n"),
    ("pgsql", "postgres", b"\0\0\0\x12\0\x03\0\0user\0app\0\0"),
    ("pop3", "pop3", b"CAPA\r\n"),
    ("smtp", "smtp", b"EHLO client.example.com\r\n"),
];

/// They begin by other means than a request for TLS that egret knows.
const NOT_IMPORTED: [&str; 4] = ["capwin", "cifs", "connect", "socks"];

fn import(folder: &Path, roots: &Path, protocol: &str, listen: u16, server: u16) -> Output {
    let text = format!(
        "CAfile = {}\nverifyChain = yes\nclient = yes\n\n[service]\naccept = 127.0.0.1:{listen}\n\
         connect = 127.0.0.1:{server}\ncheckHost = {HOST}\nprotocol = {protocol}\n",
        roots.display()
    );
    fs::write(folder.join("stunnel.conf"), text).unwrap();
    let mut import = Command::new(env!("CARGO_BIN_EXE_egret"));
    attempt(import.current_dir(folder).args(["import", "stunnel", "stunnel.conf", "--faithful"]))
}

/// A server of this protocol that gets as far as TLS, and what its client reads first.
fn server(pki: &Pki, word: &str) -> (Peer, Vec<u8>) {
    let tls = anonymous(&pki.server(&[HOST]));
    match MODELS.iter().find(|model| model.word == word) {
        Some(model) => {
            let answers = model.answers.iter().map(|answer| answer.to_vec()).collect();
            let greeting = if word == "ldap" { b"" } else { model.answers[0] };
            (model.server_when(|| (), answers, move |tcp| echo(accepted(tcp, &tls))), greeting.to_vec())
        }
        None => {
            let peer = Peer::start(move |mut tcp| {
                if tcp.read_exact(&mut [0; 8]).and_then(|()| tcp.write_all(b"S")).is_ok() {
                    echo(accepted(tcp, &tls));
                }
            });
            (peer, Vec::new())
        }
    }
}

#[test]
fn each_protocol_of_stunnel_is_imported_and_reaches_its_server() {
    let pki = Pki::new();
    for (protocol, word, first) in IMPORTED {
        // stunnel takes its words in any case.
        for protocol in [protocol.to_owned(), protocol.to_uppercase()] {
            let folder = TempDir::new().unwrap();
            let (peer, greeting) = server(&pki, word);
            let listen = free_port();
            let output = import(folder.path(), &pki.root(), &protocol, listen, peer.address.port());
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains(&format!("upgrade = \"{word}\"")), "{protocol}: {text}");
            let egret = Egret::start(&text);
            let (bytes, end) = plain::ask_and_finish(loopback(listen), first);
            assert_eq!(bytes, [&greeting[..], first].concat(), "{protocol}: {}", egret.log_text());
            assert_eq!(end, End::Clean, "{protocol}");
        }
    }
}

#[test]
fn protocols_that_egret_does_not_speak_are_reported_and_not_imported_without_it() {
    let pki = Pki::new();
    for protocol in NOT_IMPORTED {
        let folder = TempDir::new().unwrap();
        let output = import(folder.path(), &pki.root(), protocol, free_port(), free_port());
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(report.contains(&format!("egret does not know how `{protocol}` goes over to TLS")), "{report}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success() && !text.contains("[[listeners]]"), "{protocol}: {text}");
    }
}
