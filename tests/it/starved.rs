//! What egret lives on runs out: ports, the network, its own bound of connections. Streams in flight are
//! none the worse for it, and when it is there again, so is egret.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::cgroup::Cgroup;
use crate::support::egret::{Egret, Settings, listener, roots};
use crate::support::namespace::Namespace;
use crate::support::peer::{Peer, anonymous};
use crate::support::pki::Pki;
use crate::support::redis::Redis;
use crate::support::{PATIENCE, eventually, free_port, loopback, plain};

const HOST: &str = "server.example.com";

/// egret and a Redis, cut off from everybody but each other and those who know egret's Unix socket.
struct Scene {
    egret: Egret,
    socket: PathBuf,
    _redis: Redis,
    // Its folder holds the sockets.
    _pki: Pki,
    namespace: Arc<Namespace>,
}

impl Scene {
    /// So many connections can be made from egret to the Redis.
    fn with_ports(ports: u16, upstream: &str) -> Self {
        let pki = Pki::new();
        let namespace = Arc::new(Namespace::with_ports(ports));
        let redis = Redis::start_inside(&namespace, &pki, &pki.server(&[HOST]));
        let socket = pki.folder().join("redis.sock");
        let sections = format!(
            "{}{}[upstreams.redis]\nservers = [\"{}\"]\n{upstream}\n\
             tls = {{ identity = \"app\", trust = \"internal\", server_name = \"{HOST}\" }}\n\
             [[listeners]]\nlisten = \"unix:{}\"\nupstream = \"redis\"\n",
            roots("internal", &pki.root()),
            pki.client("app").identity("app"),
            loopback(redis.port),
            socket.display(),
        );
        let settings = Settings { namespace: Some(Arc::clone(&namespace)), ..Settings::default() };
        Self { egret: Egret::start_with(settings, &sections), socket, _redis: redis, _pki: pki, namespace }
    }

    fn connect(&self) -> UnixStream {
        connect(&self.socket)
    }

    fn failures(&self, reason: &[(&str, &str)]) -> f64 {
        self.egret.metrics().sum("egret_origination_failures_total", reason)
    }
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn served(stream: &mut (impl Read + Write)) -> bool {
    let mut answer = [0; 7];
    stream.write_all(b"PING\r\n").and_then(|()| stream.read_exact(&mut answer)).is_ok_and(|()| &answer == b"+PONG\r\n")
}

#[test]
fn clients_beyond_the_last_port_are_refused_by_class_while_streams_go_on_and_it_recovers() {
    const PORTS: u16 = 8;
    const BEYOND: u16 = 5;
    let scene = Scene::with_ports(PORTS, "");
    let floor = scene.egret.descriptors();
    let mut streams: Vec<UnixStream> = (0..PORTS).map(|_| scene.connect()).collect();
    assert!(streams.iter_mut().all(served), "{}", scene.egret.log_text());

    for _ in 0..BEYOND {
        assert!(!served(&mut scene.connect()), "there are more ports than were given");
    }
    let line = scene.egret.wait_for_log("no_ports", |line| line["message"] == "origination failed");
    assert_eq!((line["reason"].as_str(), line["upstream"].as_str()), (Some("no_ports"), Some("redis")), "{line}");
    assert_eq!(scene.failures(&[("reason", "no_ports"), ("upstream", "redis")]), f64::from(BEYOND));
    assert_eq!(scene.failures(&[]), f64::from(BEYOND), "{}", scene.egret.log_text());
    let ended = scene.egret.metrics().sum("egret_streams_ended_total", &[("reason", "no_ports")]);
    assert_eq!(ended, f64::from(BEYOND));
    assert!(streams.iter_mut().all(served), "a stream in flight goes on\n{}", scene.egret.log_text());

    streams.truncate(usize::from(PORTS) / 2);
    // The kernel keeps a port for a while after its connection has ended.
    while streams.len() < usize::from(PORTS) {
        streams.push(eventually("a new client to be served", || {
            let mut late = scene.connect();
            served(&mut late).then_some(late)
        }));
    }
    assert!(streams.iter_mut().all(served), "{}", scene.egret.log_text());
    drop(streams);
    scene.egret.wait_until_idle(floor);
}

/// A server whose machine is gone says nothing, not even that it is gone.
#[test]
fn server_that_vanishes_is_given_up_at_the_idle_timeout_and_served_again_when_it_is_back() {
    let scene = Scene::with_ports(1000, "idle_timeout = \"2s\"\noriginate_timeout = \"2s\"");
    let floor = scene.egret.descriptors();
    let mut streams: Vec<UnixStream> = (0..10).map(|_| scene.connect()).collect();
    assert!(streams.iter_mut().all(served), "{}", scene.egret.log_text());

    scene.namespace.loopback_down();
    for stream in &mut streams {
        assert!(!served(stream), "a packet has come through");
    }
    assert!(!served(&mut scene.connect()));
    scene.egret.wait_for_log("idle_timeout", |line| line["ended"] == "idle_timeout");
    drop(streams);
    scene.egret.wait_until_idle(floor);
    let ended = scene.egret.metrics().sum("egret_streams_ended_total", &[("reason", "idle_timeout")]);
    assert_eq!(ended, 10.0, "{}", scene.egret.log_text());
    assert!(scene.failures(&[]) >= 1.0, "{}", scene.egret.log_text());

    scene.namespace.loopback_up();
    eventually("a new client to be served", || served(&mut scene.connect()).then_some(()));
    scene.egret.wait_until_idle(floor);
}

/// What bounds memory: connections are counted, and each has its share (see the relay's tests).
#[test]
fn clients_beyond_the_bound_of_connections_wait_and_are_served_as_others_leave() {
    const BOUND: usize = 4;
    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let egret = Egret::start(&format!(
        "[limits]\nmax_connections = {BOUND}\n{}[upstreams.echo]\nservers = [\"{}\"]\n\
         tls = {{ trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
        roots("internal", &pki.root()),
        peer.address,
        listener("echo", free_port(), "echo"),
    ));
    let floor = egret.descriptors();
    let address = egret.address("echo");
    let mut streams: Vec<TcpStream> = (0..BOUND).map(|_| plain::connect(address)).collect();
    assert!(streams.iter_mut().all(echoes), "{}", egret.log_text());

    let mut waiting: Vec<TcpStream> = (0..BOUND).map(|_| plain::connect(address)).collect();
    for late in &mut waiting {
        late.write_all(b"ping").unwrap();
        late.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let early = late.read(&mut [0]);
        assert!(early.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "beyond the bound");
    }
    assert_eq!(egret.metrics().sum("egret_connections_active", &[]), BOUND as f64);
    assert!(streams.iter_mut().all(echoes), "a stream in flight goes on\n{}", egret.log_text());

    drop(streams);
    for late in &mut waiting {
        late.set_read_timeout(Some(PATIENCE)).unwrap();
        late.read_exact(&mut [0; 4]).expect("whoever waited is served, and nothing of its data is lost");
    }
    drop(waiting);
    egret.wait_until_idle(floor);
}

/// More clients than there are descriptors for: what is kept back answers the admin endpoint and a reload.
#[test]
fn a_bound_above_the_open_files_is_lowered_and_leaves_room_for_admin_and_reload() {
    for (files, pool) in [(160, ""), (256, ""), (256, "pool = { min_idle = 4, max_idle = 500 }\n")] {
        let pki = Pki::new();
        let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
        let settings = Settings { descriptors: Some(files), ..Settings::default() };
        let egret = Egret::start_with(
            settings,
            &format!(
                "[limits]\nmax_connections = 1000\nmax_warm = 1000\n{}[upstreams.echo]\nservers = [\"{}\"]\n{pool}\
                 tls = {{ trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
                roots("internal", &pki.root()),
                peer.address,
                listener("echo", free_port(), "echo"),
            ),
        );
        let warning = egret.wait_for_log("the bound", |line| line["asked"] == 1000);
        let bound = warning["max_connections"].as_u64().expect("the warning has the bound");
        let status: serde_json::Value = serde_json::from_str(&egret.admin("GET", "/status").body).unwrap();
        assert_eq!(status["max_connections"], bound, "{warning}");
        assert!(bound > 0 && 2 * bound < u64::from(files), "{warning}");

        let address = egret.address("echo");
        let mut crowd: Vec<TcpStream> = (0..files as usize).map(|_| plain::connect(address)).collect();
        assert!(crowd[..bound as usize].iter_mut().all(echoes), "{}", egret.log_text());
        for (method, path) in [("GET", "/status"), ("POST", "/reload"), ("GET", "/metrics")] {
            let answer = egret.admin(method, path);
            assert_eq!(answer.status, 200, "{method} {path} with {files} open files: {}", egret.log_text());
        }
        let errors = egret.metrics().sum("egret_accept_errors_total", &[]);
        assert_eq!(errors, 0.0, "{}", egret.log_text());
        while !crowd.is_empty() {
            let left = crowd.split_off(crowd.len().min(bound as usize));
            assert!(crowd.iter_mut().all(echoes), "whoever waited is served\n{}", egret.log_text());
            crowd = left;
        }
    }
}

const MIB: u64 = 1 << 20;

/// egret with a server that echoes, and a listener in front of it.
fn echoing(settings: Settings, limits: &str) -> (Egret, Peer, Pki) {
    echoing_with(settings, limits, "")
}

/// As [`echoing`], with settings of the listener's own.
fn echoing_with(settings: Settings, limits: &str, own: &str) -> (Egret, Peer, Pki) {
    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let sections = format!(
        "[limits]\n{limits}{}[upstreams.echo]\nservers = [\"{}\"]\n\
         tls = {{ trust = \"internal\", server_name = \"{HOST}\" }}\n{}{own}",
        roots("internal", &pki.root()),
        peer.address,
        listener("echo", free_port(), "echo"),
    );
    (Egret::start_with(settings, &sections), peer, pki)
}

fn bound_of(egret: &Egret) -> u64 {
    let status: serde_json::Value = serde_json::from_str(&egret.admin("GET", "/status").body).unwrap();
    status["max_connections"].as_u64().expect("the status has the bound")
}

/// Half of the limit is the budget, and each connection has its part of it.
#[test]
fn a_limit_of_memory_bounds_connections() {
    let mut bounds = Vec::new();
    for limit in [48 * MIB, 64 * MIB, 256 * MIB] {
        let settings = Settings { cgroup: Some(Arc::new(Cgroup::with_memory(limit))), ..Settings::default() };
        let (egret, _peer, _pki) = echoing(settings, "");
        let line = egret.wait_for_log("the budget", |line| line["message"] == "memory budget");
        assert_eq!((line["limit"].as_u64(), line["budget"].as_u64()), (Some(limit), Some(limit / 2)), "{line}");
        bounds.push(bound_of(&egret));
    }
    assert!(bounds.is_sorted() && bounds[0] >= 190 && bounds[2] > 2 * bounds[1], "{bounds:?}");
}

#[test]
fn a_bound_above_the_memory_is_lowered_and_whoever_is_beyond_it_waits() {
    for (memory, asked) in [("4MiB", 1000), ("8MiB", 500), ("8192KiB", 200)] {
        let limits = format!("max_connections = {asked}\nmemory = \"{memory}\"\n");
        let (egret, _peer, _pki) = echoing(Settings::default(), &limits);
        let warning = egret.wait_for_log("the bound", |line| line["asked"] == asked);
        let bound = usize::try_from(bound_of(&egret)).unwrap();
        assert_eq!(warning["max_connections"], bound, "{warning}");
        assert!((30..asked).contains(&bound), "{memory}: {bound}");
        let address = egret.address("echo");
        let mut crowd: Vec<TcpStream> = (0..bound + 5).map(|_| plain::connect(address)).collect();
        assert!(crowd[..bound].iter_mut().all(echoes), "{}", egret.log_text());
        let mut waiting = crowd.split_off(bound);
        drop(crowd);
        assert!(waiting.iter_mut().all(echoes), "{}", egret.log_text());
    }
}

/// Whoever looks at log or metric learns which of the bounds is reached.
#[test]
fn a_bound_that_is_reached_is_reported_by_what_it_comes_from() {
    let files = |count| Settings { descriptors: Some(count), ..Settings::default() };
    for (settings, limits, own, reason) in [
        (Settings::default(), "memory = \"4MiB\"\n", "", "memory_budget"),
        (Settings::default(), "max_connections = 3\n", "", "max_connections"),
        (Settings::default(), "memory = \"4MiB\"\nmax_connections = 3\n", "", "max_connections"),
        (files(64), "", "", "open_files"),
        (Settings::default(), "memory = \"4MiB\"\n", "max_connections = 2\n", "listener_max_connections"),
    ] {
        let (egret, _peer, _pki) = echoing_with(settings, limits, own);
        let bound = if own.is_empty() { usize::try_from(bound_of(&egret)).unwrap() } else { 2 };
        let mut crowd: Vec<TcpStream> = (0..bound).map(|_| plain::connect(egret.address("echo"))).collect();
        assert!(crowd.iter_mut().all(echoes), "{}", egret.log_text());
        let line = egret.wait_for_log("the wait", |line| line["message"] == "accepting waits");
        assert_eq!((&line["reason"], &line["listener"]), (&reason.into(), &"echo".into()), "{line}");
        let waits = |reason: &[_]| egret.metrics().sum("egret_accept_waits_total", reason);
        assert!(waits(&[("reason", reason)]) > 0.0);
        assert_eq!(waits(&[("reason", reason)]), waits(&[]), "no other bound is reached");
    }
}

/// They are made before any client comes, and have to leave the clients' part alone.
#[test]
fn warm_connections_take_no_more_than_their_part_of_the_budget() {
    let pool = "pool = { min_idle = 100, max_idle = 100 }";
    for (limits, most) in
        [("memory = \"4MiB\"", 16.0), ("memory = \"8MiB\"", 32.0), ("memory = \"8MiB\"\nmax_warm = 5", 5.0)]
    {
        let pki = Pki::new();
        let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
        let tls = format!("tls = {{ trust = \"internal\", server_name = \"{HOST}\" }}");
        let (roots, listener) = (roots("internal", &pki.root()), listener("echo", free_port(), "echo"));
        let upstream = format!("[upstreams.echo]\nservers = [\"{}\"]\n{tls}\n{pool}\n{listener}", peer.address);
        let egret = Egret::start(&format!("[limits]\n{limits}\n{roots}{upstream}"));
        let warm = || egret.metrics().sum("egret_pool_warm", &[]);
        eventually("the pool to be filled", || (warm() >= most).then_some(()));
        assert!(echoes(&mut plain::connect(egret.address("echo"))), "{}", egret.log_text());
        eventually("the pool to be filled again", || (warm() >= most).then_some(()));
        assert_eq!(warm(), most, "{limits}");
    }
}

/// Upstreams fill all the room that there is for sessions, and another finds none.
#[test]
fn a_session_without_room_in_the_budget_is_counted_apart() {
    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let names = ["first", "second", "third", "fourth", "last"];
    let upstreams: String = names
        .iter()
        .map(|name| {
            let tls = format!("tls = {{ trust = \"internal\", server_name = \"{HOST}\" }}");
            let (address, listener) = (peer.address, listener(name, free_port(), name));
            format!("[upstreams.{name}]\nservers = [\"{address}\"]\n{tls}\n{listener}")
        })
        .collect();
    let egret = Egret::start(&format!("[limits]\nmemory = \"4MiB\"\n{}{upstreams}", roots("internal", &pki.root())));
    let sessions = |name, event| egret.metrics().sum("egret_sessions_total", &[("upstream", name), ("event", event)]);
    for name in names {
        eventually("all the room to be taken", || {
            assert!((0..16).all(|_| echoes(&mut plain::connect(egret.address(name)))));
            (sessions(name, "displaced") + sessions(name, "over_budget") > 0.0).then_some(())
        });
    }
    assert!(sessions("last", "over_budget") > 0.0 && sessions("last", "kept") == 0.0, "{}", egret.log_text());
    assert!(names.iter().all(|name| sessions(name, "oversized") == 0.0));
}

/// A control group of version 2 counts the kernel's buffers too. Unbounded, each of these streams takes some 8 MiB.
#[test]
fn slow_readers_in_a_small_container_hold_no_more_of_the_kernels_memory_than_its_part() {
    for (limit, crowd) in [(48 * MIB, 20), (48 * MIB, 250), (64 * MIB, 200), (128 * MIB, 300)] {
        let cgroup = Arc::new(Cgroup::with_memory(limit));
        let settings = Settings { cgroup: Some(Arc::clone(&cgroup)), ..Settings::default() };
        let (egret, _peer, _pki) = echoing(settings, "");
        // They connect and write at once, before any of them is accepted.
        egret.signal(Signal::STOP);
        let mut clients: Vec<TcpStream> = (0..crowd).map(|_| plain::connect(egret.address("echo"))).collect();
        clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
        let data = vec![b'd'; 1 << 20];
        clients.iter_mut().for_each(|client| drop(client.write(&data)));
        egret.signal(Signal::CONT);
        let mut before = 0;
        eventually("every buffer to be full", || {
            let taken: usize = clients.iter_mut().map(|client| client.write(&data).unwrap_or(0)).sum();
            let held = cgroup.sockets();
            // A quarter, and a record for each that was written while its socket had room for less.
            let most = limit / 4 + crowd * (20 << 10);
            assert!(held <= most, "{crowd} streams hold {held} bytes of {limit}");
            (taken == 0 && held > 0 && held == std::mem::replace(&mut before, held)).then_some(())
        });
    }
}

/// Clients that send a lot and read nothing, one that reads a little, and one that only sits there.
#[test]
fn slow_readers_in_a_small_container_are_served_or_wait_and_nothing_is_killed() {
    for (limit, crowd, bytes) in [(48 * MIB, 400, 256 << 10), (64 * MIB, 600, 512 << 10), (64 * MIB, 600, 4096)] {
        let settings = Settings { cgroup: Some(Arc::new(Cgroup::with_memory(limit))), ..Settings::default() };
        let (mut egret, _peer, _pki) = echoing(settings, "");
        let address = egret.address("echo");
        let data = vec![b'd'; bytes];
        let mut clients = Vec::new();
        for _ in 0..crowd {
            let mut client = plain::connect(address);
            client.set_nonblocking(true).unwrap();
            // As much as the kernel takes: what does not fit waits with the client.
            let _ = client.write(&data);
            clients.push(client);
        }
        assert_eq!(egret.wait(Duration::from_secs(2)), None, "killed with {crowd} slow readers in {limit} bytes");
        drop(clients);
        eventually("another client to be served", || echoes(&mut plain::connect(address)).then_some(()));
    }
}

fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 4];
    stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut back)).is_ok_and(|()| &back == b"ping")
}
