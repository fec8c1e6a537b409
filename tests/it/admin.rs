//! The admin address, spoken to byte by byte.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use egret::config::values::{Access, AdminRole, ListenAddress, User};
use egret::control::admin::{self, Control, Kept, Rights, Swapped};
use egret::net::{Options, Socket};
use egret::pipeline::admit::Admission;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Stage {
    draining: AtomicBool,
    broken: AtomicBool,
    faulty: AtomicBool,
    hung: AtomicBool,
    large: AtomicBool,
    stuck: AtomicBool,
    generation: AtomicU64,
}

impl Control for Stage {
    fn metrics(&self) -> String {
        "egret_generation 1\n".into()
    }

    fn ready(&self) -> bool {
        !self.draining.load(Ordering::SeqCst)
    }

    fn accepts(&self, token_file: &Path, shown: &[u8]) -> bool {
        token_file == Path::new("/token") && shown == b"right"
    }

    fn has_started(&self) -> bool {
        !self.stuck.load(Ordering::SeqCst)
    }

    fn stuck(&self) -> Vec<String> {
        if self.stuck.load(Ordering::SeqCst) { vec!["worker 1 is stuck for 12 s".into()] } else { Vec::new() }
    }

    fn lacks<'a>(&'a self, upstreams: &'a [&'a str]) -> Pin<Box<dyn Future<Output = Vec<String>> + Send + 'a>> {
        let lacking = upstreams.iter().filter(|name| **name != "db").map(|name| format!("{name}: a\u{7}b"));
        Box::pin(std::future::ready(lacking.collect()))
    }

    fn status(&self) -> Value {
        assert!(!self.faulty.load(Ordering::SeqCst), "a fault of the status");
        json!({ "listeners": [{ "name": "<b>web</b>", "listen": "127.0.0.1:8080" }] })
    }

    fn config(&self) -> Value {
        // More than the kernel buffers for a client that reads nothing.
        let rest = if self.large.load(Ordering::SeqCst) { 16 << 20 } else { 0 };
        json!({ "drain_timeout": 30.0, "rest": "#".repeat(rest) })
    }

    fn outline(&self) -> Value {
        json!({ "settings": {} })
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<Swapped, Kept>> + Send + '_>> {
        Box::pin(async {
            if self.hung.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if self.draining.load(Ordering::SeqCst) {
                return Err(Kept::Draining);
            }
            match self.broken.load(Ordering::SeqCst) {
                true => Err(Kept::Rejected("egret.toml:3:1: unknown key".into())),
                false => {
                    let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
                    Ok(Swapped { generation, troubled: Vec::new() })
                }
            }
        })
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }
}

struct Running {
    address: SocketAddr,
    stage: Arc<Stage>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        Self::with(Access::default()).await
    }

    async fn with(access: Access) -> Self {
        Self::with_rights(access, Rights { role: AdminRole::Control, token_file: None }).await
    }

    async fn with_rights(access: Access, rights: Rights) -> Self {
        let socket = Socket::bind(&ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()), &Options::default()).unwrap();
        let address = socket.tcp_address().unwrap();
        let (stage, stop, task) = serve(socket, &access, rights);
        Self { address, stage, stop: Some(stop), task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Status and everything else of the answer.
    async fn ask(&self, request_line: &str, headers: &str) -> (u16, String) {
        ask(self.connect().await, &format!("{request_line} HTTP/1.1\r\n{headers}\r\n")).await
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path}"), "Host: localhost\r\n").await
    }

    async fn post(&self, path: &str) -> (u16, String) {
        self.ask(&format!("POST {path}"), "Host: 127.0.0.1\r\nContent-Length: 0\r\n").await
    }
}

fn serve(
    socket: Socket,
    access: &Access,
    rights: Rights,
) -> (Arc<Stage>, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let stage = Arc::new(Stage::default());
    let (stop, stopped) = oneshot::channel();
    let admission = Admission::load(access).unwrap();
    let control = Arc::clone(&stage) as Arc<dyn Control>;
    let task =
        tokio::spawn(admin::serve(Arc::new(socket), admission, rights, control, async move { drop(stopped.await) }));
    (stage, stop, task)
}

async fn ask(mut socket: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String) {
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LONG, socket.read_to_string(&mut answer)).await.expect("an answer and a close").unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {answer:?}")), answer)
}

/// What is read until the other side closes, cleanly or not.
async fn until_closed(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(LONG, socket.read_to_end(&mut answer)).await.expect("the connection is closed");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn probes_say_yes_or_no_and_what_is_missing() {
    let admin = Running::start().await;
    let good = [
        ("/livez", "live"),
        ("/startup", "started"),
        ("/readyz?upstreams=db", "ready"),
        ("/readyz?upstreams", "ready"),
    ];
    for (path, word) in good {
        let (status, answer) = admin.get(path).await;
        assert_eq!(status, 200, "{path}");
        assert!(answer.ends_with(&format!("\r\n\r\n{word}\n")), "{answer}");
    }
    admin.stage.stuck.store(true, Ordering::SeqCst);
    let bad = [
        ("/livez", "worker 1 is stuck for 12 s\n"),
        ("/startup", "not started\n"),
        // Text of a server is escaped.
        ("/readyz?upstreams=db,cache,x", "cache: a\\u{7}b\nx: a\\u{7}b\n"),
    ];
    for (path, lines) in bad {
        let (status, answer) = admin.get(path).await;
        assert_eq!(status, 503, "{path}");
        assert!(answer.ends_with(&format!("\r\n\r\n{lines}")), "{answer}");
    }
    assert_eq!(admin.get("/readyz?names=db").await.0, 400);
    // Who asks under a foreign name learns one word, and starts no origination.
    for (path, status) in [("/livez", 503), ("/startup", 503), ("/readyz", 200), ("/readyz?upstreams=db", 403)] {
        assert_eq!(admin.ask(&format!("GET {path}"), "Host: rebound.example.com\r\n").await.0, status, "{path}");
    }
}

const PROBES: [&str; 4] = ["/healthz", "/livez", "/startup", "/readyz"];

#[tokio::test]
async fn the_role_read_shows_and_changes_nothing() {
    let admin = Running::with_rights(Access::default(), Rights { role: AdminRole::Read, token_file: None }).await;
    for path in ["/metrics", "/status", "/readyz?upstreams=db"].into_iter().chain(PROBES) {
        assert_eq!(admin.get(path).await.0, 200, "{path}");
    }
    for path in ["/config", "/outline"] {
        assert_eq!(admin.get(path).await.0, 403, "{path}");
    }
    for path in ["/reload", "/drain", "/quit"] {
        let (status, answer) = admin.post(path).await;
        assert_eq!(status, 403, "{path}");
        assert!(answer.contains("this admin address has the role `read`"), "{answer}");
    }
    assert!(admin.stage.ready(), "nothing drains");
    assert_eq!(admin.stage.generation.load(Ordering::SeqCst), 0, "nothing was reloaded");
}

#[tokio::test]
async fn a_token_is_asked_for_by_all_but_probes() {
    let rights = Rights { role: AdminRole::Control, token_file: Some("/token".into()) };
    let admin = Running::with_rights(Access::default(), rights).await;
    for path in PROBES {
        assert_eq!(admin.get(path).await.0, 200, "{path}");
    }
    let wrong = [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Basic right\r\n",
        "Authorization: right\r\n",
        "Authorization: Bearer rightright\r\n",
        "X-Authorization: Bearer right\r\n",
    ];
    for authorization in wrong {
        for request in ["GET /metrics", "GET /status", "GET /readyz?upstreams=db", "POST /drain", "GET /nowhere"] {
            let (status, answer) = admin.ask(request, &format!("Host: localhost\r\n{authorization}")).await;
            assert_eq!(status, 401, "{request} {authorization}");
            assert!(answer.to_lowercase().contains("www-authenticate: bearer\r\n"), "{answer}");
        }
    }
    for authorization in ["Authorization: Bearer right\r\n", "authorization: bearer  right \r\n"] {
        let (status, _) = admin.ask("GET /metrics", &format!("Host: localhost\r\n{authorization}")).await;
        assert_eq!(status, 200, "{authorization}");
    }
    assert!(admin.stage.ready(), "nothing drains");
}

#[tokio::test]
async fn each_route_answers() {
    let admin = Running::start().await;
    for (path, wanted, kind) in [
        ("/metrics", "egret_generation 1", "text/plain; version=0.0.4"),
        ("/healthz", "ok", "text/plain"),
        ("/readyz", "ready", "text/plain"),
        ("/config", "\"drain_timeout\": 30.0", "application/json"),
        ("/status", "\"127.0.0.1:8080\"", "application/json"),
    ] {
        let (status, answer) = admin.get(path).await;
        assert_eq!(status, 200, "{path}");
        assert!(answer.contains(wanted) && answer.contains(&format!("content-type: {kind}")), "{path}: {answer}");
    }
    let (status, answer) = admin.ask("HEAD /metrics", "Host: localhost\r\n").await;
    assert!(status == 200 && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn reload_answers_with_the_generation_or_with_the_problems() {
    let admin = Running::start().await;
    let (status, answer) = admin.post("/reload").await;
    assert!(status == 200 && answer.contains("generation 1"), "{answer}");

    admin.stage.broken.store(true, Ordering::SeqCst);
    let (status, answer) = admin.post("/reload").await;
    assert!(status == 422 && answer.contains("unknown key"), "{answer}");

    assert_eq!(admin.post("/drain").await.0, 202);
    assert_eq!(admin.post("/reload").await.0, 409);
}

#[tokio::test]
async fn a_draining_process_is_healthy_and_not_ready() {
    let admin = Running::start().await;
    assert_eq!(admin.get("/readyz").await.0, 200);
    assert_eq!(admin.post("/drain").await.0, 202);
    assert_eq!(admin.get("/readyz").await.0, 503);
    assert_eq!(admin.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn wrong_methods_and_paths_are_told_apart() {
    let admin = Running::start().await;
    let (status, answer) = admin.get("/drain").await;
    assert!(status == 405 && answer.contains("\r\nallow: POST\r\n"), "{answer}");
    assert!(admin.stage.ready(), "a GET does not drain");
    let (status, answer) = admin.post("/metrics").await;
    assert!(status == 405 && answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    for path in ["/", "/metrics/", "/Metrics", "/..%2fmetrics"] {
        assert_eq!(admin.get(path).await.0, 404, "{path}");
    }
    assert_eq!(admin.get("/healthz?verbose").await.0, 200);
}

#[tokio::test]
async fn a_browser_gets_a_page_that_runs_nothing() {
    let admin = Running::start().await;
    let (status, answer) = admin.ask("GET /status", "Host: localhost\r\nAccept: text/html,*/*;q=0.8\r\n").await;
    assert_eq!(status, 200);
    assert!(answer.contains("content-type: text/html"), "{answer}");
    assert!(answer.contains("content-security-policy: default-src 'none'"), "{answer}");
    assert!(answer.contains("&lt;b&gt;web&lt;/b&gt;") && !answer.contains("<b>"), "{answer}");
    assert!(!answer.contains("http://") && !answer.contains("https://") && !answer.contains("<script"), "{answer}");
}

#[tokio::test]
async fn admin_refuses_a_foreign_host_header() {
    let admin = Running::start().await;
    for host in ["rebound.example.com", "rebound.example.com:9090", "127.0.0.1.example.com", "localhost\r\nHost: x"] {
        for line in
            ["POST /drain", "POST /reload", "GET /status", "GET /config", "GET /outline", "GET /metrics", "GET /"]
        {
            let (status, answer) = admin.ask(line, &format!("Host: {host}\r\nContent-Length: 0\r\n")).await;
            assert_eq!(status, 403, "{line} {host}: {answer}");
        }
        let (status, _) = admin.ask("GET /healthz", &format!("Host: {host}\r\n")).await;
        assert_eq!(status, 200, "a probe may ask under any name");
    }
    let (status, _) = admin.ask("POST http://rebound.example.com/drain", "Host: localhost\r\n").await;
    assert_eq!(status, 403);
    assert_eq!(admin.ask("POST /drain", "").await.0, 403, "no Host at all");
    assert!(admin.stage.ready() && admin.stage.generation.load(Ordering::SeqCst) == 0, "nothing was done");
    for host in ["127.0.0.1:9090", "localhost", "[::1]:9090"] {
        assert_eq!(admin.ask("POST /reload", &format!("Host: {host}\r\n")).await.0, 200, "{host}");
    }
}

#[tokio::test]
async fn admin_does_nothing_for_a_web_page() {
    let admin = Running::start().await;
    for origin in ["http://page.example.com", "null", "http://127.0.0.1"] {
        let (status, _) = admin.ask("POST /drain", &format!("Host: 127.0.0.1\r\nOrigin: {origin}\r\n")).await;
        assert_eq!(status, 403, "{origin}");
    }
    assert!(admin.stage.ready(), "nothing drains");
}

#[tokio::test]
async fn a_peer_that_is_not_admitted_gets_no_answer() {
    let elsewhere = Access { networks: vec!["192.0.2.0/24".parse().unwrap()], users: Vec::new() };
    let admin = Running::with(elsewhere).await;
    let mut socket = admin.connect().await;
    let _ = socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(until_closed(socket).await, "");
}

#[tokio::test]
async fn on_a_unix_socket_the_user_decides() {
    let folder = tempfile::tempdir().unwrap();
    let own = rustix::process::getuid().as_raw();
    for (n, (uid, admitted)) in [(own, true), (own + 1, false)].into_iter().enumerate() {
        let path = folder.path().join(n.to_string());
        let access = Access { networks: Vec::new(), users: vec![User::Id(uid)] };
        let (_stage, _stop, _task) = serve(
            Socket::bind(&ListenAddress::Unix { path: path.clone(), mode: 0o600 }, &Options::default()).unwrap(),
            &access,
            Rights { role: AdminRole::Control, token_file: None },
        );
        let mut socket = UnixStream::connect(&path).await.unwrap();
        let _ = socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: any.example.com\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = timeout(LONG, socket.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer.starts_with(b"HTTP/1.1 200 "), admitted, "{:?}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn slow_header_is_cut() {
    let admin = Running::start().await;
    let mut silent = admin.connect().await;
    let mut slow = admin.connect().await;
    silent.write_all(b"").await.unwrap();
    let drip = async {
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
        while slow.write_all(b"X: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (silent, _) = tokio::join!(until_closed(silent), timeout(LONG, drip));
    assert!(!silent.starts_with("HTTP/1.1 200"), "{silent}");
    assert!(!until_closed(slow).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_slow_or_large_body_is_cut() {
    let admin = Running::start().await;
    let (status, _) = admin.ask("POST /drain", "Host: localhost\r\nContent-Length: 10\r\n").await;
    assert_eq!(status, 408);
    let large = "x".repeat(20_000);
    let request = format!("POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n{large}");
    let (status, _) = ask(admin.connect().await, &request).await;
    assert_eq!(status, 413);
    assert!(admin.stage.ready(), "neither of them drained");
}

#[tokio::test]
async fn a_huge_header_is_refused() {
    let admin = Running::start().await;
    let mut socket = admin.connect().await;
    let huge = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    let _ = socket.write_all(huge.as_bytes()).await;
    assert!(!until_closed(socket).await.starts_with("HTTP/1.1 200"));
}

/// Far above the connections that are served at once.
const CROWD: usize = 200;
/// Well below the time after which the endpoint gives up a slow client: no probe has waited for that.
const PROBE: Duration = Duration::from_secs(4);

#[tokio::test]
async fn slow_clients_never_keep_a_probe_from_its_answer() {
    for begun in [
        "",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n",
        "POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf",
        "POST /reload HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let admin = Running::start().await;
        admin.stage.hung.store(true, Ordering::SeqCst);
        let mut crowd = Vec::new();
        for n in 0..CROWD {
            let mut slow = admin.connect().await;
            slow.write_all(begun.as_bytes()).await.unwrap();
            crowd.push(slow);
            if n % 50 == 49 {
                let answer = timeout(PROBE, admin.get("/readyz")).await;
                assert_eq!(answer.expect("a probe waits").0, 200, "{begun:?}, {n} slow clients");
            }
        }
    }
}

#[tokio::test]
async fn clients_that_read_nothing_never_keep_a_probe_from_its_answer() {
    let admin = Running::start().await;
    admin.stage.large.store(true, Ordering::SeqCst);
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut deaf = admin.connect().await;
        deaf.write_all(b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        deaf.readable().await.unwrap();
        crowd.push(deaf);
    }
    assert_eq!(timeout(PROBE, admin.get("/readyz")).await.expect("a probe waits").0, 200);
}

#[tokio::test]
async fn a_fault_of_one_answer_is_reported_and_the_next_is_answered() {
    let admin = Running::start().await;
    admin.stage.faulty.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(admin.get("/status").await.0, 500);
        assert_eq!(admin.get("/healthz").await.0, 200);
    }
    admin.stage.faulty.store(false, Ordering::SeqCst);
    assert_eq!(admin.get("/status").await.0, 200);
}

/// The end comes with the first of them, as that of an idle process does.
#[tokio::test]
async fn requests_under_way_are_answered_before_the_end() {
    for (requests, wanted) in [("POST /drain", 202), ("GET /readyz", 200), ("POST /reload", 200)] {
        let mut admin = Running::start().await;
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(admin.connect().await);
        }
        drop(admin.stop.take());
        for client in clients {
            let (status, answer) = ask(client, &format!("{requests} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            assert_eq!(status, wanted, "{answer}");
        }
        timeout(LONG, &mut admin.task).await.expect("the end waits for ever").unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_does_not_hold_up_the_end() {
    let mut admin = Running::start().await;
    admin.stage.large.store(true, Ordering::SeqCst);
    let mut deaf = admin.connect().await;
    deaf.write_all(b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    deaf.readable().await.unwrap();
    drop(admin.stop.take());
    timeout(LONG, &mut admin.task).await.expect("the end waits for ever").unwrap();
}

#[tokio::test]
async fn stopping_closes_the_address_and_the_exchanges() {
    let mut admin = Running::start().await;
    let open = admin.connect().await;
    drop(admin.stop.take());
    timeout(LONG, &mut admin.task).await.unwrap().unwrap();
    assert_eq!(until_closed(open).await, "");
    TcpStream::connect(admin.address).await.unwrap_err();
}
