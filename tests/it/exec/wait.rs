//! `--wait-upstreams`: the program starts when egret has reached its servers.

use std::net::TcpListener;

use rustix::process::Signal;

use super::support::{Place, Stage};
use crate::support::egret::{listener, roots};
use crate::support::openssl::OpensslServer;
use crate::support::peer::{Peer, anonymous, mutual};
use crate::support::pki::{Pki, replace};
use crate::support::postgres::Postgres;

const HOST: &str = "db.example.com";

fn upstream(name: &str, server: &str, trust: &str, more: &str) -> String {
    format!(
        "[upstreams.{name}]\nservers = [{server:?}]\n{more}\ntls = {{ trust = {trust:?}, server_name = \"{HOST}\" }}\n{}",
        listener(name, 0, name)
    )
}

/// Free at the moment; a server comes there later.
fn later() -> (u16, String) {
    let port = crate::support::free_port();
    (port, format!("127.0.0.1:{port}"))
}

#[test]
fn the_program_starts_once_a_late_server_is_there() {
    let pki = Pki::new();
    let server = pki.server(&[HOST]);
    let (port, address) = later();
    let ready = Peer::echo(anonymous(&server));
    let sections = roots("internal", &pki.root())
        + &upstream("late", &address, "internal", "")
        + &upstream("ready", &ready.address.to_string(), "internal", "");
    let stage = Stage::of(&sections);
    let mut exec = stage.exec(Place::Init, &["--wait-upstreams"], &["echo", "the program runs"]);
    exec.has_line(|line| line["upstream"] == "late" && line["reason"] == "connect_refused");
    exec.has_line(|line| line["message"] == "upstream proven" && line["upstream"] == "ready");
    assert!(!exec.output().contains("the program runs"));
    let _late = OpensslServer::start(&pki, &server, &["-accept", &port.to_string()]);
    assert_eq!(exec.wait(), Some(0), "{}", exec.output());
    exec.has_line(|line| line["message"] == "upstream proven" && line["upstream"] == "late");
    assert!(exec.output().contains("the program runs"));
}

#[test]
fn only_the_named_upstreams_are_waited_for() {
    let pki = Pki::new();
    let ready = Peer::echo(anonymous(&pki.server(&[HOST])));
    let sections = roots("internal", &pki.root())
        + &upstream("never", &later().1, "internal", "")
        + &upstream("ready", &ready.address.to_string(), "internal", "");
    let stage = Stage::of(&sections);
    let mut exec = stage.exec(Place::Outside, &["--wait-upstreams=ready"], &["true"]);
    assert_eq!(exec.wait(), Some(0), "{}", exec.output());
}

/// Class and repair of the last failure are logged for each, whatever stage it was at.
#[test]
fn a_wait_in_vain_has_its_exit_code_and_says_why() {
    let pki = Pki::new();
    let stranger = Pki::named("stranger");
    let server = pki.server(&[HOST]);
    let stranger_server = Peer::echo(anonymous(&stranger.server(&[HOST])));
    let demanding = Peer::echo(mutual(&server, &pki));
    let wrong_name = Peer::echo(anonymous(&pki.server(&["other.example.com"])));
    // Never accepts: the handshake has no answer.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let cases = [
        ("refused", later().1, "connect_refused", false),
        ("untrusted", stranger_server.address.to_string(), "certificate_unknown_issuer", true),
        ("named", wrong_name.address.to_string(), "certificate_name_mismatch", true),
        // TLS 1.3: the server says so after the handshake.
        ("demanding", demanding.address.to_string(), "client_certificate_required", true),
        ("silent", silent.local_addr().unwrap().to_string(), "handshake_timeout", false),
    ];
    let mut sections = roots("internal", &pki.root());
    for (name, address, _, _) in &cases {
        sections += &upstream(name, address, "internal", "");
    }
    let arguments = ["--wait-upstreams", "--wait-timeout", "3s"];
    let stage = Stage::of(&sections);
    let mut exec = stage.exec(Place::Outside, &arguments, &["echo", "the program runs"]);
    assert_eq!(exec.wait(), Some(124), "{}", exec.output());
    assert!(!exec.output().contains("the program runs"));
    for (name, _, reason, has_repair) in cases {
        let line = exec.has_line(|line| line["message"] == "upstream not proven in time" && line["upstream"] == name);
        assert_eq!(line["reason"], reason, "{line}");
        assert_eq!(line["repair"].is_string(), has_repair, "{line}");
    }
    let last = exec.has_line(|line| line["reason"] == "wait_timeout");
    let message = last["message"].as_str().unwrap();
    assert!(message.contains("demanding, named, refused, silent, untrusted"), "{message}");
}

#[test]
fn a_reload_can_end_the_wait() {
    let pki = Pki::new();
    let stranger = Pki::named("stranger");
    let ready = Peer::echo(anonymous(&pki.server(&[HOST])));
    let files = Stage::new();
    let bundle = files.file("roots.pem", &std::fs::read_to_string(stranger.root()).unwrap());
    let sections = roots("internal", &bundle) + &upstream("db", &ready.address.to_string(), "internal", "");
    let stage = Stage::of(&sections);
    let mut exec = stage.exec(Place::Outside, &["--wait-upstreams"], &["true"]);
    exec.has_line(|line| line["message"] == "upstream not proven yet");
    replace(&bundle, &std::fs::read_to_string(pki.root()).unwrap(), 0o644);
    assert_eq!(exec.wait(), Some(0), "{}", exec.output());
}

#[test]
fn a_stop_ends_the_wait_and_nothing_is_started() {
    let pki = Pki::new();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let sections = roots("internal", &pki.root()) + &upstream("never", &later().1, "internal", "");
        let stage = Stage::of(&sections);
        let mut exec = stage.exec(Place::Init, &["--wait-upstreams"], &["echo", "the program runs"]);
        exec.has_line(|line| line["message"] == "upstream not proven yet");
        exec.signal(signal);
        assert_eq!(exec.wait(), Some(code), "{}", exec.output());
        assert!(!exec.output().contains("the program runs"));
    }
}

/// Starts in a row, each with a port of its own; `benches/entrypoint` asks for more.
fn starts() -> usize {
    std::env::var("EGRET_TEST_STARTS").ok().and_then(|starts| starts.parse().ok()).unwrap_or(20)
}

#[test]
fn a_program_reaches_a_real_postgres_on_the_first_try() {
    let pki = Pki::new();
    let postgres = Postgres::start(&pki, &pki.server(&[HOST]));
    let client = pki.client("app");
    let sections = format!(
        "{}{}[upstreams.db]\nservers = [\"127.0.0.1:{}\"]\nupgrade = \"postgres\"\n\
         tls = {{ identity = \"app\", trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
        roots("internal", &pki.root()),
        client.identity("app"),
        postgres.port,
        listener("db", 0, "db"),
    );
    let stage = Stage::of(&sections);
    let query = "exec psql --no-psqlrc -At \"$DATABASE_URL\" -c \"select 'one row of ' || current_user\"";
    let url = "DATABASE_URL=postgres://app@{listener.db}/postgres?sslmode=disable";
    let mut waits = Vec::new();
    for start in 0..starts() {
        let mut exec = stage.exec(Place::Init, &["--wait-upstreams", "--env", url], &["sh", "-c", query]);
        assert_eq!(exec.wait(), Some(0), "start {start}\n{}", exec.output());
        assert!(exec.output().contains("one row of app"), "{}", exec.output());
        let proven = exec.has_line(|line| line["message"] == "upstream proven");
        waits.push(proven["seconds"].as_f64().unwrap());
    }
    waits.sort_by(f64::total_cmp);
    let most = waits.last().unwrap();
    println!("{} of {} starts; the wait took {} s, at most {most} s", waits.len(), starts(), waits[waits.len() / 2]);
}
