//! Clients that cannot be served read why in the words of their own protocol: real clients, and the class in what they
//! print.

mod clients;

use std::io::Write;
use std::net::TcpListener;
use std::thread;

use rustix::process::Signal;

use crate::support::egret::{Egret, Settings, listener, roots};
use crate::support::pki::{Pair, Pki};
use crate::support::plain::{End, ask, connect, read_to_end};
use crate::support::postgres::psql;
use crate::support::process::attempt;
use crate::support::redis::Redis;
use crate::support::{eventually, free_port};

const HOST: &str = "db.example.com";

/// egret with a listener `db` to this port, and with this trust, identity and further keys of the upstream.
fn egret(trust: &Pki, client: &Pair, port: u16, keys: &str) -> Egret {
    Egret::start(&sections(trust, client, port, keys))
}

fn sections(trust: &Pki, client: &Pair, port: u16, keys: &str) -> String {
    format!(
        "{}{}[upstreams.db]\nservers = [\"127.0.0.1:{port}\"]\n{keys}\n\
         tls = {{ identity = \"app\", trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
        roots("internal", &trust.root()),
        client.identity("app"),
        listener("db", free_port(), "db"),
    )
}

/// The server's own refusal before TLS is for its client, word for word.
#[test]
fn refusal_of_a_server_before_tls_reaches_its_client_as_it_is() {
    let message = b"E\0\0\0\x34SFATAL\0C53300\0Msorry, too many clients already\0\0";
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((mut tcp, _)) = server.accept() {
            let _ = tcp.write_all(message);
        }
    });
    let pki = Pki::new();
    let egret = egret(&pki, &pki.client("app"), port, "upgrade = \"postgres\"");
    let output = attempt(&mut psql(egret.address("db").port(), "disable", "select 1"));
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(shown.contains("FATAL:  sorry, too many clients already"), "{shown}");
    let start = [&[0, 0, 0, 9, 0, 3, 0, 0][..], b"\0"].concat();
    let (bytes, end) = ask(egret.address("db"), &start);
    assert_eq!((&bytes[..], end), (&message[..], End::Clean));
}

/// Many bytes of a client do not turn the answer into a reset.
#[test]
fn answer_is_not_lost_to_the_bytes_of_a_client_that_goes_on() {
    let pki = Pki::new();
    let egret = egret(&pki, &pki.client("app"), free_port(), "answer = \"redis\"");
    for size in [1, 4096, 500_000] {
        let (bytes, end) = ask(egret.address("db"), &vec![b'x'; size]);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("-ERR egret: ") && text.ends_with("\r\n"), "{size}: {text:?}");
        assert_eq!(end, End::Clean, "{size}");
    }
}

/// A client that neither speaks nor closes is not waited for.
#[test]
fn drain_is_answered_and_not_held_up_by_clients() {
    let pki = Pki::new();
    // Accepts, and never speaks TLS.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings { drain_timeout: "1s", ..Settings::default() };
    let keys = "answer = \"smtp\"\noriginate_timeout = \"60s\"";
    let port = mute.local_addr().unwrap().port();
    let mut egret = Egret::start_with(settings, &sections(&pki, &pki.client("app"), port, keys));
    let mut waiting = connect(egret.address("db"));
    let idle = connect(egret.address("db"));
    eventually("both to be served", || (egret.metrics().sum("egret_connections_active", &[]) == 2.0).then_some(()));
    egret.signal(Signal::TERM);
    let (bytes, end) = read_to_end(&mut waiting);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("421 4.3.0 egret: drained: egret stops"), "{text:?}");
    assert_eq!(end, End::Clean);
    assert_eq!(egret.wait(std::time::Duration::from_secs(30)), Some(0), "{}", egret.log_text());
    drop(idle);
}

#[test]
fn answer_none_is_a_reset_and_so_is_no_answer_at_all() {
    let pki = Pki::new();
    let start = [&[0, 0, 0, 9, 0, 3, 0, 0][..], b"\0"].concat();
    for keys in ["upgrade = \"postgres\"\nanswer = \"none\"", "answer = \"none\"", ""] {
        let egret = egret(&pki, &pki.client("app"), free_port(), keys);
        assert_eq!(ask(egret.address("db"), &start), (Vec::new(), End::Reset), "{keys}");
    }
}

/// After the server's first byte an answer could stand amid a message.
#[test]
fn stream_that_has_begun_ends_by_a_reset() {
    let pki = Pki::new();
    let redis = Redis::start(&pki, &pki.server(&[HOST]));
    let settings = Settings { drain_timeout: "0s", ..Settings::default() };
    let sections = sections(&pki, &pki.client("app"), redis.port, "answer = \"redis\"");
    let egret = Egret::start_with(settings, &sections);
    let mut client = connect(egret.address("db"));
    client.write_all(b"PING\r\n").unwrap();
    let mut pong = [0; 7];
    std::io::Read::read_exact(&mut client, &mut pong).unwrap();
    egret.signal(Signal::TERM);
    assert_eq!((&pong, read_to_end(&mut client)), (b"+PONG\r\n", (Vec::new(), End::Reset)));
}
