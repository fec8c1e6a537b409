use std::process::Command;

use super::{Example, python, python_command, served};
use crate::support::pki::{Pair, Pki};
use crate::support::process::{attempt, run};
use crate::support::vsftpd::{CONTENT, Vsftpd};

const HOST: &str = "ftp.example.com";

/// Passive mode names the server's address: the client reaches it directly.
const FTP: &str = "\
import ftplib, io, sys
ftp = ftplib.FTP(timeout=30)
print(ftp.connect('127.0.0.1', int(sys.argv[1])))
print(ftp.login('anonymous', 'any'), ftp.pwd())
ftp.trust_server_pasv_ipv4_address = True
print(ftp.nlst())
file = io.BytesIO()
ftp.retrbinary('RETR file', file.write)
print(file.getvalue())
ftp.quit()
";

/// Asks for protected data and lists without TLS.
const PROTECTED: &str = "\
import ftplib, sys
ftp = ftplib.FTP(timeout=10)
ftp.connect('127.0.0.1', int(sys.argv[1]))
ftp.login('anonymous', 'any')
ftp.sendcmd('PBSZ 0')
ftp.sendcmd('PROT P')
print(ftp.nlst())
";

fn ftp(pki: &Pki, client: &Pair, port: u16) -> Example {
    Example::read("ftp.toml")
        .files("ftp", client, "ftp-ca", pki)
        .server("ftp.example.com:21", port)
        .listener("127.0.0.1:2121")
}

#[test]
fn an_ftp_client_without_tls_reaches_a_server_that_demands_a_certificate() {
    let pki = Pki::new();
    let vsftpd = Vsftpd::start(&pki, &pki.server(&[HOST]));
    let client = pki.client("app");
    let ours = digest(&client);
    for pooled in [false, true] {
        let egret = ftp(&pki, &client, vsftpd.port).pooled(pooled).start();
        let text = python(FTP, &[&egret.address("ftp").port().to_string()]);
        served(&egret, "ftp", pooled);
        assert!(text.starts_with("220 (vsFTPd") && text.contains("['file']"), "{text}");
        assert!(text.contains(&format!("{CONTENT:?}").replace('"', "'")), "{text}");
    }
    let log = vsftpd.log();
    let judged: Vec<&str> = log.lines().filter_map(|line| line.split("Cert digest: ").nth(1)).collect();
    assert!(judged.len() >= 2 && judged.iter().all(|digest| digest.trim_end_matches('"') == ours), "{ours}\n{log}");
}

/// The digest of a certificate as vsftpd logs it: SHA-256, in decimal numbers.
fn digest(pair: &Pair) -> String {
    let text =
        run(Command::new("openssl").args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&pair.certificate));
    let (_, digits) = text.trim().split_once('=').expect("a name and a digest");
    let bytes = digits.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap().to_string());
    bytes.collect::<Vec<_>>().join(" ")
}

/// A client without TLS cannot protect its data connections, and extended passive mode names no address: whatever needs
/// either fails at the client, by an answer of the server or a refused connection, and no data travels.
#[test]
fn what_ftp_cannot_do_through_egret_fails_at_the_client_and_is_noted_by_check() {
    let pki = Pki::new();
    let vsftpd = Vsftpd::start(&pki, &pki.server(&[HOST]));
    let example = ftp(&pki, &pki.client("app"), vsftpd.port);
    let egret = example.start();
    let port = egret.address("ftp").port().to_string();
    let protected = attempt(&mut python_command(PROTECTED, &[&port]));
    assert!(
        !protected.status.success() && !String::from_utf8_lossy(&protected.stdout).contains("file"),
        "{protected:?}"
    );
    let (_, checked) = crate::support::egret::egret(&["check", &egret.config().display().to_string()]);
    assert!(checked.contains("note[upgrade-limits]"), "{checked}");
}
