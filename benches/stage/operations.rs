//! Operations without I/O on the way of a connection or of a reload.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use egret::classify::postgres::Postgres;
use egret::classify::{Class, Protocol, Step};
use egret::config::values::ListenerKey;
use egret::metrics::Registry;
use egret::snapshot::Snapshot;

use super::credentials::Credentials;
use super::sessions::{ENDPOINT, Sessions};

/// Something that can be done again and again.
pub(crate) type Operation = Box<dyn FnMut()>;

/// A name, and how it is set up.
pub(crate) type Named = (&'static str, fn() -> Operation);

/// Everything that is counted in instructions.
pub(crate) const ALL: [Named; 12] = [
    ("classify_whole", || classify(usize::MAX)),
    ("classify_bytes", || classify(1)),
    ("route_find", find),
    ("snapshot_entry_1", || entry(1)),
    ("snapshot_entry_1000", || entry(1000)),
    ("config_parse_100", || parse(100)),
    ("snapshot_build_100", || build(100)),
    ("snapshot_rebuild_100", || rebuild(100)),
    ("session_take_put_2", || take_and_put(2, ENDPOINT)),
    ("session_take_put_32", || take_and_put(32, ENDPOINT)),
    ("session_take_put_256", || take_and_put(256, ENDPOINT)),
    ("session_of_another_256", || take_and_put(256, "198.51.100.1:443")),
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
        let (mut machine, mut input, mut at) = (Postgres::default(), BytesMut::with_capacity(64), 0);
        loop {
            match machine.step(&mut input) {
                Step::More(wanted) => {
                    let end = at + wanted.min(piece);
                    input.extend_from_slice(&bytes[at..end]);
                    at = end;
                }
                Step::Answer(answer) => drop(black_box(answer)),
                Step::Yes(class) => return drop(black_box(class)),
                Step::No(refusal) => panic!("{refusal:?}"),
            }
        }
    })
}

/// From a listener's routes to the route of a class.
pub(crate) fn find() -> Operation {
    let (snapshot, key) = snapshot(1);
    let routes = snapshot.entry(&key).expect("it is configured").routes.clone();
    let class = Class { protocol: Protocol::Unknown, early: Bytes::new() };
    Box::new(move || {
        black_box(routes.find(black_box(&class)));
    })
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
    match Snapshot::build(config.clone(), previous, registry, None) {
        Ok(snapshot) => snapshot,
        Err(errors) => panic!("{errors:?}"),
    }
}
