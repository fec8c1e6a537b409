//! The secrets of sessions, for Wireshark: only where a person asked for them, and for that person alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use crate::support::egret::{Egret, Settings, listener, roots};
use crate::support::peer::{Peer, anonymous};
use crate::support::pki::Pki;
use crate::support::plain;
use crate::support::{eventually, free_port};

const HOST: &str = "server.example.com";

#[test]
fn key_log_holds_the_secrets_of_each_session_and_warns() {
    let (pki, folder) = (Pki::new(), TempDir::new().unwrap());
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let file = folder.path().join("keys.log");
    let arguments = vec!["--key-log".to_owned(), file.display().to_string()];
    let egret = Egret::start_with(
        Settings { arguments, ..Settings::default() },
        &(roots("internal", &pki.root())
            + &format!("[upstreams.echo]\nservers = [\"{}\"]\n", peer.address)
            + &format!("tls = {{ trust = \"internal\", server_name = \"{HOST}\" }}\n")
            + &listener("echo", free_port(), "echo")),
    );
    let (bytes, _) = plain::ask_and_finish(egret.address("echo"), b"ping");
    assert_eq!(bytes, b"ping");
    let keys = eventually("the secrets to be written", || {
        fs::read_to_string(&file).ok().filter(|keys| keys.contains("SERVER_TRAFFIC_SECRET_0"))
    });
    for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"] {
        let line = keys.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("no {label}:\n{keys}"));
        let fields: Vec<&str> = line.split(' ').collect();
        assert_eq!((fields.len(), fields[1].len()), (3, 64), "{line}");
        assert!(!egret.log_text().contains(fields[2]), "a secret stands in the log");
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    egret.wait_for_log("a warning", |line| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|text| text.contains("secrets"))
    });
}

#[test]
fn key_log_that_others_may_read_is_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("keys.log");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    command.args(["run", "--listen", "127.0.0.1:0", "--to", "192.0.2.1:443", "--key-log"]).arg(&file);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("chmod 600"), "{output:?}");
}
