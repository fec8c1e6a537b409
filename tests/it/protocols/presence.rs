use super::{Example, python, served};
use crate::support::pki::{Leaf, Pki};
use crate::support::prosody::Prosody;

const DOMAIN: &str = "example.com";

/// Opens a stream as this namespace, and prints the server's header and features.
const OPEN: &str = "\
import socket, sys
port, namespace, sender = sys.argv[1:]
s = socket.create_connection(('127.0.0.1', int(port)), 30)
s.sendall(f\"<?xml version='1.0'?><stream:stream to='example.com' from='{sender}' version='1.0' \\
xmlns='{namespace}' xmlns:stream='http://etherx.jabber.org/streams'>\".encode())
text = b''
while b'</stream:features>' not in text and b'</stream:stream>' not in text:
    more = s.recv(4096)
    assert more, text
    text += more
print(text.decode())
";

fn chat(pki: &Pki, port: u16) -> Example {
    let names = ["bot.example.com"];
    let client = pki.issue("bot", &Leaf { common_name: names[0], names: &names, valid: (-1, 90) });
    Example::read("xmpp.toml")
        .files("bot", &client, "chat-ca", pki)
        .server("_xmpp-client._tcp.example.com", port)
        .listener("127.0.0.1:5222")
}

#[test]
fn an_xmpp_client_without_tls_reaches_a_server_that_demands_a_certificate() {
    let pki = Pki::new();
    let prosody = Prosody::start(&pki, &pki.server(&[DOMAIN]), DOMAIN);
    for pooled in [false, true] {
        let egret = chat(&pki, prosody.clients).pooled(pooled).start();
        let port = egret.address("xmpp").port().to_string();
        let features = python(OPEN, &[&port, "jabber:client", "bot@example.com"]);
        served(&egret, "xmpp", pooled);
        // Inside TLS: without it Prosody offers starttls and no mechanism.
        assert!(features.contains("<mechanism>") && !features.contains("starttls"), "{features}");
    }
}

/// Between servers Prosody offers EXTERNAL only to a certificate of the domain that the stream is from.
#[test]
fn an_xmpp_server_without_tls_is_known_by_the_certificate_of_egret() {
    let pki = Pki::new();
    let prosody = Prosody::start(&pki, &pki.server(&[DOMAIN]), DOMAIN);
    for pooled in [false, true] {
        let egret = chat(&pki, prosody.servers).with("\"xmpp\"\ntls", "\"xmpp-server\"\ntls").pooled(pooled).start();
        let port = egret.address("xmpp").port().to_string();
        let features = python(OPEN, &[&port, "jabber:server", "bot.example.com"]);
        served(&egret, "xmpp", pooled);
        assert!(features.contains("<mechanism>EXTERNAL</mechanism>"), "{features}");
        let other = python(OPEN, &[&port, "jabber:server", "other.example.com"]);
        assert!(!other.contains("EXTERNAL"), "{other}");
    }
}
