//! Records of egret's own against the TLS of others: OpenSSL, GnuTLS and Go, with every suite that egret offers.
//! (AWS-LC, a descendant of BoringSSL, is behind the servers of all other tests.)

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use crate::failures::{HOST, one_upstream, one_upstream_with};
use crate::support::caddy::Caddy;
use crate::support::egret::{Egret, roots};
use crate::support::nginx::{Nginx, tls};
use crate::support::peer::Peer;
use crate::support::pki::Pki;
use crate::support::plain::{self, End};
use crate::support::process::{Process, guarded};
use crate::support::{eventually, free_port, loopback};

/// A suite in the words of those who are told to use it.
struct Suite {
    /// rustls's, as in the log.
    name: &'static str,
    openssl: &'static str,
    gnutls: &'static str,
    /// None: Go cannot be told which of TLS 1.3 to use.
    go: Option<&'static str>,
}

impl Suite {
    fn is_tls13(&self) -> bool {
        self.name.starts_with("TLS13")
    }
}

const SUITES: [Suite; 6] = [
    Suite {
        name: "TLS13_AES_128_GCM_SHA256",
        openssl: "TLS_AES_128_GCM_SHA256",
        gnutls: "+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM",
        go: None,
    },
    Suite {
        name: "TLS13_AES_256_GCM_SHA384",
        openssl: "TLS_AES_256_GCM_SHA384",
        gnutls: "+VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM",
        go: None,
    },
    Suite {
        name: "TLS13_CHACHA20_POLY1305_SHA256",
        openssl: "TLS_CHACHA20_POLY1305_SHA256",
        gnutls: "+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305",
        go: None,
    },
    Suite {
        name: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        openssl: "ECDHE-ECDSA-AES128-GCM-SHA256",
        gnutls: "+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM",
        go: Some("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    },
    Suite {
        name: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        openssl: "ECDHE-ECDSA-AES256-GCM-SHA384",
        gnutls: "+VERS-TLS1.2:-CIPHER-ALL:+AES-256-GCM",
        go: Some("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    },
    Suite {
        name: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        openssl: "ECDHE-ECDSA-CHACHA20-POLY1305",
        gnutls: "+VERS-TLS1.2:-CIPHER-ALL:+CHACHA20-POLY1305",
        go: Some("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    },
];

/// Some hundreds of full records each way.
const LENGTH: u64 = 5_000_003;

fn egret_to(address: SocketAddr, pki: &Pki) -> Egret {
    one_upstream(&address.to_string(), "trust = \"internal\"", &roots("internal", &pki.root()))
}

fn lenient_to(address: SocketAddr, pki: &Pki) -> Egret {
    one_upstream_with(
        "eof = \"lenient\"",
        &address.to_string(),
        "trust = \"internal\"",
        &roots("internal", &pki.root()),
    )
}

fn used(egret: &Egret, suite: &str) {
    let line = egret.wait_for_log("the connection", |line| line["message"] == "connection");
    assert_eq!((&line["suite"], &line["ended"]), (&suite.into(), &"finished".into()), "{line}");
}

/// The client ends its side first; the server's bytes follow then, in padded records where TLS has padding.
#[test]
fn openssl_takes_and_sends_every_suite_with_half_close_and_padding() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let (tell, told) = mpsc::channel();
    let backend = Peer::start(move |mut tcp| {
        let got = plain::receive(&mut tcp);
        tell.send((got, plain::send(&mut tcp, 2, LENGTH))).unwrap();
    });
    for suite in SUITES {
        let port = free_port();
        let (protocol, chosen) = match suite.is_tls13() {
            true => (
                "TLSv1.3",
                format!("ssl_conf_command Ciphersuites {}; ssl_conf_command RecordPadding 3000;", suite.openssl),
            ),
            false => ("TLSv1.2", format!("ssl_ciphers {};", suite.openssl)),
        };
        let tls = tls(&pair, &pki.root(), protocol);
        let _nginx = Nginx::start_stream(
            &format!(
                "server {{ listen 127.0.0.1:{port} ssl; {tls} {chosen} proxy_half_close on; proxy_pass {}; }}",
                backend.address
            ),
            &[port],
        );
        // After a half-close nginx 1.22 ends without close_notify.
        let egret = lenient_to(loopback(port), &pki);
        let mut client = plain::connect(egret.address("plain"));
        let sent = plain::send(&mut client, 1, LENGTH);
        plain::finish(&client);
        let got = plain::receive(&mut client);
        let (server_got, server_sent) = told.recv().unwrap();
        assert_eq!(server_got, (LENGTH, sent), "{}: up\n{}", suite.name, egret.log_text());
        assert_eq!(got, (LENGTH, server_sent), "{}: down\n{}", suite.name, egret.log_text());
        used(&egret, suite.name);
    }
}

/// A line comes back as it went; then the client ends.
#[test]
fn gnutls_takes_and_sends_every_suite() {
    const ROUNDS: usize = 8;
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    for suite in SUITES {
        let port = free_port();
        let mut command = guarded("gnutls-serv");
        command.args(["--echo", "--quiet", "--disable-client-cert", "--port", &port.to_string()]);
        command.arg("--x509certfile").arg(&pair.certificate).arg("--x509keyfile").arg(&pair.key);
        command.arg(format!("--priority=NORMAL:-VERS-ALL:{}", suite.gnutls));
        let mut server = Process::spawn("gnutls-serv", command, &pki.folder().join(format!("gnutls-{port}.log")));
        server.wait_for_port(loopback(port));
        let egret = egret_to(loopback(port), &pki);
        let mut client = plain::connect(egret.address("plain"));
        for round in 0..ROUNDS {
            // From less than one record to several.
            let line: Vec<u8> =
                (0..10 + round * 9_000).map(|at| b'a' + ((at * 7 + round) % 26) as u8).chain([b'\n']).collect();
            client.write_all(&line).unwrap();
            let mut back = vec![0; line.len()];
            client.read_exact(&mut back).unwrap_or_else(|error| {
                panic!("{}, round {round}: {error}\n{}\n{}", suite.name, egret.log_text(), server.output())
            });
            assert!(back == line, "{}, round {round}", suite.name);
        }
        plain::finish(&client);
        assert_eq!(plain::read_to_end(&mut client), (Vec::new(), End::Clean), "{}\n{}", suite.name, egret.log_text());
        used(&egret, suite.name);
    }
}

/// Go begins with records of one packet and goes over to full ones.
#[test]
fn go_takes_and_sends_large_bodies_on_either_version() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let (tell, told) = mpsc::channel();
    let backend = Peer::start(move |mut tcp| {
        head(&mut tcp);
        let got = plain::receive(&mut (&mut tcp).take(LENGTH));
        write!(tcp, "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nConnection: close\r\n\r\n").unwrap();
        tell.send((got, plain::send(&mut tcp, 2, LENGTH))).unwrap();
    });
    let versions = SUITES
        .iter()
        .filter_map(|suite| suite.go)
        .map(|suite| (format!("protocols tls1.2 tls1.2\nciphers {suite}"), suite));
    for (tls, suite) in versions.chain([("protocols tls1.3".to_owned(), "TLS13_")]) {
        let caddy = Caddy::start(HOST, &pair, &tls, backend.address);
        let egret = egret_to(caddy.address, &pki);
        let mut client = plain::connect(egret.address("plain"));
        write!(client, "PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {LENGTH}\r\nConnection: close\r\n\r\n")
            .unwrap();
        let sent = plain::send(&mut client, 1, LENGTH);
        let answer = head(&mut client);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}\n{}", egret.log_text());
        let got = plain::receive(&mut client);
        let (server_got, server_sent) = told.recv().unwrap();
        assert_eq!(server_got, (LENGTH, sent), "{suite}: up\n{}", egret.log_text());
        assert_eq!(got, (LENGTH, server_sent), "{suite}: down\n{}", egret.log_text());
        plain::finish(&client);
        let line = egret.wait_for_log("the connection", |line| line["message"] == "connection");
        assert!(line["suite"].as_str().unwrap().starts_with(suite) && line["ended"] == "finished", "{line}");
    }
}

/// The head of a message of HTTP.
fn head(from: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// OpenSSL changes its key again and again, and every second time asks for ours: bytes of both directions go on under
/// the new ones. Its records are short, so that many stand in one read.
#[test]
fn key_updates_of_openssl_are_followed_and_answered() {
    const ROUNDS: u64 = 6;
    let pki = Pki::new();
    let mut server = TalkingServer::start(&pki, &["-tls1_3", "-max_send_frag", "512"]);
    let egret = egret_to(server.address, &pki);
    let mut client = plain::connect(egret.address("plain"));
    let mut sent = Vec::new();
    for round in 0..ROUNDS {
        let down = block(round, 12_000);
        server.say(&down);
        let mut got = vec![0; down.len()];
        client.read_exact(&mut got).unwrap_or_else(|error| panic!("round {round}: {error}\n{}", egret.log_text()));
        assert!(got == down, "round {round}: down");

        let up = block(round + 100, 20_000);
        client.write_all(&up).unwrap();
        sent.extend_from_slice(&up);
        eventually(&format!("round {round}: what was sent up"), || (server.heard() == sent).then_some(()));

        let asks = round % 2 == 0;
        server.say(if asks { b"K\n" } else { b"k\n" });
        server.wait_for_key_updates(">>>", round + 1);
        if asks {
            server.wait_for_key_updates("<<<", round / 2 + 1);
        }
    }
    plain::finish(&client);
    assert_eq!(plain::read_to_end(&mut client), (Vec::new(), End::Clean), "{}", egret.log_text());
    used(&egret, "TLS13_AES_256_GCM_SHA384");
}

/// Bytes that are in none of the texts that `openssl s_server` writes, nor are commands to it.
fn block(seed: u64, length: u64) -> Vec<u8> {
    (0..length).map(|at| 0xf0 | ((at.wrapping_mul(seed * 2 + 1) >> 3) & 0xf) as u8).collect()
}

/// `openssl s_server` with its terminal in the test's hands: what is typed is sent, but for lines of one letter, which
/// are commands; what is received is printed, amid what it has to say itself.
struct TalkingServer {
    child: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
    /// Messages of TLS.
    messages: std::path::PathBuf,
    address: SocketAddr,
}

impl TalkingServer {
    fn start(pki: &Pki, arguments: &[&str]) -> Self {
        let (pair, port) = (pki.server(&[HOST]), free_port());
        let messages = pki.folder().join("messages");
        let mut command: Command = guarded("openssl");
        command.args(["s_server", "-naccept", "1", "-msg", "-msgfile"]).arg(&messages);
        command.args(["-accept", &format!("127.0.0.1:{port}")]).args(arguments);
        command
            .arg("-cert")
            .arg(&pair.certificate)
            .arg("-cert_chain")
            .arg(pki.intermediate())
            .arg("-key")
            .arg(&pair.key);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (keyboard, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let screen = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut piece) {
                seen.lock().unwrap().extend_from_slice(&piece[..n]);
            }
        });
        let server = Self { child, keyboard, screen, messages, address: loopback(port) };
        eventually("s_server to accept", || {
            server.screen.lock().unwrap().windows(6).any(|text| text == b"ACCEPT").then_some(())
        });
        server
    }

    fn say(&mut self, bytes: &[u8]) {
        self.keyboard.write_all(bytes).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// What the client has sent so far.
    fn heard(&self) -> Vec<u8> {
        self.screen.lock().unwrap().iter().copied().filter(|byte| *byte >= 0xf0).collect()
    }

    /// `direction` as OpenSSL draws it.
    fn wait_for_key_updates(&self, direction: &str, count: u64) {
        let is_one = |line: &&str| line.starts_with(direction) && line.contains("KeyUpdate");
        eventually(&format!("{count} key updates {direction}"), || {
            let text = fs::read_to_string(&self.messages).unwrap_or_default();
            (text.lines().filter(is_one).count() as u64 >= count).then_some(())
        });
    }
}

impl Drop for TalkingServer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
