//! Servers that refuse, disturb, or are none, as models: the same classes for each protocol.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::egret::{Egret, listener, roots};
use crate::support::free_port;
use crate::support::peer::{Peer, accepted, anonymous, echo};
use crate::support::pki::Pki;
use crate::support::plain::{self, End};

const HOST: &str = "server.example.com";

/// A protocol: what its server says until it agrees to TLS, one answer for each request. A server that speaks first has one
/// answer more than there are requests.
pub(super) struct Model {
    pub(super) word: &'static str,
    speaks_first: bool,
    pub(super) answers: &'static [&'static [u8]],
    /// The client's first bytes, if it speaks first.
    opening: &'static [u8],
    /// An answer in place of the last one that declines, and one that is an error.
    declines: &'static [u8],
    fails: &'static [u8],
}

const FEATURES: &[u8] = b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'><stream:features><starttls/></stream:features>";

/// An anonymous bind with the message id 1, and how a stream begins.
const BIND: &[u8] = b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00";
const HEADER: &[u8] = b"<?xml version='1.0'?><stream:stream to='example.com'>";

pub(super) const MODELS: [Model; 10] = [
    Model {
        word: "smtp",
        speaks_first: true,
        opening: b"",
        answers: &[b"220 mail.example.com ESMTP\r\n", b"250-mail.example.com\r\n250 STARTTLS\r\n", b"220 go\r\n"],
        declines: b"502 not here\r\n",
        fails: b"454 4.7.0 not available\r\n",
    },
    Model {
        word: "lmtp",
        speaks_first: true,
        opening: b"",
        answers: &[b"220 mail.example.com LMTP\r\n", b"250-mail.example.com\r\n250 STARTTLS\r\n", b"220 go\r\n"],
        declines: b"502 not here\r\n",
        fails: b"454 4.7.0 not available\r\n",
    },
    Model {
        word: "imap",
        speaks_first: true,
        opening: b"",
        answers: &[b"* OK ready\r\n", b"S0 OK go\r\n"],
        declines: b"S0 BAD not available\r\n",
        fails: b"* BYE not available\r\n",
    },
    Model {
        word: "pop3",
        speaks_first: true,
        opening: b"",
        answers: &[b"+OK ready\r\n", b"+OK go\r\n"],
        declines: b"-ERR not available\r\n",
        fails: b"-ERR [SYS/TEMP] not available\r\n",
    },
    Model {
        word: "sieve",
        speaks_first: true,
        opening: b"",
        answers: &[b"\"STARTTLS\"\r\nOK\r\n", b"OK\r\n"],
        declines: b"NO \"not available\"\r\n",
        fails: b"BYE \"not available\"\r\n",
    },
    Model {
        word: "nntp",
        speaks_first: true,
        opening: b"",
        answers: &[b"200 ready\r\n", b"382 go\r\n"],
        declines: b"580 not available\r\n",
        fails: b"400 not available\r\n",
    },
    Model {
        word: "ftp",
        speaks_first: true,
        opening: b"",
        answers: &[b"220 FTP ready\r\n", b"234 go\r\n"],
        declines: b"534 not available\r\n",
        fails: b"431 not available\r\n",
    },
    Model {
        word: "ldap",
        speaks_first: false,
        opening: BIND,
        answers: &[b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"],
        declines: b"\x30\x19\x02\x01\x01\x78\x14\x0a\x01\x02\x04\x00\x04\x0dnot available",
        fails: b"\x30\x19\x02\x01\x01\x78\x14\x0a\x01\x34\x04\x00\x04\x0dnot available",
    },
    Model {
        word: "xmpp",
        speaks_first: false,
        opening: HEADER,
        answers: &[FEATURES, b"<proceed/>"],
        declines: b"<failure/>",
        fails: b"<stream:error><not-available/></stream:error>",
    },
    Model {
        word: "xmpp-server",
        speaks_first: false,
        opening: HEADER,
        answers: &[FEATURES, b"<proceed/>"],
        declines: b"<failure/>",
        fails: b"<stream:error><not-available/></stream:error>",
    },
];

impl Model {
    /// The answers with this one in place of the last.
    fn ending(&self, last: &[u8]) -> Vec<Vec<u8>> {
        let mut answers: Vec<Vec<u8>> = self.answers.iter().map(|answer| answer.to_vec()).collect();
        *answers.last_mut().expect("at least one answer") = last.to_vec();
        answers
    }

    /// A server that gives these answers, and then what `then` does.
    fn server(&self, answers: Vec<Vec<u8>>, then: impl Fn(std::net::TcpStream) + Send + Sync + 'static) -> Peer {
        self.server_when(|| (), answers, then)
    }

    /// The same, which begins when `wait` returns.
    pub(super) fn server_when(
        &self,
        wait: impl Fn() + Send + Sync + 'static,
        answers: Vec<Vec<u8>>,
        then: impl Fn(std::net::TcpStream) + Send + Sync + 'static,
    ) -> Peer {
        let speaks_first = self.speaks_first;
        Peer::start(move |mut tcp| {
            wait();
            for (at, answer) in answers.iter().enumerate() {
                let asks = (at == 0 && speaks_first) || tcp.read(&mut [0; 4096]).is_ok_and(|length| length > 0);
                if !asks || tcp.write_all(answer).is_err() {
                    return;
                }
            }
            then(tcp);
        })
    }
}

pub(super) fn egret(pki: &Pki, word: &str, peer: &Peer) -> Egret {
    Egret::start(&format!(
        "{}[upstreams.up]\nservers = [\"{}\"]\nupgrade = {word:?}\n\
         tls = {{ trust = \"internal\", server_name = \"{HOST}\" }}\noriginate_timeout = \"2s\"\n{}",
        roots("internal", &pki.root()),
        peer.address,
        listener("plain", free_port(), "up"),
    ))
}

/// The server keeps the connection and waits for its client.
fn stay(mut tcp: std::net::TcpStream) {
    let _ = tcp.set_read_timeout(Some(Duration::from_secs(30)));
    let _ = tcp.read_to_end(&mut Vec::new());
}

#[test]
fn each_fault_of_a_server_has_its_class_in_every_protocol() {
    let pki = Pki::new();
    std::thread::scope(|scope| {
        for model in &MODELS {
            let pki = &pki;
            scope.spawn(move || faults_of(model, pki));
        }
    });
}

fn faults_of(model: &Model, pki: &Pki) {
    let agreed = model.answers.last().expect("at least one answer");
    let not_of_it = if model.word == "pop3" { &b"* OK x\r\n"[..] } else { b"+OK x\r\n" };
    for (last, class) in [
        (model.declines.to_vec(), "upgrade_refused"),
        (model.fails.to_vec(), "upgrade_error"),
        ([agreed, &b"injected\r\n"[..]].concat(), "upgrade_plaintext_injection"),
        (not_of_it.to_vec(), "upgrade_not_the_protocol"),
        (agreed[..agreed.len() - 1].to_vec(), "upgrade_timeout"),
    ] {
        let peer = model.server(model.ending(&last), stay);
        let egret = egret(pki, model.word, &peer);
        let (bytes, _) = plain::ask(egret.address("plain"), model.opening);
        let read = String::from_utf8_lossy(&bytes).into_owned();
        let is_own_refusal = class == "upgrade_error" && model.speaks_first;
        match is_own_refusal {
            true => assert_eq!(bytes, model.fails, "{}: the server's own words", model.word),
            false => assert!(read.contains(&format!("egret: {class}: ")), "{}: {read}", model.word),
        }
        let line = egret.wait_for_log(class, |line| !line["reason"].is_null());
        assert_eq!(line["reason"], class, "{}: {line}", model.word);
        let text = line.to_string();
        let shows_refusal = text.contains("available") || text.contains("<failure/>") || text.contains("not here");
        assert_eq!(shows_refusal, [model.declines, model.fails].contains(&&last[..]), "{}: {line}", model.word);
    }
    let peer = model.server(model.ending(b""), drop);
    let egret = egret(pki, model.word, &peer);
    plain::ask(egret.address("plain"), model.opening);
    egret.wait_for_log("upgrade_closed", |line| line["reason"] == "upgrade_closed");
}

/// Nothing of the client is in the plaintext, and nothing of the plaintext is in the stream but the greeting.
#[test]
fn bytes_of_a_hasty_client_reach_the_server_inside_tls_only() {
    let pki = Pki::new();
    let tls = anonymous(&pki.server(&[HOST]));
    for model in &MODELS {
        let tls = tls.clone();
        let answers = model.answers.iter().map(|answer| answer.to_vec()).collect();
        let peer = model.server(answers, move |tcp| echo(accepted(tcp, &tls)));
        let egret = egret(&pki, model.word, &peer);
        let early = [model.opening, b"early bytes\r\n"].concat();
        let (bytes, end) = plain::ask_and_finish(egret.address("plain"), &early);
        let shows_greeting = model.speaks_first && model.word != "sieve";
        let greeting = if shows_greeting { model.answers[0] } else { b"" };
        assert_eq!(bytes, [greeting, &early].concat(), "{}: {}", model.word, egret.log_text());
        assert_eq!(end, End::Clean, "{}", model.word);
    }
}

#[test]
fn explain_looks_behind_the_upgrade_of_every_protocol() {
    let pki = Pki::new();
    let root = pki.root().display().to_string();
    let other = anonymous(&pki.server(&["other.example.com"]));
    let right = anonymous(&pki.server(&[HOST]));
    for model in &MODELS {
        for (tls, code, shown) in [(&right, 0, "TLSv1.3"), (&other, 3, "certificate_name_mismatch")] {
            let tls = tls.clone();
            let answers = model.answers.iter().map(|answer| answer.to_vec()).collect();
            let peer = model.server(answers, move |tcp| echo(accepted(tcp, &tls)));
            let address = peer.address.to_string();
            let (exit, text) = crate::support::egret::egret(&[
                "explain",
                &address,
                "--upgrade",
                model.word,
                "--server-name",
                HOST,
                "--ca",
                &root,
                "--json",
            ]);
            assert!(exit == code && text.contains(shown), "{}: {exit}\n{text}", model.word);
        }
    }
}
