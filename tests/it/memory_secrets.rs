//! Secrets leave the memory of the process when they are not needed any more: it is read here as a debugger reads it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use aws_lc_rs::hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{Egret, Settings, listener};
use crate::support::pki::replace;
use crate::support::process::run;
use crate::support::{eventually, free_port, plain};

/// Where `secret` is in the memory that a process can write to: its mapping, and the address.
fn places(egret: &Egret, secret: &[u8]) -> Vec<String> {
    let memory = File::open(egret.proc_path("mem")).unwrap();
    let maps = egret.proc("maps");
    let writable = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")));
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    };
    let found = writable.filter_map(|line| Some((line, range(line)?)));
    let found = found.flat_map(|(line, (start, end))| {
        within(&memory, start, end, secret).into_iter().map(move |at| format!("{at:x} of {line}"))
    });
    found.collect()
}

fn within(memory: &File, start: u64, end: u64, secret: &[u8]) -> Vec<u64> {
    let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
    // A range that is gone meanwhile, or has no pages.
    let Ok(()) = memory.read_exact_at(&mut bytes, start) else { return Vec::new() };
    let begins = bytes.iter().enumerate().filter(|(_, byte)| **byte == secret[0]).map(|(at, _)| at);
    begins.filter(|at| bytes[*at..].starts_with(secret)).map(|at| start + at as u64).collect()
}

/// Waits until `secret` is nowhere: threads of the process may still be at work.
fn assert_gone(egret: &Egret, what: &str, secret: &[u8]) {
    let begin = std::time::Instant::now();
    let mut left = places(egret, secret);
    while !left.is_empty() && begin.elapsed() < WIPED {
        std::thread::sleep(std::time::Duration::from_millis(100));
        left = places(egret, secret);
    }
    assert!(left.is_empty(), "{what}: {left:#?}");
}

/// A search of all memory takes some milliseconds; what is still there after a few seconds stays.
const WIPED: std::time::Duration = std::time::Duration::from_secs(5);

const PASSWORD: &str = "a-password-4711-that-is-nowhere-else";

/// Encrypts the key in a file; the DER of the plain one.
fn encrypt(key: &Path) -> Vec<u8> {
    let text = fs::read_to_string(key).unwrap();
    let base64: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let mut command = Command::new("openssl");
    command.args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", &format!("pass:{PASSWORD}"), "-in"]).arg(key);
    let sealed = run(&mut command);
    replace(key, &sealed, 0o600);
    BASE64_STANDARD.decode(base64).unwrap()
}

/// The number that is the key, of PKCS#8 of P-256.
fn scalar(der: &[u8]) -> &[u8] {
    let at = der.windows(2).position(|pair| pair == [0x04, 0x20]).unwrap();
    &der[at + 2..at + 34]
}

/// As the library calculates with it: words of the machine, the lowest first.
fn as_number(scalar: &[u8]) -> Vec<u8> {
    scalar.iter().rev().copied().collect()
}

#[test]
fn keys_and_passwords_leave_the_memory_once_they_are_replaced() {
    let scene = Scene::new("");
    let folder = TempDir::new().unwrap();
    let pair = scene.pki.client("app");
    let plain_key = fs::read_to_string(&pair.key).unwrap();
    let base64 = plain_key.lines().nth(1).unwrap().as_bytes().to_vec();
    let password_file = folder.path().join("password");
    let use_it =
        scene.upstream.replace("tls = {", "tls = { identity = \"app\",") + &listener("echo", free_port(), "echo");
    let sections = pair.identity("app") + &use_it;
    let egret = Egret::start(&sections);
    assert!(echoes(&mut plain::connect(egret.address("echo"))));
    // A plain key, an encrypted one, another plain one: each is replaced by the next.
    let der = encrypt(&pair.key);
    replace(&password_file, &format!("{PASSWORD}\n"), 0o600);
    assert!(!places(&egret, &as_number(scalar(&der))).is_empty(), "a search that finds nothing proves nothing");
    egret.rewrite(&(pair.identity("app") + &format!("password_file = {password_file:?}\n") + &use_it));
    assert!(egret.reload(), "{}", egret.log_text());
    for (what, secret) in [("the text of the plain key", &base64[..]), ("the password", PASSWORD.as_bytes())] {
        assert_gone(&egret, what, secret);
    }
    assert!(!places(&egret, &as_number(scalar(&der))).is_empty(), "the key is in use");
    let next = scene.pki.client("app");
    egret.rewrite(&(next.identity("app") + &use_it));
    assert!(egret.reload(), "{}", egret.log_text());
    for (what, secret) in [
        ("the key", scalar(&der)),
        ("the key as a number", &as_number(scalar(&der))),
        ("the key as DER", &der),
        ("the password", PASSWORD.as_bytes()),
    ] {
        assert_gone(&egret, what, secret);
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label (RFC 8446 section 7.1) of a traffic secret, with the hash that its length says.
fn expanded(secret: &[u8], label: &str, length: usize) -> Vec<u8> {
    let algorithm = if secret.len() == 48 { HKDF_SHA384 } else { HKDF_SHA256 };
    let label = format!("tls13 {label}");
    let mut info = u16::try_from(length).unwrap().to_be_bytes().to_vec();
    info.push(u8::try_from(label.len()).unwrap());
    info.extend(label.as_bytes());
    info.push(0);
    let mut out = vec![0; length];
    Prk::new_less_safe(algorithm, secret).expand(&[&info], Length(length)).unwrap().fill(&mut out).unwrap();
    out
}

/// Traffic secrets and the record keys of a session, from the key log.
fn traffic(keys: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for label in ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"] {
        let line = keys.lines().find(|line| line.starts_with(label)).unwrap();
        let hex = line.rsplit(' ').next().unwrap();
        let secret: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let size = if secret.len() == 48 { 32 } else { 16 };
        found.push((format!("key of {label}"), expanded(&secret, "key", size)));
        found.push((label.to_owned(), secret));
    }
    found
}

#[test]
fn keys_of_records_leave_the_memory_when_their_stream_ends() {
    let scene = Scene::new("");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("keys.log");
    let arguments = vec!["--key-log".to_owned(), file.display().to_string()];
    let sections = scene.upstream + &listener("echo", free_port(), "echo");
    let egret = Egret::start_with(Settings { arguments, ..Settings::default() }, &sections);
    let mut stream = plain::connect(egret.address("echo"));
    assert!(echoes(&mut stream));
    let keys = eventually("the secrets to be written", || {
        fs::read_to_string(&file).ok().filter(|keys| keys.contains("SERVER_TRAFFIC_SECRET_0"))
    });
    let secrets = traffic(&keys);
    let found = secrets.iter().filter(|(what, _)| what.starts_with("key")).map(|(_, key)| places(&egret, key).len());
    assert!(found.sum::<usize>() > 0, "a search that finds nothing proves nothing");
    plain::finish(&stream);
    drop(stream);
    egret.wait_for_log("the end of the stream", |line| line["message"] == "connection");
    for (what, secret) in secrets {
        assert_gone(&egret, &what, &secret);
    }
}
