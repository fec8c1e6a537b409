//! Questions above TLS: what the answers show of the client certificate, and what they do not.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::stage::{Explained, HOST, explain};
use crate::support::egret::egret;
use crate::support::nginx::{Nginx, certauth, tls};
use crate::support::peer::{Peer, anonymous};
use crate::support::pki::{Pair, Pki};
use crate::support::postgres::Postgres;
use crate::support::{free_port, loopback};

/// `egret explain` with a question, as somebody or nobody.
fn ask(pki: &Pki, address: SocketAddr, identity: Option<&Pair>, question: &[&str]) -> Explained {
    let (address, root) = (address.to_string(), pki.root().display().to_string());
    let mut arguments = vec![address, "--server-name".into(), HOST.into(), "--ca".into(), root];
    for (flag, file) in identity.iter().flat_map(|own| [("--cert", &own.certificate), ("--key", &own.key)]) {
        arguments.extend([flag.to_owned(), file.display().to_string()]);
    }
    arguments.extend(question.iter().map(ToString::to_string));
    explain(&arguments)
}

const GET: [&str; 2] = ["--http-get", "/health"];

#[test]
fn an_answer_of_http_shows_whether_the_client_certificate_is_accepted() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let pair = pki.server(&[HOST]);
    let (client, foreign) = (pki.client("app"), stranger.client("app"));
    let mut blocks = String::new();
    let mut ports = Vec::new();
    let mut site = |verify: &str, protocols: &str| {
        let port = free_port();
        ports.push(port);
        let tls = tls(&pair, &pki.root(), protocols);
        blocks += &format!(
            "server {{ listen 127.0.0.1:{port} ssl; {tls} ssl_verify_client {verify}; return 200 $host$request_uri; }}\n"
        );
        loopback(port)
    };
    let (strict12, strict13) = (site("on", "TLSv1.2"), site("on", "TLSv1.3"));
    let (optional, never) = (site("optional", "TLSv1.2 TLSv1.3"), site("off", "TLSv1.2 TLSv1.3"));
    let judging = free_port();
    ports.push(judging);
    blocks += &certauth(judging, "", HOST, "TLSv1.2 TLSv1.3", &pair, &pki);
    let judging = loopback(judging);
    let _nginx = Nginx::start(&blocks, &ports);
    let (yes, no, unknown) = (Value::Bool(true), Value::Bool(false), Value::Null);
    let (wants, refuses) = ("client_certificate_required_in_answer", "client_certificate_rejected_in_answer");
    let (required, rejected) = ("client_certificate_required", "client_certificate_rejected");
    for (what, address, identity, accepted, cause, class) in [
        ("TLS 1.2, the right one", strict12, Some(&client), &yes, "nothing", ""),
        ("TLS 1.3, the right one", strict13, Some(&client), &yes, "nothing", ""),
        ("TLS 1.2, a stranger's", strict12, Some(&foreign), &no, refuses, rejected),
        ("TLS 1.3, a stranger's", strict13, Some(&foreign), &no, refuses, rejected),
        ("TLS 1.3, none", strict13, None, &unknown, wants, required),
        ("optional, the right one: the same answer without", optional, Some(&client), &unknown, "nothing", ""),
        ("never asked for", never, Some(&client), &unknown, "nothing", ""),
        ("403 without", judging, Some(&client), &yes, "nothing", ""),
        ("403 and nothing said", judging, None, &unknown, "nothing", ""),
    ] {
        let explained = ask(&pki, address, identity, &GET);
        let exchange = &explained.report["exchange"];
        assert_eq!((explained.cause(), &exchange["accepted"]), (cause, accepted), "{what}\n{}", explained.text());
        assert_eq!(explained.code, if cause == "nothing" { 0 } else { 3 }, "{what}\n{}", explained.text());
        assert_eq!(exchange["sent"], "GET /health HTTP/1.1", "{what}");
        if cause != "nothing" {
            assert_eq!(explained.report["causes"][0]["reason"], class, "{what}");
            assert!(explained.report["repair"]["egret"].is_string(), "{what}\n{}", explained.text());
        }
    }
    let explained = ask(&pki, strict13, Some(&foreign), &GET);
    let answer = explained.report["exchange"]["answer"].as_str().unwrap();
    assert_eq!(answer, "HTTP/1.1 400 Bad Request: The SSL certificate error");
    assert!(explained.notes().contains(&"client_certificate_issuer_not_listed"), "{}", explained.text());
}

#[test]
fn an_answer_of_postgres_shows_whether_the_client_certificate_is_accepted() {
    let pki = Pki::new();
    let server = Postgres::start(&pki, &pki.server(&[HOST]));
    let (app, other) = (pki.client("app"), pki.client("other"));
    let question = ["--upgrade", "postgres", "--postgres-user", "app"];
    for (what, identity, accepted, cause) in [
        ("the user's own", Some(&app), Value::Bool(true), "nothing"),
        ("another user's", Some(&other), Value::Bool(false), "client_certificate_rejected_in_answer"),
        ("none", None, Value::Null, "client_certificate_required_in_answer"),
    ] {
        let explained = ask(&pki, loopback(server.port), identity, &question);
        let exchange = &explained.report["exchange"];
        assert_eq!((explained.cause(), &exchange["accepted"]), (cause, &accepted), "{what}\n{}", explained.text());
        assert_eq!(exchange["protocol"], "postgres", "{what}");
    }
}

#[test]
fn a_question_is_one_request_whose_answer_is_bounded_and_shown_escaped() {
    let pki = Pki::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    let sent = Arc::new(AtomicUsize::new(0));
    let sending = Arc::clone(&sent);
    let endless = Peer::start_tls(anonymous(&pki.server(&[HOST])), move |mut tls| {
        let mut request = [0; 1_024];
        let Ok(length @ 1..) = tls.read(&mut request) else { return };
        hearing.lock().unwrap().push(String::from_utf8_lossy(&request[..length]).into_owned());
        let mut page = b"HTTP/1.1 200 \x1b[31m\xe2\x80\xaeOK\r\n\r\n".to_vec();
        page.resize(1 << 10, b'.');
        while tls.write_all(&page).is_ok() && sending.fetch_add(page.len(), Ordering::Relaxed) < 64 << 20 {}
    });
    let explained = ask(&pki, endless.address, None, &GET);
    assert_eq!(explained.code, 0, "{}", explained.text());
    let answer = explained.report["exchange"]["answer"].as_str().unwrap();
    assert_eq!(answer, "HTTP/1.1 200 \\u{1b}[31m\\u{202e}OK");
    assert!(sent.load(Ordering::Relaxed) < 16 << 20, "the answer is not read without a bound");
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 1, "{heard:?}");
    let port = endless.address.port();
    assert!(heard[0].starts_with(&format!("GET /health HTTP/1.1\r\nHost: {HOST}:{port}\r\n")), "{heard:?}");
    let silent = Peer::start_tls(anonymous(&pki.server(&[HOST])), |mut tls| drop(tls.read_to_end(&mut Vec::new())));
    let explained = ask(&pki, silent.address, None, &["--http-get", "/", "--timeout", "700ms"]);
    assert_eq!((explained.code, &explained.report["exchange"]["answer"]), (0, &Value::Null), "{}", explained.text());
}

#[test]
fn a_question_that_cannot_be_asked_is_refused_before_anything_is_sent() {
    let asked = |arguments: &[&str]| egret(&[&["explain", "127.0.0.1:1"], arguments].concat());
    for (arguments, words) in [
        (&["--http-get", "health"][..], "begins with `/`"),
        (&["--http-get", "/a b"], "visible ASCII"),
        (&["--http-get", "/", "--postgres-user", "app"], "cannot be used with"),
        (&["--http-get", "/", "--upgrade", "postgres"], "--postgres-user"),
        (&["--postgres-user", "app"], "--upgrade postgres"),
        (&["--postgres-user", "", "--upgrade", "postgres"], "1 to 63 bytes"),
    ] {
        let (code, text) = asked(arguments);
        assert_eq!(code, 2, "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
}
