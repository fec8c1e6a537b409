use std::process::Command;

use super::{Example, python, python_command, served};
use crate::support::dovecot::Dovecot;
use crate::support::egret::{Egret, binary};
use crate::support::pki::Pki;
use crate::support::postfix::Postfix;
use crate::support::process::attempt;
use crate::support::{eventually, free_port};

const HOST: &str = "mail.example.com";

/// The second EHLO of a client would show STARTTLS if the server had not got TLS.
const SMTP: &str = "\
import smtplib, sys
mail = smtplib.SMTP('127.0.0.1', int(sys.argv[1]), timeout=30)
code, text = mail.ehlo('client.example.com')
assert code == 250 and not mail.has_extn('starttls'), text
print(mail.sendmail('a@example.com', ['b@example.com'], 'Subject: test\\r\\n\\r\\nbody\\r\\n'))
mail.quit()
";

const IMAP: &str = "\
import imaplib, sys
mail = imaplib.IMAP4('127.0.0.1', int(sys.argv[1]), timeout=30)
print(mail.welcome.decode())
assert 'STARTTLS' not in mail.capabilities and 'AUTH=EXTERNAL' in mail.capabilities, mail.capabilities
print(mail.authenticate('EXTERNAL', lambda _: b''))
print(mail.append('INBOX', None, None, b'Subject: test\\r\\n\\r\\n' + b'x' * 300000))
print(mail.select(), mail.fetch('1', '(RFC822.SIZE)'))
mail.logout()
";

const POP3: &str = "\
import poplib, sys
mail = poplib.POP3('127.0.0.1', int(sys.argv[1]), timeout=30)
print(mail.getwelcome().decode())
assert 'STLS' not in mail.capa(), mail.capa()
mail.user('anybody')
print(mail.pass_('any').decode(), mail.stat())
mail.quit()
";

/// Prints what the server announces first, logs in by the certificate, and stores a script.
const SIEVE: &str = "\
import base64, socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 30)
f = s.makefile('rwb')
def answer():
    lines = []
    while True:
        lines.append(f.readline().decode().rstrip())
        if not lines[-1] or lines[-1].split(' ')[0] in ('OK', 'NO', 'BYE'):
            return lines
def ask(text):
    f.write(text.encode() + b'\\r\\n'); f.flush()
    return answer()
print(answer())
print(ask('AUTHENTICATE \"EXTERNAL\" \"\"'))
print(ask('PUTSCRIPT \"a\" {5+}\\r\\nkeep;'))
print(ask('LISTSCRIPTS'))
print(ask('LOGOUT'))
";

fn mail(pki: &Pki, postfix: u16, dovecot: &Dovecot) -> Example {
    Example::read("mail.toml")
        .files("mail", &pki.client("app"), "mail-ca", pki)
        .server("mail.example.com:587", postfix)
        .server("mail.example.com:143", dovecot.imap)
        .server("mail.example.com:110", dovecot.pop3)
        .server("mail.example.com:4190", dovecot.sieve)
        .listener("127.0.0.1:1587")
        .listener("127.0.0.1:1143")
        .listener("127.0.0.1:1110")
        .listener("127.0.0.1:1419")
}

#[test]
fn mail_programs_without_tls_reach_servers_that_demand_a_certificate() {
    let pki = Pki::new();
    let server = pki.server(&[HOST]);
    let postfix = Postfix::start(&pki, &server, "encrypt");
    let dovecot = Dovecot::start(&pki, &server);
    for (messages, pooled) in [(1, false), (2, true)] {
        let egret = mail(&pki, postfix.port, &dovecot).pooled(pooled).start();
        let ask = |listener: &str, program: &str| {
            let text = python(program, &[&egret.address(listener).port().to_string()]);
            served(&egret, listener, pooled);
            text
        };
        assert_eq!(ask("smtp", SMTP).trim(), "{}", "no recipient is refused");
        let imap = ask("imap", IMAP);
        assert!(imap.starts_with("* OK Dovecot"), "without its capabilities: {imap}");
        assert!(imap.contains("Logged in") && imap.contains("RFC822.SIZE 300017"), "{imap}");
        let pop3 = ask("pop3", POP3);
        assert!(pop3.starts_with("+OK Dovecot") && pop3.contains(&format!("Logged in. ({messages}, ")), "{pop3}");
        let sieve = ask("sieve", SIEVE);
        assert!(sieve.starts_with("['\"IMPLEMENTATION\"") && !sieve.contains("STARTTLS"), "{sieve}");
        assert!(sieve.contains("EXTERNAL") && sieve.contains("PUTSCRIPT completed"), "{sieve}");
    }
    let log = postfix.log();
    assert_eq!(log.matches("subject_CN=app,").count(), log.matches("subject_CN=").count(), "{log}");
    assert!(log.contains("subject_CN=app,") && log.contains("Trusted TLS connection established"), "{log}");
    eventually("every log-in under the name of the certificate", || {
        let log = dovecot.log();
        let by_certificate = log.matches("Login: user=<app>").count();
        (by_certificate >= 6 && by_certificate == log.matches("Login: user=").count()).then_some(())
    });
}

/// A server greets before its certificate is verified: the client sees nothing of it, and the server nothing of the client.
#[test]
fn mail_servers_that_are_not_trusted_get_no_byte_of_the_client() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let foreign = Postfix::start(&stranger, &stranger.server(&[HOST]), "may");
    let named_otherwise = Postfix::start(&pki, &pki.server(&["other.example.com"]), "may");
    let off = Postfix::start(&pki, &pki.server(&[HOST]), "none");
    let dovecot = Dovecot::start(&pki, &pki.server(&[HOST]));
    for (port, class) in [
        (foreign.port, "certificate_unknown_issuer"),
        (named_otherwise.port, "certificate_name_mismatch"),
        (off.port, "upgrade_refused"),
        (free_port(), "connect_refused"),
    ] {
        let egret = mail(&pki, port, &dovecot).start();
        let (bytes, _) = crate::support::plain::ask(egret.address("smtp"), b"EHLO client.example.com\r\n");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains("220 ") && !text.contains("250"), "{class}: {text}");
        egret.wait_for_log(class, |line| line["reason"] == class);
    }
    for (server, log) in [("foreign", foreign.log()), ("named otherwise", named_otherwise.log()), ("off", off.log())] {
        assert!(!log.contains("client.example.com"), "{server}: {log}");
    }
}

/// The certificate is of another authority: Postfix judges it behind the handshake, and its answer reaches the client.
#[test]
fn mail_server_that_refuses_the_certificate_takes_no_mail() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let postfix = Postfix::start(&pki, &pki.server(&[HOST]), "encrypt");
    let egret = Example::read("mail.toml")
        .files("mail", &stranger.client("app"), "mail-ca", &pki)
        .server("mail.example.com:587", postfix.port)
        .listener("127.0.0.1:1587")
        .listener("127.0.0.1:1143")
        .listener("127.0.0.1:1110")
        .listener("127.0.0.1:1419")
        .start();
    let refused = attempt(&mut python_command(SMTP, &[&egret.address("smtp").port().to_string()]));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("Client certificate not trusted"), "{text}");
    assert!(!postfix.log().contains("client="), "no mail is taken:\n{}", postfix.log());
}

/// What stunnel's configuration says of its protocols is what egret does.
#[test]
fn stunnels_configuration_of_mail_runs_after_the_import() {
    let pki = Pki::new();
    let server = pki.server(&[HOST]);
    let client = pki.client("app");
    let postfix = Postfix::start(&pki, &server, "encrypt");
    let dovecot = Dovecot::start(&pki, &server);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stunnel.conf");
    let mut text = format!(
        "client = yes\ncert = {}\nkey = {}\nCAfile = {}\nverifyChain = yes\ncheckHost = {HOST}\nsni = {HOST}\n",
        client.certificate.display(),
        client.key.display(),
        pki.root().display(),
    );
    let listeners = [free_port(), free_port(), free_port()];
    let services = [("smtp", postfix.port), ("imap", dovecot.imap), ("pop3", dovecot.pop3)];
    for ((name, port), listen) in services.into_iter().zip(listeners) {
        text += &format!("[{name}]\naccept = 127.0.0.1:{listen}\nconnect = 127.0.0.1:{port}\nprotocol = {name}\n");
    }
    std::fs::write(&file, text).unwrap();
    let imported = attempt(Command::new(binary()).args(["import", "stunnel"]).arg(&file));
    let config = String::from_utf8(imported.stdout).unwrap();
    let _egret = Egret::start(&config);
    for (listener, program) in listeners.into_iter().zip([SMTP, IMAP, POP3]) {
        python(program, &[&listener.to_string()]);
    }
    assert!(postfix.log().contains("subject_CN=app,") && dovecot.log().contains("Login: user=<app>"));
}

const LMTP: &str = "\
import smtplib, sys
mail = smtplib.LMTP('127.0.0.1', int(sys.argv[1]))
code, text = mail.ehlo('client.example.com')
assert code == 250 and not mail.has_extn('starttls'), text
print(mail.sendmail('a@example.com', ['b@example.com'], 'Subject: test\\r\\n\\r\\nbody\\r\\n'))
mail.quit()
";

#[test]
fn mail_is_delivered_over_lmtp_with_tls() {
    let pki = Pki::new();
    let dovecot = Dovecot::start(&pki, &pki.server(&[HOST]));
    for pooled in [false, true] {
        let example = mail(&pki, free_port(), &dovecot).with("upgrade = \"pop3\"", "upgrade = \"lmtp\"");
        let example = example.with(&format!("127.0.0.1:{}", dovecot.pop3), &format!("127.0.0.1:{}", dovecot.lmtp));
        let example = if pooled { example.with("\"lmtp\"", "\"lmtp\"\npool = { min_idle = 1 }") } else { example };
        let egret = example.start();
        let refused = python(LMTP, &[&egret.address("pop3").port().to_string()]);
        assert_eq!(refused.trim(), "{}", "no recipient is refused\n{}", dovecot.log());
        served(&egret, "pop3", pooled);
    }
}
