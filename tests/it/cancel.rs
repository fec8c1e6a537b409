//! Requests to cancel a query reach the server that holds the session, by real clients and real servers.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::egret::{Egret, listener, roots};
use crate::support::pki::{Pair, Pki};
use crate::support::plain::{connect, read_to_end};
use crate::support::postgres::{Postgres, pgbench, psql};
use crate::support::process::{attempt, run};
use crate::support::{eventually, free_port};

const HOST: &str = "db.example.com";

fn sections(pki: &Pki, client: &Pair, servers: &[u16], keys: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    format!(
        "{}{}[upstreams.db]\nservers = [{}]\nupgrade = \"postgres\"\n{keys}\n\
         tls = {{ identity = \"app\", trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
        roots("internal", &pki.root()),
        client.identity("app"),
        servers.join(", "),
        listener("db", free_port(), "db"),
    )
}

/// A session in the simplest form of the protocol: certificates are all the authentication there is.
struct Session {
    tcp: std::net::TcpStream,
    key: Vec<u8>,
}

impl Session {
    fn open(address: SocketAddr) -> Self {
        Self::on(connect(address))
    }

    fn on(mut tcp: std::net::TcpStream) -> Self {
        let parameters = b"\0\x03\0\0user\0app\0database\0postgres\0\0";
        tcp.write_all(&[&(parameters.len() as u32 + 4).to_be_bytes()[..], parameters].concat()).unwrap();
        let mut session = Self { tcp, key: Vec::new() };
        loop {
            match session.message() {
                (b'K', key) => session.key = key,
                (b'Z', _) => return session,
                (b'E', text) => panic!("{}", String::from_utf8_lossy(&text)),
                _ => {}
            }
        }
    }

    fn message(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.tcp.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        self.tcp.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    fn query(&mut self, text: &str) {
        let body = [text.as_bytes(), b"\0"].concat();
        self.tcp.write_all(&[b"Q", &(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()).unwrap();
    }

    /// Begins a query that does not end by itself; it runs when this returns.
    fn sleep(&mut self) {
        self.query("do $$ begin raise notice 'begun'; perform pg_sleep(600); end $$");
        while self.message().0 != b'N' {}
    }

    /// The error that ends the query; `None`: it succeeded.
    fn error(&mut self) -> Option<String> {
        let mut error = None;
        loop {
            match self.message() {
                (b'E', text) => error = Some(String::from_utf8_lossy(&text).into_owned()),
                (b'Z', _) => return error,
                _ => {}
            }
        }
    }

    /// Cancels as libpq does, and waits for the server's close.
    fn cancel(&self, address: SocketAddr) {
        let mut tcp = connect(address);
        let request = [&(8 + self.key.len() as u32).to_be_bytes()[..], &[0x04, 0xd2, 0x16, 0x2e], &self.key].concat();
        tcp.write_all(&request).unwrap();
        assert_eq!(read_to_end(&mut tcp).0, b"", "a request to cancel is not answered");
    }
}

const CANCELED: &str = "canceling statement due to user request";

/// Two servers in turn: half of the requests would miss their session if they were balanced as streams are.
#[test]
fn a_hundred_cancels_reach_their_sessions_on_two_servers() {
    let pki = Pki::new();
    let servers = [0, 1].map(|_| Postgres::start(&pki, &pki.server(&[HOST])));
    let ports = servers.each_ref().map(|server| server.port);
    let sections = sections(&pki, &pki.client("app"), &ports, "balance = \"round_robin\"");
    let egret = Egret::start(&sections);
    let address = egret.address("db");
    let mut sessions: Vec<Session> = (0..10).map(|_| Session::open(address)).collect();
    for round in 0..10 {
        sessions.iter_mut().for_each(Session::sleep);
        for session in &mut sessions {
            session.cancel(address);
            let error = session.error();
            assert!(error.as_ref().is_some_and(|error| error.contains(CANCELED)), "round {round}: {error:?}");
        }
    }
    for session in &mut sessions {
        session.query("select 1");
        assert_eq!(session.error(), None, "nothing else was cancelled");
    }
    for port in ports {
        let endpoint = format!("127.0.0.1:{port}");
        let streams = || egret.log().iter().filter(|line| line["endpoint"] == endpoint.as_str()).count();
        eventually("the requests of its sessions in the log", || (streams() >= 50).then_some(()));
    }
    assert_eq!(egret.metrics().sum("egret_origination_failures_total", &[]), 0.0, "{}", egret.log_text());
}

#[test]
fn cancel_reaches_a_session_after_fail_over_and_after_a_reload() {
    let pki = Pki::new();
    let second = Postgres::start(&pki, &pki.server(&[HOST]));
    let first = free_port();
    let (own, keys) = (pki.client("app"), "balance = \"priority\"");
    let egret = Egret::start(&sections(&pki, &own, &[first, second.port], keys));
    let address = egret.address("db");
    let mut session = Session::open(address);
    session.sleep();
    // The first server is back: new streams go there, and the session is on the second.
    let first = Postgres::start_at(first, &pki, &pki.server(&[HOST]));
    let text = std::fs::read_to_string(egret.config()).unwrap();
    std::fs::write(egret.config(), text.replace(keys, "balance = \"priority\"\nidle_timeout = \"2h\"")).unwrap();
    assert!(egret.reload(), "{}", egret.log_text());
    eventually("new sessions on the first server", || {
        let port = run(&mut psql(address.port(), "disable", "select inet_server_port()"));
        (port.trim() == first.port.to_string()).then_some(())
    });
    session.cancel(address);
    let error = session.error();
    assert!(error.as_ref().is_some_and(|error| error.contains(CANCELED)), "{error:?}");
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ctrl-C in psql, while others keep the servers and egret busy; and the server's own limit of time.
#[test]
fn psql_is_interrupted_and_timed_out_under_load() {
    let pki = Pki::new();
    let servers = [0, 1].map(|_| Postgres::start(&pki, &pki.server(&[HOST])));
    let ports = servers.each_ref().map(|server| server.port);
    let egret = Egret::start(&sections(&pki, &pki.client("app"), &ports, "balance = \"round_robin\""));
    let port = egret.address("db").port();
    for server in &ports {
        let direct = Egret::start(&sections(&pki, &pki.client("app"), &[*server], ""));
        run(&mut pgbench(direct.address("db").port(), &["--initialize", "--quiet"]));
    }
    let mut load = pgbench(port, &["-S", "-c", "8", "-T", "60"]);
    let _load = Running(load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    for _ in 0..4 {
        // A mark before the query says that the session is there.
        let mut command = psql(port, "disable", "select pg_sleep(600)");
        command.args(["--command", "select 1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_child(&child);
        eventually("psql to be interrupted", || {
            kill_process(pid, Signal::INT).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
            child.try_wait().unwrap()
        });
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(CANCELED) || text.is_empty(), "{text}\n{}", egret.log_text());
    }
    let limited = attempt(&mut psql(port, "disable", "set statement_timeout = 50; select pg_sleep(600)"));
    let text = String::from_utf8_lossy(&limited.stderr).into_owned();
    assert!(text.contains("canceling statement due to statement timeout"), "{text}");
}

/// The walsender speaks the same protocol, with more in it.
#[test]
fn replication_connections_and_a_base_backup_pass() {
    let pki = Pki::new();
    let server = Postgres::start(&pki, &pki.server(&[HOST]));
    let egret = Egret::start(&sections(&pki, &pki.client("app"), &[server.port], ""));
    let port = egret.address("db").port().to_string();
    let conninfo = format!("host=127.0.0.1 port={port} user=app dbname=postgres replication=database sslmode=disable");
    let system = run(Command::new("psql").args(["-X", "-A", "-t", &conninfo, "-c", "IDENTIFY_SYSTEM"]));
    assert!(system.contains("|postgres"), "{system}");
    let backup = pki.folder().join("backup");
    run(Command::new("pg_basebackup")
        .args([
            "-d",
            &format!("host=127.0.0.1 port={port} user=app sslmode=disable"),
            "-c",
            "fast",
            "-X",
            "stream",
            "-D",
        ])
        .arg(&backup));
    assert!(backup.join("PG_VERSION").exists() && backup.join("backup_manifest").exists());
}

/// As a standby or an archive of the log does it.
#[test]
fn pg_receivewal_streams_the_log_of_a_server() {
    let pki = Pki::new();
    let server = Postgres::start(&pki, &pki.server(&[HOST]));
    let egret = Egret::start(&sections(&pki, &pki.client("app"), &[server.port], ""));
    let port = egret.address("db").port();
    let written =
        "select pg_logical_emit_message(false, 'test', repeat('x', 1000000)) is null; select pg_current_wal_lsn()";
    let rows = run(&mut psql(port, "disable", written));
    let reached = rows.trim().lines().last().expect("a position of the log");
    let folder = pki.folder().join("log");
    std::fs::create_dir(&folder).unwrap();
    let conninfo = format!("host=127.0.0.1 port={port} user=app sslmode=disable");
    let mut receive = Command::new("pg_receivewal");
    receive.args(["-d", &conninfo, "--no-loop", "--endpos", reached, "-D"]).arg(&folder);
    run(&mut receive);
    let received = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>();
    assert!(received >= 1_000_000, "{received} bytes up to {reached}");
    assert_eq!(egret.metrics().sum("egret_origination_failures_total", &[]), 0.0, "{}", egret.log_text());
}

/// As libpq with Kerberos does it: GSSENCRequest, then SSLRequest, and the session in plaintext when both are declined.
#[test]
fn requests_for_encryption_in_any_order_are_declined_and_the_session_is_served() {
    const GSS: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
    const SSL: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    let pki = Pki::new();
    let server = Postgres::start(&pki, &pki.server(&[HOST]));
    let egret = Egret::start(&sections(&pki, &pki.client("app"), &[server.port], ""));
    for requests in [&[GSS, SSL][..], &[SSL, GSS], &[GSS], &[]] {
        let mut tcp = connect(egret.address("db"));
        for request in requests {
            tcp.write_all(request).unwrap();
            let mut answer = [0];
            tcp.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"N", "{requests:?}");
        }
        let mut session = Session::on(tcp);
        session.query("select 1");
        assert_eq!(session.error(), None, "{requests:?}");
    }
}
