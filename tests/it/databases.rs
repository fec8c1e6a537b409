//! Real database tools that speak plain TCP, real database servers that speak TLS only.

use std::process::Command;

use crate::support::egret::{Egret, listener, roots};
use crate::support::nginx::Nginx;
use crate::support::pki::{Pair, Pki};
use crate::support::postgres::{Postgres, pgbench, psql};
use crate::support::process::{attempt, run};
use crate::support::redis::Redis;
use crate::support::{free_port, http};

const HOST: &str = "db.example.com";

/// egret with one listener named `db` to a server on this port.
fn egret(pki: &Pki, client: &Pair, port: u16, upgrade: &str) -> Egret {
    Egret::start(&format!(
        "{}{}[upstreams.db]\nservers = [\"127.0.0.1:{port}\"]\n{upgrade}\n\
         tls = {{ identity = \"app\", trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
        roots("internal", &pki.root()),
        client.identity("app"),
        listener("db", free_port(), "db"),
    ))
}

fn failures(egret: &Egret) -> f64 {
    egret.metrics().sum("egret_origination_failures_total", &[])
}

#[test]
fn redis_benchmark_sends_a_hundred_thousand_requests_without_error() {
    let pki = Pki::new();
    let redis = Redis::start(&pki, &pki.server(&[HOST]));
    let egret = egret(&pki, &pki.client("app"), redis.port, "");
    let port = egret.address("db").port().to_string();
    let floor = egret.descriptors();

    let benchmark = |arguments: &[&str]| {
        let text = run(Command::new("redis-benchmark").args(["-h", "127.0.0.1", "-p", &port, "-q"]).args(arguments));
        assert!(text.contains("requests per second"), "{text}");
        assert!(!text.contains("rror"), "{text}");
    };
    benchmark(&["-n", "100000", "-c", "50", "-t", "set", "-d", "100"]);
    // A connection for each request: the handshakes are what is tried here.
    benchmark(&["-n", "2000", "-c", "20", "-k", "0", "-t", "get"]);

    let stats = run(Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &port, "info", "commandstats"]));
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls=")?.split(',').next());
    assert_eq!(calls, Some("100000"), "{stats}");
    assert_eq!(failures(&egret), 0.0, "{}", egret.log_text());
    egret.wait_until_idle(floor);
}

const POSTGRES: &str = "upgrade = \"postgres\"";

#[test]
fn psql_and_pgbench_reach_a_server_that_demands_tls_and_a_certificate() {
    let pki = Pki::new();
    let postgres = Postgres::start(&pki, &pki.server(&[HOST]));
    let egret = egret(&pki, &pki.client("app"), postgres.port, POSTGRES);
    let port = egret.address("db").port();
    let floor = egret.descriptors();

    let seen = "select ssl, version, client_dn from pg_stat_ssl where pid = pg_backend_pid()";
    for sslmode in ["disable", "prefer", "allow"] {
        let row = run(&mut psql(port, sslmode, seen));
        assert_eq!(row.trim(), "t|TLSv1.3|/CN=app", "sslmode={sslmode}\n{}", egret.log_text());
    }

    // The plaintext listener answers "no TLS here", and psql itself says so: no hang, no half a session.
    let refused = attempt(&mut psql(port, "require", seen));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(text.contains("server does not support SSL, but SSL was required"), "{text}");

    run(&mut pgbench(port, &["--initialize", "--scale=2", "--quiet"]));
    let report = run(&mut pgbench(port, &["-c", "16", "-j", "2", "-T", "20"]));
    assert!(report.contains("number of failed transactions: 0 "), "{report}");
    let processed = report.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let processed: u64 = processed.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
    assert!(processed > 16, "{report}");
    // A connection for each transaction: the upgrade and the handshake are what is tried here.
    let report = run(&mut pgbench(port, &["-C", "-S", "-c", "4", "-T", "3"]));
    assert!(report.contains("number of failed transactions: 0 "), "{report}");

    assert_eq!(failures(&egret), 0.0, "{}", egret.log_text());
    egret.wait_until_idle(floor);
}

/// PostgreSQL on TLS 1.3 judges the client's certificate after egret's handshake is over.
#[test]
fn postgres_that_refuses_the_certificate_is_reported_as_that() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let postgres = Postgres::start(&pki, &pki.server(&[HOST]));
    let egret = egret(&pki, &stranger.client("app"), postgres.port, POSTGRES);
    let refused = attempt(&mut psql(egret.address("db").port(), "disable", "select 1"));
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let class = "client_certificate_rejected";
    egret.wait_for_log(class, |line| line["reason"] == class || line["ended"] == class);
}

/// A request that is no PostgreSQL at all, sent to a listener that expects it.
#[test]
fn junk_on_a_postgres_listener_is_answered_before_an_upstream_is_asked() {
    let pki = Pki::new();
    let postgres = Postgres::start(&pki, &pki.server(&[HOST]));
    let egret = egret(&pki, &pki.client("app"), postgres.port, POSTGRES);
    let floor = egret.descriptors();
    let address = egret.address("db");
    assert_ne!(http::get(address).exit, 0, "HTTP is not PostgreSQL");
    for junk in [&[0xff; 65_536][..], &[0; 8], b"\x00\x00\x00\x03"] {
        let (bytes, _) = crate::support::plain::ask_and_finish(address, junk);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with('E') && text.contains("egret: downstream_not_postgres: "), "{text:?}");
    }
    egret.wait_until_idle(floor);
    let originated = egret.metrics().sum("egret_originations_total", &[]);
    assert_eq!(originated, 0.0, "{}", egret.log_text());
}

/// As PostgreSQL 17 does it, by a TLS server before an older one: TLS from the first byte, and only with the right ALPN.
#[test]
fn postgres_direct_speaks_tls_from_the_first_byte_and_names_the_protocol() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let postgres = Postgres::start_plain(&pki, &pair);
    let ports = [free_port(), free_port()];
    let server = |port: u16, alpn: &str| {
        format!(
            "server {{ listen 127.0.0.1:{port} ssl; {alpn} ssl_certificate {}; ssl_certificate_key {}; \
             ssl_client_certificate {}; ssl_verify_client on; ssl_verify_depth 2; proxy_pass 127.0.0.1:{}; }}",
            pair.certificate.display(),
            pair.key.display(),
            pki.root().display(),
            postgres.port
        )
    };
    let servers = server(ports[0], "ssl_alpn postgresql;") + &server(ports[1], "");
    let _nginx = Nginx::start_stream(&servers, &ports);

    let direct = egret(&pki, &pki.client("app"), ports[0], "upgrade = \"postgres-direct\"");
    let port = direct.address("db").port();
    for sslmode in ["disable", "prefer"] {
        let rows = run(&mut psql(port, sslmode, "select 1 + 1"));
        assert_eq!(rows.trim(), "2", "sslmode={sslmode}\n{}", direct.log_text());
    }
    let alpn = direct.wait_for_log("a connection", |line| line["message"] == "connection")["alpn"].clone();
    assert_eq!(alpn, "postgresql");

    let other = egret(&pki, &pki.client("app"), ports[1], "upgrade = \"postgres-direct\"");
    let refused = attempt(&mut psql(other.address("db").port(), "disable", "select 1"));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("egret: alpn_refused: "), "{text}");
}

#[test]
fn many_clients_and_prepared_statements_pass_with_and_without_a_pool() {
    let pki = Pki::new();
    let postgres = Postgres::start(&pki, &pki.server(&[HOST]));
    for pool in ["", "\npool = { min_idle = 4 }"] {
        let egret = egret(&pki, &pki.client("app"), postgres.port, &format!("{POSTGRES}{pool}"));
        let port = egret.address("db").port();
        run(&mut pgbench(port, &["--initialize", "--quiet"]));
        for mode in ["simple", "prepared"] {
            let report = run(&mut pgbench(port, &["-S", "-M", mode, "-c", "100", "-j", "2", "-t", "20"]));
            assert!(report.contains("number of failed transactions: 0 "), "{mode}{pool}: {report}");
            assert!(report.contains("number of transactions actually processed: 2000/2000"), "{mode}{pool}: {report}");
        }
        assert_eq!(failures(&egret), 0.0, "{}", egret.log_text());
    }
}
