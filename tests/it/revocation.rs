//! Streams whose server is revoked, or not believed any more, while they flow.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::egret::{Egret, listener};
use crate::support::free_port;
use crate::support::peer::{self, Peer};
use crate::support::pki::{Pair, Pki};
use crate::support::plain::{End, connect, read_to_end};

const HOST: &str = "server.example.com";

/// What a reload does to the trust.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// A list that names this server, or another.
    Revokes(bool),
    /// Another authority comes, and the first leaves or not.
    Roots { leaves: bool },
    /// The expected name is another.
    Names,
}

struct Scene {
    pki: Pki,
    other: Pki,
    pair: Pair,
    stranger: Pair,
    port: u16,
}

impl Scene {
    fn sections(&self, server: &str, closes: bool, change: Option<Change>) -> String {
        let (mut roots, mut more) = (vec![self.pki.root()], String::new());
        match change {
            Some(Change::Revokes(this)) => {
                let list = self.pki.crl(&[if this { &self.pair } else { &self.stranger }]);
                more = format!("crls = [{list:?}]\n");
            }
            Some(Change::Roots { leaves: true }) => roots = vec![self.other.root()],
            Some(Change::Roots { leaves: false }) => roots.push(self.other.root()),
            Some(Change::Names) => more = "names = [\"dns:other.example.com\"]\n".into(),
            None => {}
        }
        format!(
            "[trust.t]\nroots = {roots:?}\n{more}[upstreams.app]\nservers = [{server:?}]\n[upstreams.app.tls]\ntrust = \"t\"\n\
             server_name = {HOST:?}\nclose_on_revocation = {closes}\n{}",
            listener("app", self.port, "app")
        )
    }
}

fn echoes(client: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    client.write_all(b"ping").and_then(|()| client.read_exact(&mut answer)).is_ok()
}

#[test]
fn streams_end_with_the_belief_in_their_server_where_the_option_says_so() {
    for (closes, change, ends) in [
        (true, Change::Revokes(true), true),
        (true, Change::Revokes(false), false),
        (true, Change::Roots { leaves: true }, true),
        (true, Change::Roots { leaves: false }, false),
        (true, Change::Names, true),
        (false, Change::Revokes(true), false),
        (false, Change::Roots { leaves: true }, false),
    ] {
        let what = format!("closes {closes}, {change:?}");
        let (pki, other) = (Pki::new(), Pki::new());
        let (pair, stranger) = (pki.server(&[HOST]), pki.server(&["stranger.example.com"]));
        let server = Peer::echo(peer::anonymous(&pair));
        let scene = Scene { pki, other, pair, stranger, port: free_port() };
        let address = server.address.to_string();
        let egret = Egret::start(&scene.sections(&address, closes, None));
        // One before and one after a reload that changes nothing of the trust.
        let mut streams = vec![connect(egret.address("app"))];
        assert!(echoes(&mut streams[0]), "{what}");
        assert!(egret.reload(), "{what}\n{}", egret.log_text());
        streams.push(connect(egret.address("app")));
        assert!(streams.iter_mut().all(echoes), "{what}");

        egret.rewrite(&scene.sections(&address, closes, Some(change)));
        assert!(egret.reload(), "{what}\n{}", egret.log_text());
        for stream in &mut streams {
            match ends {
                true => assert_eq!(read_to_end(stream), (Vec::new(), End::Reset), "{what}"),
                false => assert!(echoes(stream), "{what}\n{}", egret.log_text()),
            }
        }
        if ends {
            egret.wait_for_log("the end", |line| line["ended"] == "server_distrusted");
            let mut fresh = connect(egret.address("app"));
            assert!(!echoes(&mut fresh), "{what}: a new stream is served");
        }
    }
}
