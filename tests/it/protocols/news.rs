use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use rustls::pki_types::CertificateDer;

use super::{Example, python, served};
use crate::support::peer::{Peer, accepted, chain, mutual};
use crate::support::pki::Pki;

const HOST: &str = "news.example.com";

const NNTP: &str = "\
import nntplib, sys
news = nntplib.NNTP('127.0.0.1', int(sys.argv[1]), timeout=30)
print(news.getwelcome())
print(news.date()[0])
print(news.quit())
";

/// Reads a line byte by byte, so that nothing of TLS is read.
fn line(tcp: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && tcp.read_exact(&mut byte).is_ok() {
        line.extend(byte);
    }
    String::from_utf8_lossy(&line).into_owned()
}

/// A model of a news server: Debian has none that is small and speaks STARTTLS.
#[test]
fn a_newsreader_without_tls_reaches_a_server_that_demands_a_certificate() {
    let pki = Pki::new();
    let tls = mutual(&pki.server(&[HOST]), &pki);
    let client = pki.client("app");
    let seen = Arc::new(Mutex::new(Vec::<CertificateDer<'static>>::new()));
    let leaves = Arc::clone(&seen);
    let server = Peer::start(move |mut tcp| {
        let _ = tcp.write_all(b"201 news.example.com ready (no posting)\r\n");
        if line(&mut tcp) != "STARTTLS\r\n" || tcp.write_all(b"382 Continue with TLS negotiation\r\n").is_err() {
            return;
        }
        let mut lines = BufReader::new(accepted(tcp, &tls));
        let mut command = String::new();
        while {
            command.clear();
            lines.read_line(&mut command).is_ok_and(|length| length > 0)
        } {
            leaves.lock().unwrap().extend(lines.get_ref().conn.peer_certificates().unwrap()[..1].iter().cloned());
            let answer = match command.trim_end() {
                "CAPABILITIES" => "101 list\r\nVERSION 2\r\nREADER\r\n.\r\n",
                "DATE" => "111 20260101000000\r\n",
                "QUIT" => "205 bye\r\n",
                _ => "500 what\r\n",
            };
            if lines.get_mut().write_all(answer.as_bytes()).and_then(|()| lines.get_mut().flush()).is_err() {
                return;
            }
        }
    });
    for pooled in [false, true] {
        let egret = Example::read("news.toml")
            .files("reader", &client, "news-ca", &pki)
            .server("news.example.com:119", server.address.port())
            .listener("127.0.0.1:1119")
            .pooled(pooled)
            .start();
        let text = python(NNTP, &[&egret.address("news").port().to_string()]);
        served(&egret, "news", pooled);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            ["201 news.example.com ready (no posting)", "111 20260101000000", "205 bye"]
        );
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() >= 4 && seen.iter().all(|leaf| *leaf == chain(&client)[0]), "the identity is the example's");
}
