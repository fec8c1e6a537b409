//! A model of MySQL 8, for the authentication methods that MariaDB does not have: real clients against it, through egret.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ServerConfig;

use super::{HOST, egret_with, error_of};
use crate::support::go::go_mysql;
use crate::support::mariadb::{mariadb, python};
use crate::support::peer::{Peer, accepted, mutual};
use crate::support::pki::Pki;
use crate::support::process::run;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// `caching_sha2_password`; the server knows the digest of the password.
    CachingFast,
    /// The server has to see the password.
    CachingFull,
    /// `sha256_password`, which is not the method of the greeting.
    Sha256,
}

const SCRAMBLE: &[u8; 20] = b"abcdefghijklmnopqrst";
/// All but TLS's own: CONNECT_WITH_DB, PROTOCOL_41, SSL, SECURE_CONNECTION, PLUGIN_AUTH, CONNECT_ATTRS and what every
/// server has.
const CAPABILITIES: u32 = 0x00ff_ffdf;

fn greeting(plugin: &str) -> Vec<u8> {
    let [a, b, c, d] = CAPABILITIES.to_le_bytes();
    let head = [&b"\x0a8.4.0\0\x07\0\0\0"[..], &SCRAMBLE[..8], &[0, a, b, 45, 2, 0, c, d, 21], &[0; 10]].concat();
    [&head, &SCRAMBLE[8..], b"\0", plugin.as_bytes(), b"\0"].concat()
}

fn send(stream: &mut impl Write, sequence: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    stream.write_all(&[&length[..3], &[sequence], payload].concat())?;
    stream.flush()
}

fn receive(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let mut payload = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
    stream.read_exact(&mut payload)?;
    Ok((head[3], payload))
}

const OK: &[u8] = b"\0\0\0\x02\0\0\0";

/// One session; the password is `secret`.
fn serve(mut tcp: TcpStream, config: &Arc<ServerConfig>, method: Method) -> io::Result<()> {
    let plugin = if method == Method::Sha256 { "mysql_native_password" } else { "caching_sha2_password" };
    send(&mut tcp, 0, &greeting(plugin))?;
    let (_, request) = receive(&mut tcp)?;
    assert_eq!(request.len(), 32, "a request for TLS");
    let mut tls = accepted(tcp, config);
    let (mut sequence, response) = receive(&mut tls)?;
    assert!(sequence == 2 && response[..32] == request[..], "the answer begins as the request");
    let challenge = match method {
        Method::CachingFast => b"\x01\x03".to_vec(),
        Method::CachingFull => b"\x01\x04".to_vec(),
        Method::Sha256 => [&b"\xfesha256_password\0"[..], SCRAMBLE, b"\0"].concat(),
    };
    sequence += 1;
    send(&mut tls, sequence, &challenge)?;
    if method != Method::CachingFast {
        let (answered, password) = receive(&mut tls)?;
        assert_eq!(answered, sequence + 1);
        sequence = answered;
        if password != b"secret\0" {
            return send(&mut tls, sequence + 1, b"\xff\x15\x04#28000Access denied by the model");
        }
    }
    send(&mut tls, sequence + 1, OK)?;
    // Whatever a client asks, until it quits.
    while let Ok((_, command)) = receive(&mut tls) {
        if command.first() == Some(&1) {
            return Ok(());
        }
        send(&mut tls, 1, OK)?;
    }
    Ok(())
}

const LOG_IN: &str = r#"
import os, sys, pymysql, mysql.connector
port, password = int(os.environ['PORT']), PASSWORD
def log_in(name):
    if name == 'pymysql':
        return pymysql.connect(host='127.0.0.1', port=port, user='app', password=password)
    return mysql.connector.connect(host='127.0.0.1', port=port, user='app', password=password, ssl_disabled=True,
                                   use_pure=name == 'pure')
for name in NAMES:
    try:
        log_in(name).close()
        print(name, 'in')
    except (pymysql.Error, mysql.connector.Error) as error:
        print(name, error)
"#;

#[test]
fn passwords_that_clients_encrypt_reach_the_server() {
    let pki = Pki::new();
    let config = mutual(&pki.server(&[HOST]), &pki);
    for method in [Method::CachingFast, Method::CachingFull, Method::Sha256] {
        let config = Arc::clone(&config);
        let peer = Peer::start(move |tcp| {
            // Clients may leave at any time.
            let _ = serve(tcp, &config, method);
        });
        let egret = egret_with(&pki, &pki.client("app"), &[peer.address.port()], "");
        let port = egret.address("db").port();
        // The connector in Python alone wants TLS for `sha256_password`.
        let names = if method == Method::Sha256 { "['pymysql', 'c']" } else { "['pymysql', 'c', 'pure']" };
        let log_in =
            |password: &str| run(&mut python(port, &LOG_IN.replace("PASSWORD", password).replace("NAMES", names)));
        let right = log_in("'secret'");
        assert!(right.lines().all(|line| line.ends_with(" in")), "{method:?}: {right}\n{}", egret.log_text());
        run(&mut mariadb(port, "app", &["--execute=do 1"]));
        assert_eq!(run(&mut go_mysql(port, "app", "secret", &[])).trim(), "in", "{method:?}: {}", egret.log_text());
        if method != Method::CachingFast {
            let wrong = log_in("'wrong'");
            assert!(wrong.lines().all(|line| line.contains("Access denied by the model")), "{method:?}: {wrong}");
            for mut client in
                [mariadb(port, "app", &["--password=wrong", "--execute=do 1"]), go_mysql(port, "app", "wrong", &[])]
            {
                let wrong = error_of(&mut client);
                assert!(wrong.contains("Access denied by the model"), "{method:?}: {wrong}");
            }
        }
    }
}
