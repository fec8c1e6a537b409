//! Start, stop, and what a process has to survive between the two.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::egret::{Egret, Settings, egret, listener, roots};
use crate::support::name_server::NameServer;
use crate::support::peer::{Peer, anonymous};
use crate::support::pki::Pki;
use crate::support::plain::{self, End};
use crate::support::{PATIENCE, eventually, free_port, http, loopback};

const HOST: &str = "echo.example.com";

/// A server that sends back what it gets, and the sections of an upstream called `echo` to it.
pub(crate) struct Scene {
    _peer: Peer,
    pub(crate) pki: Pki,
    pub(crate) upstream: String,
}

impl Scene {
    pub(crate) fn new(upstream: &str) -> Self {
        let pki = Pki::new();
        let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
        let upstream = format!(
            "{}[upstreams.echo]\nservers = [\"{}\"]\n{upstream}\ntls = {{ trust = \"internal\", server_name = \"{HOST}\" }}\n",
            roots("internal", &pki.root()),
            peer.address
        );
        Self { _peer: peer, pki, upstream }
    }

    /// egret with one listener called `echo`.
    fn egret(&self, settings: Settings) -> Egret {
        Egret::start_with(settings, &(self.upstream.clone() + &listener("echo", free_port(), "echo")))
    }
}

pub(crate) fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 4];
    stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut back)).is_ok_and(|()| &back == b"ping")
}

#[test]
fn sigterm_lets_streams_finish_and_exits_with_zero() {
    let scene = Scene::new("");
    let mut egret = scene.egret(Settings { drain_timeout: "60s", ..Settings::default() });
    let address = egret.address("echo");
    let mut stream = plain::connect(address);
    assert!(echoes(&mut stream));
    assert_eq!(egret.admin("GET", "/readyz").status, 200);

    egret.signal(Signal::TERM);
    eventually("egret to refuse new connections", || TcpStream::connect(address).is_err().then_some(()));
    assert_ne!(egret.admin("GET", "/readyz").status, 200, "a draining egret is not ready");
    assert!(echoes(&mut stream), "a stream in flight goes on");
    plain::finish(&stream);
    assert_eq!(plain::read_to_end(&mut stream).1, End::Clean);
    assert_eq!(egret.wait(PATIENCE), Some(0), "{}", egret.log_text());
}

#[test]
fn a_reload_that_is_asked_for_in_a_drain_is_refused_at_once() {
    let scene = Scene::new("");
    let egret = scene.egret(Settings { drain_timeout: "10m", ..Settings::default() });
    let mut stream = plain::connect(egret.address("echo"));
    assert!(echoes(&mut stream));
    assert_eq!(egret.admin("POST", "/drain").status, 202);
    eventually("the drain to begin", || (egret.admin("GET", "/readyz").status != 200).then_some(()));
    assert_eq!(egret.admin("POST", "/reload").status, 409);
    assert!(echoes(&mut stream));
}

#[test]
fn no_core_is_dumped_since_keys_are_in_it() {
    let limits = Scene::new("").egret(Settings::default()).proc("limits");
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("the kernel tells");
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(fields[4..6], ["1", "1"], "{line}");
}

#[test]
fn streams_that_outlast_the_drain_are_reset_and_the_exit_is_still_zero() {
    let scene = Scene::new("");
    let mut egret = scene.egret(Settings { drain_timeout: "1s", ..Settings::default() });
    let mut stream = plain::connect(egret.address("echo"));
    assert!(echoes(&mut stream));
    egret.signal(Signal::TERM);
    assert_eq!(plain::read_to_end(&mut stream).1, End::Reset);
    assert_eq!(egret.wait(PATIENCE), Some(0), "{}", egret.log_text());
    egret.wait_for_log("drained", |line| line["ended"] == "drained");
}

#[test]
fn second_signal_ends_at_once() {
    let scene = Scene::new("");
    let mut egret = scene.egret(Settings { drain_timeout: "10m", ..Settings::default() });
    let mut stream = plain::connect(egret.address("echo"));
    assert!(echoes(&mut stream));
    egret.signal(Signal::TERM);
    assert_eq!(egret.wait(Duration::from_millis(500)), None, "it drains");
    egret.signal(Signal::TERM);
    assert!(egret.wait(PATIENCE).is_some(), "{}", egret.log_text());
}

/// Far more clients than can be served: accepting pauses, a stream that is there goes on, and when the
/// clients are gone everything is as before.
fn crowd_comes_and_goes(egret: &Egret) {
    let address = egret.address("echo");
    let mut early = plain::connect(address);
    assert!(echoes(&mut early));

    // The kernel accepts them on egret's behalf; egret cannot.
    let crowd: Vec<TcpStream> = (0..150).map(|_| plain::connect(address)).collect();
    let stops = ["accepting pauses", "accepting waits"];
    let is_stop = |line: &Value| line["message"].as_str().is_some_and(|text| stops.contains(&text));
    egret.wait_for_log("a stop of accepting", is_stop);
    assert!(echoes(&mut early), "a stream in flight goes on\n{}", egret.log_text());

    drop(crowd);
    eventually("a new client to be served", || {
        let mut late = TcpStream::connect(address).ok()?;
        late.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        echoes(&mut late).then_some(())
    });
    assert!(echoes(&mut early));
}

#[test]
fn accepting_recovers_from_exhausted_descriptors_while_streams_go_on() {
    let scene = Scene::new("");
    let egret = scene.egret(Settings { descriptors: Some(192), ..Settings::default() });
    // Lowered under the running process, which keeps a reserve of what it had at start.
    egret.limit_descriptors(egret.descriptors() + 20);
    crowd_comes_and_goes(&egret);
    let errors = egret.metrics().sum("egret_accept_errors_total", &[("reason", "no_descriptors")]);
    assert!(errors > 0.0, "descriptors were never out, so nothing was tried\n{}", egret.log_text());
}

#[test]
fn admin_answers_while_streams_hold_every_descriptor() {
    let scene = Scene::new("");
    // A stream takes two: by the parity of what is left, none or one stays free.
    for more in 20..24 {
        let egret = scene.egret(Settings::default());
        egret.limit_descriptors(egret.descriptors() + more);
        let _crowd: Vec<TcpStream> = (0..100).map(|_| plain::connect(egret.address("echo"))).collect();
        egret.wait_for_log("descriptors to be out", |line| line["message"] == "accepting pauses");
        for path in ["/metrics", "/status", "/livez", "/readyz", "/metrics"] {
            let answer = egret.admin("GET", path);
            assert_eq!(answer.status, 200, "{more} more, {path}: {answer:?}\n{}", egret.log_text());
        }
    }
}

#[test]
fn without_a_limit_of_its_own_egret_takes_no_more_clients_than_it_has_descriptors_for() {
    let scene = Scene::new("");
    let egret = scene.egret(Settings { descriptors: Some(192), ..Settings::default() });
    crowd_comes_and_goes(&egret);
    let errors = egret.metrics().sum("egret_accept_errors_total", &[]);
    assert_eq!(errors, 0.0, "{}", egret.log_text());
}

#[test]
fn start_needs_no_dns_and_the_first_answer_is_used() {
    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let name_server = free_port();
    let egret = Egret::start(&format!(
        "[dns]\nservers = [\"127.0.0.1:{name_server}\"]\n{}[upstreams.echo]\nservers = [\"{HOST}:{}\"]\n\
         originate_timeout = \"2s\"\ntls = {{ trust = \"internal\" }}\n{}",
        roots("internal", &pki.root()),
        peer.address.port(),
        listener("echo", free_port(), "echo"),
    ));
    let address = egret.address("echo");
    let (bytes, end) = plain::ask(address, b"ping");
    assert_eq!((bytes.len(), end), (0, End::Reset));
    egret.wait_for_log("a failure of DNS", |line| {
        line["message"] == "origination failed"
            && line["reason"].as_str().is_some_and(|reason| reason.starts_with("dns_") || reason.contains("timeout"))
    });
    let _names = NameServer::start(name_server);
    eventually("the name to be found", || echoes(&mut plain::connect(address)).then_some(()));
}

#[test]
fn bad_configuration_exits_with_two_tells_every_problem_and_binds_nothing() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("egret.toml");
    let ports = [free_port(), free_port()];
    let text = format!(
        "{}{}[upstreams.known]\nservers = [\"192.0.2.1:443\"]\noriginate_timeout = \"soon\"\n",
        listener("first", ports[0], "known"),
        listener("second", ports[1], "unknown")
    );
    fs::write(&config, text).unwrap();
    for command in ["run", "check"] {
        let (code, said) = egret(&[command, config.to_str().unwrap()]);
        assert_eq!(code, 2, "egret {command}: {said}");
        for problem in ["egret.toml:8", "egret.toml:11", "soon", "unknown"] {
            assert!(said.contains(problem), "no {problem} in what egret {command} says:\n{said}");
        }
        for port in ports {
            assert!(TcpListener::bind(loopback(port)).is_ok());
        }
    }
}

#[test]
fn check_of_a_good_configuration_exits_with_zero_and_binds_nothing() {
    let scene = Scene::new("");
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("egret.toml");
    let holder = TcpListener::bind(loopback(0)).unwrap();
    let port = holder.local_addr().unwrap().port();
    fs::write(&config, scene.upstream + &listener("echo", port, "echo")).unwrap();
    let (code, said) = egret(&["check", config.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    // The same file cannot run: the port is taken. That is no mistake in the file.
    let (code, said) = egret(&["run", config.to_str().unwrap()]);
    assert!(code != 0 && said.contains(&port.to_string()), "exit {code}: {said}");
}

#[test]
fn silent_client_is_ended_by_the_idle_timeout() {
    let scene = Scene::new("idle_timeout = \"1s\"");
    let egret = scene.egret(Settings::default());
    let floor = egret.descriptors();
    let mut silent = plain::connect(egret.address("echo"));
    let (bytes, _) = plain::read_to_end(&mut silent);
    assert!(bytes.is_empty());
    egret.wait_for_log("idle_timeout", |line| line["ended"] == "idle_timeout");
    drop(silent);
    egret.wait_until_idle(floor);
}

#[test]
fn stream_that_is_too_old_is_ended() {
    let scene = Scene::new("max_lifetime = \"1s\"");
    let egret = scene.egret(Settings::default());
    let mut stream = plain::connect(egret.address("echo"));
    eventually("the stream to end", || (!echoes(&mut stream)).then_some(()));
    egret.wait_for_log("lifetime", |line| line["ended"] == "lifetime");
}

/// A client that resets before the handshake, after it, in the middle of data, and after its end.
#[test]
fn clients_that_reset_at_any_point_leave_nothing() {
    let scene = Scene::new("");
    let egret = scene.egret(Settings::default());
    let address = egret.address("echo");
    assert!(echoes(&mut plain::connect(address)));
    egret.wait_for_log("the first connection", |line| line["message"] == "connection");
    let floor = egret.descriptors();
    let data = vec![1; 300_000];
    for _ in 0..25 {
        plain::reset(plain::connect(address));

        let mut greeted = plain::connect(address);
        assert!(echoes(&mut greeted), "{}", egret.log_text());
        plain::reset(greeted);

        let mut halfway = plain::connect(address);
        halfway.write_all(&data).unwrap();
        plain::reset(halfway);

        let ended = plain::connect(address);
        plain::finish(&ended);
        plain::reset(ended);
    }
    egret.wait_until_idle(floor);
    assert!(echoes(&mut plain::connect(address)));
    let reset = egret.metrics().sum("egret_streams_ended_total", &[("reason", "downstream_reset")]);
    assert!(reset >= 25.0, "{reset}\n{}", egret.log_text());
}

#[test]
fn admin_answers_what_a_person_asks_and_shows_no_key() {
    let scene = Scene::new("");
    let sections = scene.pki.client("app").identity("app")
        + &scene.upstream.replace("tls = {", "tls = { identity = \"app\",")
        + &listener("echo", free_port(), "echo");
    let egret = Egret::start(&sections);
    assert!(echoes(&mut plain::connect(egret.address("echo"))));
    for path in ["/healthz", "/readyz", "/metrics", "/status", "/config"] {
        let answer = egret.admin("GET", path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(!answer.body.contains("PRIVATE KEY"), "{path}");
    }
    serde_json::from_str::<Value>(&egret.admin("GET", "/status").body).expect("/status is JSON");
    let config = egret.admin("GET", "/config").body;
    let config: Value =
        serde_json::from_str(&config).unwrap_or_else(|error| panic!("/config is JSON: {error}\n{config}"));
    assert_eq!(config["upstreams"]["echo"]["tls"]["server_name"], HOST);
    assert_eq!(config["listeners"][0]["listen"], egret.address("echo").to_string());
    let key = config["identities"]["app"]["private_key"].as_str().expect("the path of the key");
    assert!(Path::new(key).is_absolute(), "{key}");
    assert_eq!(egret.admin("GET", "/nowhere").status, 404);
    assert_eq!(egret.admin("GET", "/reload").status, 405, "reading must not change anything");
    let expiry = egret.metrics().sum("egret_certificate_not_after_seconds", &[("kind", "identity")]);
    assert!(expiry > 1.7e9, "{expiry} is no time of the future");
}

#[test]
fn unix_socket_is_a_listener_too_and_its_mode_is_kept() {
    use std::os::unix::fs::PermissionsExt;

    let scene = Scene::new("");
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("echo.sock");
    let _egret = Egret::start(&format!(
        "{}[[listeners]]\nname = \"tcp\"\nlisten = \"127.0.0.1:{}\"\nupstream = \"echo\"\n\
         [[listeners]]\nlisten = \"unix:{}\"\nmode = \"0660\"\nupstream = \"echo\"\n",
        scene.upstream,
        free_port(),
        socket.display()
    ));
    eventually("the socket", || socket.exists().then_some(()));
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    // The server sends the request back, which curl takes for an answer of HTTP/0.9.
    let answer =
        http::curl(&["--http0.9", "--max-time", "3", "--unix-socket", socket.to_str().unwrap(), "http://localhost/"]);
    assert!(answer.body.starts_with("GET / HTTP/1.1"), "{answer:?}");
}
