//! Servers and middleboxes that end a handshake because of what its ClientHello offers: the client is served all the same,
//! by another handshake without that, and the next clients pay nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::support::egret::{Egret, listener, roots};
use crate::support::peer::{self, Peer, echo, versions};
use crate::support::pki::Pki;
use crate::support::plain::{self, ask_and_finish, reset};
use crate::support::process::attempt;
use crate::support::tls_server::{TLS12, TLS13};
use crate::support::{eventually, free_port};

const HOST: &str = "server.example.com";

/// What a server, or what stands before it, does to a ClientHello that it does not like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    Alert(u8),
    Close,
    Reset,
    Garbage,
    Silence,
}

/// A part of a ClientHello: its type of extension, and for a session what of it tells it from others.
fn extensions(hello: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let number = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + number(at);
    at += 1 + usize::from(hello[at]) + 2;
    let mut found = Vec::new();
    while at + 4 <= hello.len() {
        let length = number(at + 2);
        found.push((number(at) as u16, hello[at + 4..at + 4 + length].to_vec()));
        at += 4 + length;
    }
    found
}

/// The session that a ClientHello offers: the first identity of pre_shared_key, or the ticket of TLS 1.2.
pub(crate) fn session(hello: &[u8]) -> Option<Vec<u8>> {
    extensions(hello).into_iter().find_map(|(kind, body)| match kind {
        41 => Some(body[4..4 + usize::from(u16::from_be_bytes([body[2], body[3]]))].to_vec()),
        35 if !body.is_empty() => Some(body),
        _ => None,
    })
}

/// The whole ClientHello, which stays where it is.
pub(crate) fn peek(tcp: &TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 20_000];
    loop {
        let read = tcp.peek(&mut bytes).ok().filter(|read| *read > 0)?;
        if read >= 5 && read >= 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]])) {
            return Some(bytes[..read].to_vec());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn refuse(mut tcp: TcpStream, hello: &[u8], answer: Answer) {
    if answer == Answer::Reset {
        return reset(tcp);
    }
    let mut read = vec![0; hello.len()];
    let _ = tcp.read_exact(&mut read);
    let _ = match answer {
        Answer::Alert(alert) => tcp.write_all(&[21, 3, 3, 0, 2, 2, alert]),
        Answer::Garbage => tcp.write_all(&[0xfe; 100]),
        Answer::Close | Answer::Reset | Answer::Silence => Ok(()),
    };
    if answer != Answer::Silence {
        let _ = tcp.shutdown(Shutdown::Write);
    }
    // To the client's end.
    let _ = tcp.read(&mut read);
}

/// A server of one version, or both, that gives tickets.
fn tickets(pki: &Pki, all: &'static [&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::clone(&versions(&pki.server(&[HOST]), all));
    config.ticketer = Ticketer::new().unwrap();
    Arc::new(config)
}

/// A server, what it has refused, and egret before it.
struct Scene {
    _server: Peer,
    address: SocketAddr,
    refused: Arc<Mutex<Vec<Vec<u8>>>>,
    pki: Pki,
    egret: Egret,
}

impl Scene {
    /// `dislikes` says what of a ClientHello the server refuses; it answers with `answer`.
    fn start(
        config: impl Fn(&Pki) -> Arc<ServerConfig>,
        dislikes: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
        answer: Answer,
        more: &str,
    ) -> Self {
        let pki = Pki::new();
        let (config, refused) = (config(&pki), Arc::<Mutex<Vec<_>>>::default());
        let seen = Arc::clone(&refused);
        let server = Peer::start(move |tcp| {
            let Some(hello) = peek(&tcp) else { return };
            match dislikes(&hello) {
                None => echo(peer::accepted(tcp, &config)),
                Some(part) => {
                    seen.lock().unwrap().push(part);
                    refuse(tcp, &hello, answer);
                }
            }
        });
        let address = server.address;
        let upstream = format!(
            "[upstreams.app]\nservers = [\"{address}\"]\noriginate_timeout = \"6s\"\n{more}\n[upstreams.app.tls]\ntrust = \"t\"\nserver_name = {HOST:?}\n"
        );
        let egret = Egret::start(&(roots("t", &pki.root()) + &upstream + &listener("app", free_port(), "app")));
        Self { _server: server, address, refused, pki, egret }
    }

    /// A client: what came back of its word.
    fn ask(&self) -> String {
        let mut client = plain::connect(self.egret.address("app"));
        let mut answer = [0; 5];
        let done = client.write_all(b"hello").and_then(|()| client.read_exact(&mut answer));
        done.map_or_else(|error| error.to_string(), |()| String::from_utf8_lossy(&answer).into_owned())
    }

    fn asks(&self, clients: usize, what: &str) {
        for client in 0..clients {
            assert_eq!(self.ask(), "hello", "{what}, client {client}\n{}", self.egret.log_text());
        }
    }

    fn repeats(&self, reason: &str, result: &str) -> f64 {
        self.egret.metrics().sum("egret_handshake_repeats_total", &[("reason", reason), ("result", result)])
    }

    fn is_blamed(&self) -> bool {
        self.egret.metrics().sum("egret_origination_failures_total", &[("upstream", "app")]) > 0.0
            || self.egret.log_text().contains("endpoint ejected")
    }
}

/// Every client is served, and what a session costs is learned from one alert, or from two connections that broke.
#[test]
fn a_server_that_ends_a_handshake_which_offers_a_session_serves_every_client() {
    let versions_of = |all: &'static [_]| move |pki: &Pki| tickets(pki, all);
    for (version, all) in [("1.2", TLS12), ("1.3", TLS13)] {
        for (answer, learned_after) in [
            (Answer::Alert(80), 1),
            (Answer::Alert(40), 1),
            (Answer::Alert(112), 1),
            (Answer::Garbage, 1),
            (Answer::Close, 2),
            (Answer::Reset, 2),
        ] {
            let what = format!("TLS {version}, {answer:?}");
            let scene = Scene::start(versions_of(all), session, answer, "");
            scene.asks(10, &what);
            let refused = scene.refused.lock().unwrap().clone();
            assert_eq!(refused.len(), learned_after, "{what}: clients that paid");
            assert!(refused.iter().enumerate().all(|(at, one)| !refused[..at].contains(one)), "{what}: offered twice");
            assert_eq!(scene.repeats("resumption_intolerant", "succeeded"), learned_after as f64, "{what}");
            assert!(!scene.is_blamed(), "{what}\n{}", scene.egret.log_text());
            let line = scene.egret.wait_for_log("the repeat", |line| line["message"] == "handshake repeated");
            assert_eq!(line["reason"], "resumption_intolerant", "{line}");
            assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("session")), "{line}");
            let broken = scene.egret.metrics().sum("egret_sessions_total", &[("event", "broken")]);
            assert_eq!(broken, learned_after as f64, "{what}");
        }
    }
}

/// The first of them goes on: whichever answers serves.
#[test]
fn a_server_that_is_silent_to_a_session_serves_every_client_within_the_deadline() {
    let config = |pki: &Pki| tickets(pki, TLS13);
    let scene = Scene::start(config, session, Answer::Silence, "");
    // What a handshake with a session did lately speaks for it: the first is one that a server gives none of.
    scene.asks(6, "silence");
    assert!(scene.refused.lock().unwrap().len() <= 2);
    assert!(!scene.is_blamed(), "{}", scene.egret.log_text());
}

/// A ClientHello with the hybrid's key share takes more than one packet.
#[test]
fn clients_behind_what_drops_large_hellos_are_served_and_the_hybrid_stays_on_the_list() {
    let large = |hello: &[u8]| (hello.len() > 1_400).then(|| hello.to_vec());
    for answer in [Answer::Reset, Answer::Close, Answer::Silence, Answer::Alert(50)] {
        let scene = Scene::start(|pki| tickets(pki, TLS13), large, answer, "");
        scene.asks(6, &format!("{answer:?}"));
        let learned_after = if matches!(answer, Answer::Alert(_)) { 1 } else { 2 };
        assert_eq!(scene.refused.lock().unwrap().len(), learned_after, "{answer:?}");
        assert!(!scene.is_blamed(), "{answer:?}\n{}", scene.egret.log_text());
        let line = scene.egret.wait_for_log("the repeat", |line| line["message"] == "handshake repeated");
        assert_eq!(line["reason"], "post_quantum_hello_dropped", "{line}");
    }
}

/// What is offered is what the setting says, and with it nothing is repeated.
#[test]
fn the_key_share_is_that_of_the_setting() {
    let large = |hello: &[u8]| (hello.len() > 1_400).then(|| hello.to_vec());
    for (share, served) in [("classic", true), ("hybrid", false)] {
        for resumption in [true, false] {
            let more = format!("tls.key_exchange_share = \"{share}\"\ntls.resumption = {resumption}");
            let pki = Pki::new();
            let config = tickets(&pki, TLS13);
            let groups = Arc::<Mutex<Vec<_>>>::default();
            let seen = Arc::clone(&groups);
            let server = Peer::start(move |tcp| {
                let Some(hello) = peek(&tcp) else { return };
                seen.lock().unwrap().extend(extensions(&hello).into_iter().filter(|(kind, _)| *kind == 10));
                match large(&hello) {
                    None => echo(peer::accepted(tcp, &config)),
                    Some(_) => refuse(tcp, &hello, Answer::Reset),
                }
            });
            let upstream = format!(
                "[upstreams.app]\nservers = [\"{}\"]\ntls.trust = \"t\"\ntls.server_name = {HOST:?}\n{more}\n",
                server.address
            );
            let egret = Egret::start(&(roots("t", &pki.root()) + &upstream + &listener("app", free_port(), "app")));
            let mut client = plain::connect(egret.address("app"));
            let mut answer = [0; 5];
            let done = client.write_all(b"hello").and_then(|()| client.read_exact(&mut answer));
            assert_eq!(done.is_ok(), served, "{more}\n{}", egret.log_text());
            assert_eq!(egret.metrics().sum("egret_handshake_repeats_total", &[]), 0.0, "{more}");
            let failed = |line: &serde_json::Value| line["message"] == "origination failed";
            if !served {
                let line = egret.wait_for_log("the failure", failed);
                let names = line["detail"].as_str().is_some_and(|detail| detail.contains("more than one packet"));
                assert!(line["reason"] == "reset_in_handshake" && names, "{line}");
            }
            let groups = groups.lock().unwrap();
            // X25519MLKEM768.
            assert!(groups.iter().all(|(_, list)| list.chunks(2).any(|group| group == [0x11, 0xec])), "{more}");
        }
    }
}

/// Counts its connections. Of an answer to a hello that it dislikes it sends these many bytes at most, none after the ServerHello.
fn stalling(config: Arc<ServerConfig>, dislikes: fn(&[u8]) -> bool, bytes: usize) -> (Peer, Arc<AtomicUsize>) {
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    let server = Peer::start(move |mut tcp| {
        counted.fetch_add(1, Ordering::SeqCst);
        let Some(hello) = peek(&tcp) else { return };
        if !dislikes(&hello) {
            return echo(peer::accepted(tcp, &config));
        }
        let flight = peer::first_flight(&mut tcp, &config);
        let server_hello = 5 + usize::from(u16::from_be_bytes([flight[3], flight[4]]));
        tcp.write_all(&flight[..bytes.min(server_hello)]).unwrap();
        let _ = tcp.read_to_end(&mut Vec::new());
    });
    (server, count)
}

/// A server that begins to answer is waited for until the deadline, and then there is no time for another handshake.
#[test]
fn a_handshake_that_took_all_of_its_time_is_not_repeated() {
    let with_session = |hello: &[u8]| session(hello).is_some();
    let large = |hello: &[u8]| hello.len() > 1_400;
    for (all, dislikes, bytes, served_before) in [
        (TLS13, with_session as fn(&[u8]) -> bool, 1, 1),
        // Its ServerHello takes the session.
        (TLS13, with_session, usize::MAX, 1),
        (TLS12, with_session, 1, 1),
        (TLS12, with_session, 60, 1),
        (TLS13, large, 3, 0),
    ] {
        let what = format!("{bytes} bytes, {} clients before", served_before);
        let pki = Pki::new();
        let mut config = ServerConfig::clone(&tickets(&pki, all));
        config.send_tls13_tickets = 1;
        let (server, connections) = stalling(Arc::new(config), dislikes, bytes);
        let upstream = format!(
            "[upstreams.app]\nservers = [\"{}\"]\noriginate_timeout = \"500ms\"\n\
             tls = {{ trust = \"t\", server_name = {HOST:?} }}\n",
            server.address
        );
        let egret = Egret::start(&(roots("t", &pki.root()) + &upstream + &listener("app", free_port(), "app")));
        let address = egret.address("app");
        for _ in 0..served_before {
            assert_eq!(ask_and_finish(address, b"hello").0, b"hello", "{what}");
        }
        assert!(ask_and_finish(address, b"hello").0.is_empty(), "{what}\n{}", egret.log_text());
        let line = egret.wait_for_log("the failure", |line| line["message"] == "origination failed");
        assert_eq!(line["reason"], "handshake_timeout", "{what}: {line}");
        if served_before > 0 {
            // The session that took the time is not offered again.
            assert_eq!(ask_and_finish(address, b"hello").0, b"hello", "{what}\n{}", egret.log_text());
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1 + 2 * served_before, "{what}");
        assert_eq!(egret.metrics().sum("egret_handshake_repeats_total", &[]), 0.0, "{what}");
    }
}

/// Whoever originates: the pool meets the refusal before any client does.
#[test]
fn a_pool_is_filled_although_the_server_refuses_sessions() {
    const STOCK: f64 = 3.0;
    for (all, answer) in
        [(TLS13, Answer::Alert(80)), (TLS13, Answer::Close), (TLS12, Answer::Alert(40)), (TLS12, Answer::Reset)]
    {
        let pool = "pool = { min_idle = 3, max_idle = 3 }";
        let scene = Scene::start(move |pki| tickets(pki, all), session, answer, pool);
        let what = format!("{answer:?}");
        let filled = || {
            let full = scene.egret.metrics().sum("egret_pool_warm", &[]) >= STOCK;
            full.then_some(())
        };
        eventually("a full shelf", filled);
        scene.asks(4, &what);
        eventually("a full shelf again", filled);
        assert!(!scene.refused.lock().unwrap().is_empty(), "{what}: no session was offered");
        assert!(scene.repeats("resumption_intolerant", "succeeded") > 0.0, "{what}");
        assert_eq!(scene.egret.metrics().sum("egret_pool_fills_total", &[("result", "failed")]), 0.0, "{what}");
        assert!(!scene.is_blamed(), "{what}\n{}", scene.egret.log_text());
    }
}

#[test]
fn an_active_check_does_not_eject_a_server_that_refuses_sessions() {
    for (all, answer) in [(TLS13, Answer::Alert(80)), (TLS13, Answer::Reset), (TLS12, Answer::Close)] {
        let check = "active_check = { interval = \"50ms\", kind = \"tls\" }\nejection = { failures = 1 }";
        let scene = Scene::start(move |pki| tickets(pki, all), session, answer, check);
        let what = format!("{answer:?}");
        // The first client leaves a session, which a check or another client offers.
        scene.asks(3, &what);
        eventually("a repeat", || (scene.repeats("resumption_intolerant", "succeeded") > 0.0).then_some(()));
        scene.asks(2, &what);
        assert_eq!(scene.egret.metrics().sum("egret_endpoint_healthy", &[]), 1.0, "{what}");
        assert!(!scene.is_blamed(), "{what}\n{}", scene.egret.log_text());
    }
}

/// A server that fails whatever is offered is blamed for that, and asked no more than twice at first.
#[test]
fn a_server_that_refuses_every_hello_is_blamed_with_its_own_failure() {
    let all = |hello: &[u8]| Some(hello.to_vec());
    for (answer, reason) in [(Answer::Alert(80), "alert_received"), (Answer::Reset, "reset_in_handshake")] {
        let scene = Scene::start(|pki| tickets(pki, TLS13), all, answer, "");
        for _ in 0..2 {
            assert_ne!(scene.ask(), "hello");
        }
        let failures = scene.egret.metrics().sum("egret_origination_failures_total", &[("reason", reason)]);
        assert_eq!(failures, 2.0, "{}", scene.egret.log_text());
        assert_eq!(scene.refused.lock().unwrap().len(), 3, "the second client's handshake is not repeated");
        assert_eq!(scene.repeats("post_quantum_hello_dropped", "failed"), 1.0);
    }
}

#[test]
fn what_a_server_does_not_tolerate_is_explained() {
    let scene = Scene::start(|pki| tickets(pki, TLS13), session, Answer::Alert(80), "");
    let root = scene.pki.root();
    let mut command = std::process::Command::new(crate::support::egret::binary());
    command.args(["explain", &scene.address.to_string(), "--server-name", HOST, "--json", "--ca"]).arg(root);
    let text = String::from_utf8(attempt(&mut command).stdout).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let report = &report["reports"][0];
    assert_eq!(report["causes"][0]["cause"], "resumption_intolerant", "{text}");
    assert!(report["repair"]["egret"].as_str().unwrap().contains("resumption = false"), "{text}");
}
