//! The log as text: one line an event, and a repair that can be pasted.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::Command;

use tempfile::TempDir;

use super::{Program, eventually};
use crate::lifecycle::Scene;
use crate::support::egret::egret;
use crate::support::peer::{Peer, anonymous};
use crate::support::pki::Leaf;
use crate::support::process::run;
use crate::support::{free_port, loopback, plain};

/// An escape sequence, line breaks of each kind, bidirectional controls, characters without width.
const HOSTILE: &str =
    "visible\u{202e}gnp.exe\u{2066}x\u{2028}forged\u{2029}p\u{200b}a\u{200d}y\u{feff}\u{9b}31m\u{1b}[31mz\nforged";

fn is_shown(text: &str, what: &str) {
    assert!(text.contains("visible"), "{what}: {text}");
    let hidden = |letter: char| letter != '\n' && HOSTILE.contains(letter) && !letter.is_ascii_graphic();
    assert!(!text.chars().any(hidden), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("forged")), "{what}: {text}");
}

/// A listener to one more upstream.
fn upstream(name: &str, port: u16, server: &Peer, more: &str) -> String {
    format!(
        "[upstreams.{name}]\nservers = [\"{}\"]\n{more}\n[[listeners]]\nname = {name:?}\nlisten = \"127.0.0.1:{port}\"\n\
         upstream = {name:?}\n",
        server.address
    )
}

#[test]
fn an_event_is_one_line_whatever_a_server_says() {
    let scene = Scene::new("");
    let leaf = Leaf { common_name: HOSTILE, names: &["other.example.com"], valid: (-1, 90) };
    let impostor = Peer::echo(anonymous(&scene.pki.issue("impostor", &leaf)));
    let rude = Peer::start(|mut tcp| {
        let _ = tcp.read(&mut [0; 64]);
        let fields = format!("SFATAL\0C53300\0M{HOSTILE}\0\0");
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        let _ = tcp.write_all(&[b"E".as_slice(), &length, fields.as_bytes()].concat());
    });
    let (impostors, rudes) = (free_port(), free_port());
    let named = "tls = { trust = \"internal\", server_name = \"wanted.example.com\" }";
    let sections = upstream("impostor", impostors, &impostor, named)
        + &upstream("rude", rudes, &rude, "upgrade = \"postgres\"\ntls = { server_name = \"wanted.example.com\" }");
    for format in ["text", "json"] {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("log");
        let log = File::create(&file).unwrap();
        let mut egret = Program::start_with(&scene, &sections, &["--log", format], log, |_| {});
        plain::ask(loopback(impostors), b"x");
        plain::ask(loopback(rudes), b"\0\0\0\x14\0\x03\0\0user\0x\0\0\0\0\0\0");
        assert_eq!(egret.stop(), Some(0));
        let text = fs::read_to_string(&file).unwrap();
        let failed: Vec<&str> = text.lines().filter(|line| line.contains("origination failed")).collect();
        assert_eq!(failed.len(), 2, "{text}");
        failed.iter().for_each(|line| is_shown(line, format));
        is_shown(&text, format);
        let begins = |line: &str| line.starts_with(if format == "text" { "20" } else { "{\"timestamp\":\"20" });
        assert!(text.lines().all(begins), "{text}");
    }
}

#[test]
fn tools_show_what_a_certificate_hides() {
    let scene = Scene::new("");
    let leaf = Leaf { common_name: HOSTILE, names: &["server.example.com"], valid: (-1, 90) };
    let pair = scene.pki.issue("hostile", &leaf);
    let server = Peer::echo(anonymous(&pair));
    let (address, file) = (server.address.to_string(), pair.certificate.display().to_string());
    for arguments in [
        vec!["explain", &address],
        vec!["explain", "--json", &address],
        vec!["trust", "fetch", &address],
        vec!["trust", "show", &file],
        vec!["trust", "show", "--json", &file],
    ] {
        is_shown(&egret(&arguments).1, &arguments[..2].join(" "));
    }
}

#[test]
fn the_repair_of_the_first_page_can_be_pasted_from_the_log() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let command = page.lines().find_map(|line| line.strip_prefix("    $ grep -o 'repair=")).unwrap();
    let scene = Scene::new("");
    let pair = scene.pki.stock_self_signed("stock", "localhost", &["-addext", "subjectAltName=DNS:localhost"]);
    let server = Peer::echo(anonymous(&pair));
    let port = free_port();
    let folder = TempDir::new().unwrap();
    let log = File::create(folder.path().join("egret.log")).unwrap();
    let sections = upstream("backend", port, &server, "tls = { server_name = \"localhost\" }");
    let egret = Program::start_with(&scene, &sections, &["--log", "text"], log, |_| {});
    plain::ask(loopback(port), b"x");
    let repair = eventually("a repair", || {
        let mut shell = Command::new("sh");
        let command = format!("grep -o 'repair={command}");
        Some(run(shell.current_dir(folder.path()).args(["-c", &command]))).filter(|repair| repair.contains("[trust."))
    });
    // The file has an inline table, to which no table can be appended: the repair is a change of the file.
    assert!(repair.lines().any(|line| line.starts_with("+tls = { server_name = \"localhost\", trust = ")), "{repair}");
    let change = folder.path().join("repair.diff");
    fs::write(&change, &repair).unwrap();
    let mut patch = Command::new("patch");
    run(patch.arg("--quiet").arg(egret.config()).arg(change));
    assert_eq!(egret.admin("POST", "/reload").status, 200, "{repair}");
    assert!(crate::lifecycle::echoes(&mut plain::connect(loopback(port))), "{repair}");
}
