//! Probes: what makes egret ready, started and live, and the commands that ask.

use std::net::TcpListener;

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{Egret, Settings, egret, listener, roots};
use crate::support::openssl::OpensslServer;
use crate::support::peer::{Peer, anonymous, mutual};
use crate::support::pki::{Pair, Pki};
use crate::support::{PATIENCE, eventually, free_port, plain};

const HOST: &str = "db.example.com";

/// A server that comes and goes, and egret before it.
struct Late {
    pki: Pki,
    server: Pair,
    port: u16,
}

impl Late {
    fn new() -> Self {
        let pki = Pki::new();
        let server = pki.server(&[HOST]);
        Self { pki, server, port: free_port() }
    }

    fn egret(&self, top: &str) -> Egret {
        let sections = format!(
            "{}[upstreams.db]\nservers = [\"127.0.0.1:{}\"]\nactive_check = {{ interval = \"200ms\" }}\n\
             ejection = {{ failures = 1 }}\ntls = {{ trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
            roots("internal", &self.pki.root()),
            self.port,
            listener("db", free_port(), "db"),
        );
        Egret::start_with(Settings { lacking: true, top: top.to_owned(), ..Settings::default() }, &sections)
    }

    fn start(&self) -> OpensslServer {
        OpensslServer::start(&self.pki, &self.server, &["-accept", &self.port.to_string()])
    }
}

fn answers(egret: &Egret, path: &str, status: u16) {
    eventually(&format!("{path} to answer {status}"), || (egret.admin("GET", path).status == status).then_some(()));
}

#[test]
fn an_upstream_is_ready_once_egret_has_reached_it_and_while_it_is_healthy() {
    let late = Late::new();
    let egret = late.egret("");
    for path in ["/readyz?upstreams=db", "/readyz?upstreams", "/readyz?upstreams=db,db"] {
        let answer = egret.admin("GET", path);
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.body.contains("db: connect_refused: "), "{answer:?}");
    }
    let unknown = egret.admin("GET", "/readyz?upstreams=db,nobody");
    assert!(unknown.status == 503 && unknown.body.contains("there is no upstream nobody"), "{unknown:?}");
    // It does not depend on upstreams unless it is asked to.
    assert_eq!(egret.admin("GET", "/readyz").status, 200);
    let server = late.start();
    answers(&egret, "/readyz?upstreams=db", 200);
    drop(server);
    answers(&egret, "/readyz?upstreams=db", 503);
    let _server = late.start();
    answers(&egret, "/readyz?upstreams=db", 200);
    assert_eq!(egret.admin("GET", "/healthz").status, 200);
}

#[test]
fn readiness_may_depend_on_the_upstreams_and_the_start_is_over_once() {
    let late = Late::new();
    let egret = late.egret("readiness = \"upstreams\"\n");
    for path in ["/readyz", "/startup"] {
        assert_eq!(egret.admin("GET", path).status, 503, "{path}");
    }
    assert_eq!(egret.admin("GET", "/livez").status, 200);
    let server = late.start();
    answers(&egret, "/readyz", 200);
    answers(&egret, "/startup", 200);
    drop(server);
    answers(&egret, "/readyz", 503);
    assert_eq!(egret.admin("GET", "/startup").status, 200, "it has started");
}

/// In TLS 1.3 a handshake succeeds for a client whose certificate the server then refuses.
#[test]
fn a_server_that_refuses_the_client_certificate_is_not_proven() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let server = pki.server(&[HOST]);
    let demanding = Peer::echo(mutual(&server, &pki));
    let accepting = Peer::echo(anonymous(&server));
    let mut sections = roots("internal", &pki.root()) + &stranger.client("app").identity("app");
    for (name, address) in [("demanding", demanding.address), ("accepting", accepting.address)] {
        sections += &format!(
            "[upstreams.{name}]\nservers = [\"{address}\"]\n\
             tls = {{ identity = \"app\", trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
            listener(name, free_port(), name)
        );
    }
    let egret = Egret::start(&sections);
    answers(&egret, "/readyz?upstreams=accepting", 200);
    let refused = egret.admin("GET", "/readyz?upstreams=demanding,accepting");
    assert_eq!(refused.status, 503);
    assert!(refused.body.starts_with("demanding: client_certificate_rejected"), "{refused:?}");
}

#[test]
fn a_proof_lasts_over_a_reload_that_changes_nothing_of_it_and_no_other() {
    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let sections = |trust: &str| {
        format!(
            "{}[upstreams.db]\nservers = [\"{}\"]\ntls = {{ trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
            trust,
            peer.address,
            listener("db", 0, "db")
        )
    };
    let right = roots("internal", &pki.root());
    let egret = Egret::start(&sections(&right));
    answers(&egret, "/readyz?upstreams=db", 200);
    egret.rewrite(&(sections(&right) + "max_connections = 7\n"));
    assert!(egret.reload());
    assert_eq!(egret.admin("GET", "/readyz?upstreams=db").status, 200);
    let stranger = Pki::named("stranger");
    egret.rewrite(&sections(&roots("internal", &stranger.root())));
    assert!(egret.reload());
    answers(&egret, "/readyz?upstreams=db", 503);
}

#[cfg(debug_assertions)]
#[test]
fn a_worker_that_makes_no_progress_is_not_live() {
    let scene = Scene::new("");
    let environment = vec![("EGRET_TEST_BLOCKS", "connection".into())];
    let sections = scene.upstream + "[runtime]\nworkers = 2\n" + &listener("echo", free_port(), "echo");
    let egret = Egret::start_with(Settings { environment, ..Settings::default() }, &sections);
    assert_eq!(egret.admin("GET", "/livez").status, 200);
    let _blocked = plain::connect(egret.address("echo"));
    let answer = eventually("a stuck worker to be noticed", || {
        Some(egret.admin("GET", "/livez")).filter(|answer| answer.status == 503)
    });
    assert!(answer.body.starts_with("worker ") && answer.body.contains(" is stuck for "), "{answer:?}");
    assert_eq!(egret.admin("GET", "/healthz").status, 200);
}

#[test]
fn health_is_one_line_and_an_exit_code() {
    let late = Late::new();
    let egret_running = late.egret("");
    let admin = format!("unix:{}", egret_running.admin_socket().display());
    let ask = |arguments: &[&str]| egret(&[&["health", "--admin", &admin], arguments].concat());
    assert_eq!(ask(&[]), (0, "ready\n".to_owned()));
    assert_eq!(ask(&["--live"]), (0, "live\n".to_owned()));
    let (code, line) = ask(&["--upstreams"]);
    assert!(code == 1 && line.starts_with("db: connect_refused: ") && line.lines().count() == 1, "{code} {line}");
    let (code, line) = ask(&["--upstreams=nobody"]);
    assert_eq!((code, line.as_str()), (1, "there is no upstream nobody\n"));
    let _server = late.start();
    answers(&egret_running, "/readyz?upstreams=db", 200);
    assert_eq!(ask(&["--upstreams=db"]), (0, "ready\n".to_owned()));
    // Nobody there, somebody else there, and no address.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    drop(other);
    for nobody in [address.as_str(), "unix:/nowhere/admin.sock", "localhost"] {
        let (code, line) = egret(&["health", "--admin", nobody]);
        assert!(code == 1 && line.contains(nobody) && line.lines().count() == 1, "{nobody}: {code} {line}");
    }
}

#[test]
fn wait_returns_when_a_process_that_comes_later_is_ready() {
    let late = Late::new();
    let folder = tempfile::tempdir().unwrap();
    let admin = format!("unix:{}", folder.path().join("admin.sock").display());
    let (code, text) = egret(&["wait", "--admin", &admin, "--timeout", "500ms"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.starts_with("not ready within 0.5 s: the admin address "), "{text}");

    let running = late.egret("");
    let admin = format!("unix:{}", running.admin_socket().display());
    assert_eq!(egret(&["wait", "--admin", &admin]), (0, "ready\n".to_owned()));
    let (code, text) = egret(&["wait", "--admin", &admin, "--upstreams=db", "--timeout", "1s"]);
    assert!(code == 1 && text.contains("db: connect_refused"), "{code} {text}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| egret(&["wait", "--admin", &admin, "--upstreams"]));
        let server = late.start();
        assert_eq!(waiting.join().unwrap(), (0, "ready\n".to_owned()));
        drop(server);
    });
}

#[test]
fn quit_ends_the_process_after_the_drain() {
    let scene = Scene::new("");
    let sections = scene.upstream + &listener("echo", free_port(), "echo");
    let mut egret = Egret::start_with(Settings { drain_timeout: "10m", ..Settings::default() }, &sections);
    let mut stream = plain::connect(egret.address("echo"));
    assert!(echoes(&mut stream));
    assert_eq!(egret.admin("GET", "/quit").status, 405);
    let answer = egret.admin("POST", "/quit");
    assert_eq!((answer.status, answer.body.as_str()), (202, "quitting after the drain\n"));
    assert!(echoes(&mut stream), "a stream in flight goes on");
    drop(stream);
    assert_eq!(egret.wait(PATIENCE), Some(0), "{}", egret.log_text());
}
