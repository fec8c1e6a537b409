use std::process::Command;

use super::{Example, python, served};
use crate::support::free_port;
use crate::support::pki::Pki;
use crate::support::process::{attempt, run};
use crate::support::slapd::Slapd;

const HOST: &str = "ldap.example.com";

/// SASL EXTERNAL (RFC 4422 appendix A), then "Who am I?" (RFC 4532): what the server made of the certificate.
const WHO_AM_I: &str = "\
import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 30)
s.sendall(bytes.fromhex('30180201016013020103 0400a30c0408') + b'EXTERNAL' + b'\\x04\\x00')
print(s.recv(4096))
s.sendall(b'\\x30\\x1e\\x02\\x01\\x02\\x77\\x19\\x80\\x171.3.6.1.4.1.4203.1.11.3')
print(s.recv(4096))
";

/// The example with a listener on TCP, so that any client can be used.
fn directory(pki: &Pki, port: u16) -> Example {
    Example::read("ldap.toml")
        .files("app", &pki.client("app"), "directory-ca", pki)
        .with(", \"ldap-replica.example.com:389\"", "")
        .server("ldap.example.com:389", port)
        .with("mode = \"0660\"\nallow_users = [\"app\"]\n", "")
        .with("unix:/run/egret/ldap.sock", &format!("127.0.0.1:{}", free_port()))
}

fn ldap(tool: &str, url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool);
    command.args(["-x", "-H", url, "-o", "nettimeout=30"]).args(arguments);
    command
}

#[test]
fn ldap_tools_without_tls_reach_a_directory_that_demands_a_certificate() {
    let pki = Pki::new();
    let slapd = Slapd::start(&pki, &pki.server(&[HOST]));
    let direct = attempt(&mut ldap("ldapwhoami", &format!("ldap://127.0.0.1:{}", slapd.port), &[]));
    assert_eq!(direct.status.code(), Some(13), "without egret confidentiality is required: {direct:?}");
    for pooled in [false, true] {
        let egret = directory(&pki, slapd.port).pooled(pooled).start();
        let port = egret.address("ldap").port();
        let url = format!("ldap://127.0.0.1:{port}");
        let who = python(WHO_AM_I, &[&port.to_string()]);
        assert!(who.contains("dn:uid=app,dc=example,dc=com"), "{who}\n{}", slapd.log());
        served(&egret, "ldap", pooled);
        assert_eq!(run(&mut ldap("ldapwhoami", &url, &[])).trim(), "anonymous");
        let admin = ["-D", "cn=admin,dc=example,dc=com", "-w", "secret"];
        assert_eq!(run(&mut ldap("ldapwhoami", &url, &admin)).trim(), "dn:cn=admin,dc=example,dc=com");
        let wrong = attempt(&mut ldap("ldapwhoami", &url, &["-D", "cn=admin,dc=example,dc=com", "-w", "wrong"]));
        assert_eq!(wrong.status.code(), Some(49), "the directory's own refusal reaches the client: {wrong:?}");
        let search = ["-b", "cn=subschema", "-s", "base", "+"];
        assert!(run(&mut ldap("ldapsearch", &url, &search)).contains("attributeTypes:"));
    }
}

/// What a client gets that asks for TLS itself is the server's answer, since it has TLS already.
#[test]
fn starttls_inside_tls_is_answered_by_the_directory() {
    let pki = Pki::new();
    let slapd = Slapd::start(&pki, &pki.server(&[HOST]));
    let egret = directory(&pki, slapd.port).start();
    let url = format!("ldap://127.0.0.1:{}", egret.address("ldap").port());
    let asked = attempt(&mut ldap("ldapwhoami", &url, &["-ZZ"]));
    let text = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(asked.status.code() == Some(1) && text.contains("TLS already started"), "{text}");
}

#[test]
fn directory_without_tls_is_refused_with_its_own_text() {
    let pki = Pki::new();
    let slapd = Slapd::without_tls();
    let egret = directory(&pki, slapd.port).start();
    let url = format!("ldap://127.0.0.1:{}", egret.address("ldap").port());
    assert!(!attempt(&mut ldap("ldapwhoami", &url, &[])).status.success());
    let line = egret.wait_for_log("upgrade_refused", |line| line["reason"] == "upgrade_refused");
    assert!(line.to_string().contains("unsupported extended operation (result code 2)"), "{line}");
    assert!(!slapd.log().contains("BIND"), "no byte of the client reached the server:\n{}", slapd.log());
}
