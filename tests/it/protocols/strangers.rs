//! Clients that do not speak the protocol of their listener: each reads the class in the listener's protocol, and the log
//! has the class and the repair.

use std::io::{Read, Write};
use std::sync::{Arc, RwLock};

use super::faults::{MODELS, egret};
use crate::support::egret::{Egret, listener, roots};
use crate::support::free_port;
use crate::support::peer::{Peer, accepted, anonymous, echo};
use crate::support::pki::{Pair, Pki};
use crate::support::plain;

const HOST: &str = "server.example.com";

/// A packet with a greeting that offers TLS.
const MYSQL: &[u8] = b"\x51\0\0\0\x0a8.4.0-example\0\x07\0\0\0abcdefgh\0\0\x8a\x2d\x02\0\x08\0\x15\
    \0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0mysql_native_password\0";

const TLS: &str = "downstream_speaks_tls";

/// Each protocol: how an answer in it begins, and the class of clients of other protocols. None: their bytes are for the
/// server, which has spoken first and answers them.
const PROTOCOLS: [(&str, &[u8], Option<&str>); 13] = [
    ("ftp", b"421 egret: ", None),
    ("imap", b"* BYE egret: ", None),
    ("ldap", b"\x30", Some("downstream_not_ldap")),
    ("lmtp", b"421 4.3.0 egret: ", None),
    ("mysql", b"", Some("downstream_not_mysql")),
    ("nntp", b"400 egret: ", None),
    ("pop3", b"-ERR egret: ", None),
    ("postgres", b"E\0\0", Some("downstream_not_postgres")),
    ("postgres-direct", b"E\0\0", Some("downstream_not_postgres")),
    ("sieve", b"BYE \"egret: ", None),
    ("smtp", b"421 4.3.0 egret: ", None),
    ("xmpp", b"<?xml version='1.0'?><stream:stream ", Some("downstream_not_xmpp")),
    ("xmpp-server", b"<?xml version='1.0'?><stream:stream ", Some("downstream_not_xmpp")),
];

/// A server for this protocol that gets as far as TLS, and a listener before it. It says nothing before `may_begin` can be
/// read-locked: the client's bytes are there before the server is.
fn scene(pki: &Pki, server: &Pair, word: &'static str, may_begin: Arc<RwLock<()>>) -> (Peer, Egret) {
    let tls = anonymous(server);
    let wait = move || drop(may_begin.read());
    let peer = match MODELS.iter().find(|model| model.word == word) {
        Some(model) => {
            let answers = model.answers.iter().map(|answer| answer.to_vec()).collect();
            model.server_when(wait, answers, move |tcp| echo(accepted(tcp, &tls)))
        }
        None => Peer::start(move |mut tcp| {
            wait();
            let _ = tcp.write_all(if word == "mysql" { MYSQL } else { b"" });
            let _ = tcp.read(&mut [0; 64]);
        }),
    };
    let egret = egret(pki, word, &peer);
    (peer, egret)
}

/// What a client reads that sends these bytes before the server has spoken.
fn answer(egret: &Egret, first: &[u8], may_begin: &RwLock<()>) -> Vec<u8> {
    let shut = may_begin.write();
    let mut client = plain::connect(egret.address("plain"));
    client.write_all(first).unwrap();
    drop(shut);
    let (bytes, end) = plain::read_to_end(&mut client);
    assert_eq!(end, plain::End::Clean, "{bytes:?}");
    bytes
}

#[test]
fn each_protocol_answers_clients_of_another_one_with_the_class() {
    let pki = Pki::new();
    let server = pki.server(&[HOST]);
    let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 506]].concat();
    let http = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec();
    let random: Vec<u8> = (0..100_u8).map(|at| at.wrapping_mul(151) ^ 0xc5).collect();
    std::thread::scope(|scope| {
        for (word, head, not_spoken) in PROTOCOLS {
            let (pki, server, hello, http, random) = (&pki, &server, &hello, &http, &random);
            scope.spawn(move || {
                let others = not_spoken.map(|class| [(http, class), (random, class)]);
                for (first, class) in [(hello, TLS)].into_iter().chain(others.into_iter().flatten()) {
                    let may_begin = Arc::default();
                    let (_peer, egret) = scene(pki, server, word, Arc::clone(&may_begin));
                    let bytes = answer(&egret, first, &may_begin);
                    let text = String::from_utf8_lossy(&bytes);
                    assert!(bytes.starts_with(head), "{word}, {class}: {text:?}");
                    assert!(text.contains(&format!("egret: {class}: ")), "{word}: {text:?}\n{}", egret.log_text());
                    let line = egret.wait_for_log(class, |line| line["reason"] == class);
                    assert_eq!(line["message"], "client denied", "{word}: {line}");
                    let repair = line["repair"].as_str().unwrap_or_default();
                    let is_right = class != TLS || repair.contains("the client must not");
                    assert!(!repair.is_empty() && is_right, "{word}: {line}");
                }
            });
        }
    });
}

/// Their bytes are commands to a server that has spoken first: it answers them.
#[test]
fn servers_that_speak_first_answer_what_they_do_not_understand() {
    let pki = Pki::new();
    let server = pki.server(&[HOST]);
    for (word, ..) in PROTOCOLS.into_iter().filter(|(word, _, class)| class.is_none() && *word != "sieve") {
        let (_peer, egret) = scene(&pki, &server, word, Arc::default());
        let request = b"GET / HTTP/1.1\r\n\r\n";
        let (bytes, _) = plain::ask_and_finish(egret.address("plain"), request);
        assert!(bytes.ends_with(request), "{word}: the server echoes: {bytes:?}");
    }
}

/// A listener of an upstream with `passthrough` has no protocol of its own; a request for TLS names that of the client.
#[test]
fn request_for_tls_where_tls_is_expected_is_answered_in_the_protocol_of_the_client() {
    let pki = Pki::new();
    let egret = Egret::start(&format!(
        "{}[upstreams.up]\nservers = [\"127.0.0.1:{}\"]\npassthrough = true\n{}",
        roots("internal", &pki.root()),
        free_port(),
        listener("plain", free_port(), "up"),
    ));
    let (bytes, _) = plain::ask(egret.address("plain"), b"\0\0\0\x08\x04\xd2\x16\x2f");
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("E\0\0") && text.contains("egret: downstream_not_tls: "), "{text:?}");
    let (bytes, end) = plain::ask(egret.address("plain"), b"GET / HTTP/1.1\r\n\r\n");
    assert!(bytes.is_empty() && end == plain::End::Reset, "no protocol is known: {bytes:?}");
}
