//! Operations without I/O on the way of a connection or of a reload.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use egret::config::values::{ListenerKey, Name, NamePattern, Rule};
use egret::control::snapshot::{self, Rigour, Snapshot};
use egret::observe::metrics::Registry;
use egret::pipeline::classify::hello::{ClientHello, Hello};
use egret::pipeline::classify::{Class, Protocol};
use egret::pipeline::originate::pool::shelf::{Bounds, Shelf};
use egret::pipeline::route::ByHello;
use egret::protocols::exchange::{Exchange, Step};
use egret::protocols::postgres::Client;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::credentials::Credentials;
use super::sessions::{ENDPOINT, Sessions};
use super::tls;

/// Something that can be done again and again.
pub(crate) type Operation = Box<dyn FnMut()>;

/// A name, and how it is set up.
pub(crate) type Named = (&'static str, fn() -> Operation);

/// Everything that is counted in instructions.
pub(crate) const ALL: [Named; 26] = [
    ("classify_whole", || classify(usize::MAX)),
    ("classify_bytes", || classify(1)),
    ("classify_hello_whole", || classify_hello(usize::MAX)),
    ("classify_hello_bytes", || classify_hello(1)),
    ("route_find", find),
    ("route_find_by_name_10", || find_by_name(10)),
    ("route_find_by_name_1000", || find_by_name(1000)),
    ("route_hello_1000", || route_hello(1000)),
    ("snapshot_load_1000", || load(1000)),
    ("snapshot_entry_1", || entry(1)),
    ("snapshot_entry_1000", || entry(1000)),
    ("config_parse_100", || parse(100)),
    ("snapshot_build_100", || build(100)),
    ("snapshot_rebuild_100", || rebuild(100)),
    ("session_take_put_2", || take_and_put(2, ENDPOINT)),
    ("session_take_put_32", || take_and_put(32, ENDPOINT)),
    ("session_take_put_256", || take_and_put(256, ENDPOINT)),
    ("session_of_another_256", || take_and_put(256, "198.51.100.1:443")),
    ("shelf_take_put_2", || shelf_take_and_put(2)),
    ("shelf_take_put_256", || shelf_take_and_put(256)),
    ("chain_hit", tls::chain_hit),
    ("chain_miss", tls::chain_miss),
    ("record_seal_64", || tls::seal(64)),
    ("record_seal_open_64", || tls::seal_and_open(64)),
    ("record_seal_16384", || tls::seal(16_384)),
    ("record_seal_open_16384", || tls::seal_and_open(16_384)),
];

/// libpq's start with its default settings: it asks for GSSAPI, then for TLS, then gives up on both.
fn startup() -> Vec<u8> {
    let request = |code: u32| [8u32.to_be_bytes(), code.to_be_bytes()].concat();
    let said = b"user\0app\0database\0app\0application_name\0psql\0\0";
    let length = 8 + said.len() as u32;
    let session = [&length.to_be_bytes(), &(3u32 << 16).to_be_bytes(), &said[..]].concat();
    [request((1234 << 16) | 5680), request((1234 << 16) | 5679), session].concat()
}

/// A PostgreSQL client's start that arrives `piece` bytes at a time, but never more than was asked for.
pub(crate) fn classify(piece: usize) -> Operation {
    let bytes = startup();
    Box::new(move || {
        let mut client = Client::default();
        let mut input = BytesMut::with_capacity(64);
        let mut at = 0;
        loop {
            match client.step(&mut input) {
                Step::Read(wanted) => {
                    let end = at + wanted.min(piece);
                    input.extend_from_slice(&bytes[at..end]);
                    at = end;
                }
                Step::Send(answer) => drop(black_box(answer)),
                Step::Done(early) => return drop(black_box(early)),
                other => panic!("{other:?}"),
            }
        }
    })
}

/// From a listener's routes to the route of a class.
pub(crate) fn find() -> Operation {
    let (snapshot, key) = snapshot(1);
    let routes = snapshot.entry(&key).expect("it is configured").routes.clone();
    let class = Class { protocol: Protocol::Plaintext, early: Bytes::new() };
    Box::new(move || {
        let _ = black_box(routes.find(black_box(&class)));
    })
}

/// From a ClientHello to its route, where so many exact names and as many wildcards are. The worst case: a name of
/// six labels for which only the shortest wildcard is.
pub(crate) fn find_by_name(rules: usize) -> Operation {
    let rules = by_hello(rules, None);
    let server_name = Some("a.b.c.below-0.example.com".into());
    let hello = ClientHello { server_name, alpn: vec![b"h2"[..].into(), b"http/1.1"[..].into()] };
    assert!(rules.find(&hello).is_some());
    Box::new(move || {
        black_box(rules.find(black_box(&hello)));
    })
}

/// From the bytes of a whole ClientHello to its route, the default one: what a listener does for a connection whose
/// TLS it passes on.
pub(crate) fn route_hello(rules: usize) -> Operation {
    let (bytes, rules) = (client_hello(), by_hello(rules, Some(Name::new("b"))));
    let mut input = BytesMut::new();
    Box::new(move || {
        input.extend_from_slice(&bytes);
        let Step::Done((hello, _)) = Hello::default().step(&mut input) else { panic!("the hello is whole") };
        black_box(rules.find(&hello)).expect("there is a default");
        input.clear();
    })
}

fn by_hello(rules: usize, default: Option<Name>) -> ByHello<Name> {
    let rule = |at: usize| Rule {
        server_names: vec![
            NamePattern::Exactly(format!("exact-{at}.example.com")),
            NamePattern::Below(format!("below-{at}.example.com")),
        ],
        alpn: Vec::new(),
        upstream: Name::new("a"),
    };
    ByHello::new(&(0..rules).map(rule).collect::<Vec<_>>(), Name::clone, default)
}

/// A ClientHello that rustls makes, with the post-quantum key share it sends by default.
fn client_hello() -> Vec<u8> {
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = "db.example.com".try_into().expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a configuration that fits");
    let mut hello = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut hello).expect("a vector takes everything");
    }
    hello
}

/// A ClientHello that arrives `piece` bytes at a time.
pub(crate) fn classify_hello(piece: usize) -> Operation {
    let bytes = client_hello();
    Box::new(move || {
        let (mut machine, mut input) = (Hello::default(), BytesMut::with_capacity(2048));
        let mut pieces = bytes.chunks(piece);
        loop {
            match machine.step(&mut input) {
                Step::Read(_) => input.extend_from_slice(pieces.next().expect("it is whole")),
                Step::Done(found) => return drop(black_box(found)),
                other => panic!("{other:?}"),
            }
        }
    })
}

/// What a listener does for each connection: the running generation, and its own part of it.
pub(crate) fn load(listeners: usize) -> Operation {
    let (snapshot, key) = snapshot(listeners);
    let running = ArcSwap::from_pointee(snapshot);
    Box::new(move || drop(black_box(running.load().entry(black_box(&key)))))
}

/// From a generation of so many listeners to what one of them needs.
pub(crate) fn entry(listeners: usize) -> Operation {
    let (snapshot, key) = snapshot(listeners);
    Box::new(move || drop(black_box(snapshot.entry(black_box(&key)))))
}

/// From text to values.
pub(crate) fn parse(listeners: usize) -> Operation {
    let credentials = Credentials::new();
    let text = credentials.text(listeners);
    Box::new(move || drop(black_box(credentials.loaded(&text))))
}

/// From values to a first generation.
pub(crate) fn build(listeners: usize) -> Operation {
    let credentials = Credentials::new();
    let (config, registry) = (credentials.config(listeners), Registry::new());
    Box::new(move || drop(black_box(made(&credentials, &config, None, &registry))))
}

/// From values to the next generation in which nothing is new.
pub(crate) fn rebuild(listeners: usize) -> Operation {
    let credentials = Credentials::new();
    let (config, registry) = (credentials.config(listeners), Registry::new());
    let before = made(&credentials, &config, None, &registry);
    Box::new(move || drop(black_box(made(&credentials, &config, Some(&before), &registry))))
}

/// A connection to `endpoint`, where the store holds so many sessions of [`ENDPOINT`].
pub(crate) fn take_and_put(held: usize, endpoint: &str) -> Operation {
    let (sessions, endpoint) = (Sessions::new(held), endpoint.parse().expect("an address"));
    Box::new(move || sessions.take_and_put(endpoint))
}

/// A new stream takes what is ready, and another is made ready; the shelf holds so many. What lies on it is a number:
/// a shelf looks at nothing of what it holds.
pub(crate) fn shelf_take_and_put(held: usize) -> Operation {
    let (shelf, now) = (Arc::new(Shelf::default()), Instant::now());
    drop(shelf.bound(Bounds { most: held, everywhere: Arc::new(Semaphore::new(held)) }));
    let (endpoint, until) = (ENDPOINT.parse().expect("an address"), now + Duration::from_secs(3600));
    let put = move |shelf: &Arc<Shelf<usize>>, item| {
        shelf.reserve().expect("room").put(endpoint, item, until).expect("an open shelf");
    };
    (0..held).for_each(|item| put(&shelf, item));
    Box::new(move || {
        let taken = black_box(shelf.take(endpoint, now)).expect("one is there");
        put(&shelf, taken);
    })
}

fn snapshot(listeners: usize) -> (Snapshot, ListenerKey) {
    let credentials = Credentials::new();
    let config = credentials.config(listeners);
    let key = config.listeners[listeners / 2].key();
    (made(&credentials, &config, None, &Registry::new()), key)
}

/// The files are read, so their folder has to be there.
fn made(
    _files: &Credentials,
    config: &egret::config::values::Config,
    previous: Option<&Snapshot>,
    registry: &Registry,
) -> Snapshot {
    match Snapshot::build(config.clone(), previous, registry, None, Rigour::PartByPart, &snapshot::always()) {
        Ok(snapshot) => snapshot,
        Err(errors) => panic!("{errors:?}"),
    }
}
