//! The store of sessions under load, and its account. The server is the judge; its sessions are good for one handshake
//! each, so a store that hands one out twice, or loses what it took, is found out.

use std::net::SocketAddr;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::authority::{Ca, Leaf, Wish};
use crate::support::egret::{Egret, listener, roots};
use crate::support::tls_server::{Clients, Seen, Setup, TLS13, TlsServer};
use crate::support::{eventually, free_port};

/// An egret before one server that asks for certificates.
struct World {
    folder: TempDir,
    clients: Ca,
    server: TlsServer,
    egret: Egret,
    port: u16,
}

impl World {
    async fn start(tickets: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let (ca, clients) = (Ca::new("servers"), Ca::new("clients"));
        std::fs::write(folder.path().join("ca.pem"), &ca.pem).unwrap();
        let setup = Setup { versions: TLS13, clients: Clients::Required(&clients), tickets, ..Setup::default() };
        let server = TlsServer::start(&ca.leaf(&Wish::default()), setup).await;
        write(&clients, "alice", folder.path());
        let port = free_port();
        let egret = Egret::start(&sections(folder.path(), server.address(), port));
        Self { folder, clients, server, egret, port }
    }

    /// A whole connection through egret: what the server saw.
    async fn visit(address: SocketAddr) -> Seen {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let seen = Seen::read(&mut stream).await.unwrap();
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
        seen
    }

    fn event(&self, event: &str) -> f64 {
        self.egret.metrics().sum("egret_sessions_total", &[("upstream", "app"), ("event", event)])
    }

    fn held(&self) -> f64 {
        self.egret.metrics().sum("egret_sessions", &[("upstream", "app")])
    }
}

fn write(clients: &Ca, cn: &str, folder: &Path) -> CertificateDer<'static> {
    let leaf: Leaf = clients.leaf(&Wish { cn, ..Wish::default() });
    leaf.write(folder, "client");
    leaf.chain[0].clone()
}

fn sections(folder: &Path, server: SocketAddr, port: u16) -> String {
    let identity = format!(
        "[identities.app]\ncertificate = {:?}\nprivate_key = {:?}\n",
        folder.join("client.crt"),
        folder.join("client.key")
    );
    let tls = "tls = { identity = \"app\", trust = \"internal\", server_name = \"localhost\" }";
    let upstream = format!("[upstreams.app]\nservers = [\"{server}\"]\n{tls}\n");
    roots("internal", &folder.join("ca.pem")) + &identity + &upstream + &listener("app", port, "app")
}

/// One session for each connection is the least that a server can give: then a store that loses one is short of one
/// for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_at_once_resume() {
    const CLIENTS: usize = 64;
    const VISITS: usize = 30;
    for tickets in [1, 2] {
        let world = World::start(tickets).await;
        let address = world.egret.address("app");
        let clients = (0..CLIENTS).map(|_| {
            tokio::spawn(async move {
                let mut resumed = 0;
                for _ in 0..VISITS {
                    let seen = World::visit(address).await;
                    assert_eq!(seen.client.as_deref(), Some("alice"));
                    resumed += usize::from(seen.resumed);
                }
                resumed
            })
        });
        let mut resumed = 0;
        for client in clients.collect::<Vec<_>>() {
            resumed += client.await.unwrap();
        }
        let share = resumed as f64 / (CLIENTS * VISITS) as f64;
        assert!(share >= 0.95, "with {tickets} for each connection, {share} were resumed");
        let accepted = world.event("accepted");
        assert_eq!(accepted, resumed as f64, "both sides count the same");
        assert_eq!(world.event("offered"), accepted + world.event("refused"));
        assert_eq!(world.event("refused"), 0.0, "a session was offered twice");
        let ratio = world.egret.metrics().sum("egret_resumption_ratio", &[("upstream", "app")]);
        assert!(ratio > 0.9, "{ratio}");
        let gone = world.event("offered") + world.event("displaced") + world.event("expired");
        assert_eq!(world.held(), world.event("kept") - gone, "the account is closed");
    }
}

/// Each finds a ClientHello that was made ahead, with a session of the store, unless the server gives only one for each
/// connection: then the session is left for a client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_one_by_one_resume_each_time_and_find_their_hello_made() {
    const VISITS: usize = 12;
    for tickets in [0, 1, 2] {
        let world = World::start(tickets).await;
        let address = world.egret.address("app");
        let ahead = |result| world.egret.metrics().sum("egret_handshakes_ahead_total", &[("result", result)]);
        for visit in 0..VISITS {
            let seen = World::visit(address).await;
            assert_eq!((seen.resumed, seen.client.as_deref()), (tickets > 0 && visit > 0, Some("alice")));
            idle(&world.egret);
        }
        let expected = if tickets == 1 { 0 } else { VISITS - 1 };
        assert_eq!((ahead("sent"), ahead("dropped")), (expected as f64, 0.0), "with {tickets} for each connection");
        assert_eq!(world.event("refused"), 0.0, "a session was offered twice");
        assert_eq!(world.held(), world.event("kept") - world.event("offered"), "the account is closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hellos_made_ahead_are_sixteen_at_most_however_many_upstreams_there_are() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::new("servers");
    std::fs::write(folder.path().join("ca.pem"), &ca.pem).unwrap();
    let server = TlsServer::start(&ca.leaf(&Wish::default()), Setup { versions: TLS13, ..Setup::default() }).await;
    let names: Vec<_> = (0..20).map(|number| format!("app{number}")).collect();
    let upstreams: String = names
        .iter()
        .map(|name| {
            let tls = "tls = { trust = \"internal\", server_name = \"localhost\" }";
            let listener = listener(name, free_port(), name);
            format!("[upstreams.{name}]\nservers = [\"{}\"]\n{tls}\n{listener}", server.address())
        })
        .collect();
    let configuration = roots("internal", &folder.path().join("ca.pem")) + &upstreams;
    // On a machine that is slow enough, some wait too long for their client: then it says nothing.
    for _ in 0..5 {
        let egret = Egret::start(&configuration);
        for name in names.iter().chain(&names) {
            World::visit(egret.address(name)).await;
            idle(&egret);
        }
        let ahead = |result| egret.metrics().sum("egret_handshakes_ahead_total", &[("result", result)]);
        if ahead("dropped") == 0.0 {
            return assert_eq!(ahead("sent"), 16.0);
        }
    }
    panic!("twenty connections take longer than a hello waits");
}

/// Every stream has ended.
fn idle(egret: &Egret) {
    eventually("the streams to end", || (egret.metrics().sum("egret_connections_active", &[]) == 0.0).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_an_identity_that_was_rotated_are_dropped_and_counted() {
    let world = World::start(4).await;
    let address = world.egret.address("app");
    World::visit(address).await;
    let again = World::visit(address).await;
    assert_eq!((again.resumed, again.client.as_deref()), (true, Some("alice")));
    let held = world.held();
    assert!(held > 0.0);

    write(&world.clients, "bob", world.folder.path());
    assert!(world.egret.reload());
    assert_eq!((world.held(), world.event("foreign")), (0.0, held));
    let rotated = World::visit(address).await;
    assert_eq!((rotated.resumed, rotated.client.as_deref()), (false, Some("bob")));
    assert_eq!(world.event("no_session"), 2.0);

    // A reload in which nothing of the origin is new keeps its sessions.
    let held = world.held();
    let text = sections(world.folder.path(), world.server.address(), world.port);
    world.egret.rewrite(&(text + "[limits]\nmax_connections = 100\n"));
    assert!(world.egret.reload());
    assert_eq!(world.held(), held);
    assert!(World::visit(address).await.resumed);
}
