//! Options of TCP sockets, read back from the sockets themselves; and where the threads run.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use egret::config::values::{ListenAddress, Tcp};
use egret::net::{Options, Role, Socket, Stream};
use egret::pipeline::originate::dial::dial_before;
use rustix::net::sockopt;
use socket2::{Protocol, SockRef};

use crate::failures::HOST;
use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{Egret, Settings, listener, roots};
use crate::support::namespace::Namespace;
use crate::support::openssl::OpensslServer;
use crate::support::pki::Pki;
use crate::support::plain;
use crate::support::process::run;

/// What a socket has.
#[derive(Debug, PartialEq)]
struct Found {
    no_delay: bool,
    /// Silence, and time between probes, in seconds.
    keepalive: Option<(u64, u64)>,
    user_timeout_ms: u32,
    congestion: String,
}

impl Found {
    fn on(socket: impl AsFd) -> Self {
        let seconds = |duration: rustix::io::Result<Duration>| duration.unwrap().as_secs();
        let keepalive = sockopt::socket_keepalive(&socket).unwrap();
        let times = || (seconds(sockopt::tcp_keepidle(&socket)), seconds(sockopt::tcp_keepintvl(&socket)));
        Self {
            no_delay: sockopt::tcp_nodelay(&socket).unwrap(),
            keepalive: keepalive.then(times),
            user_timeout_ms: sockopt::tcp_user_timeout(&socket).unwrap_or_default(),
            congestion: sockopt::tcp_congestion(&socket).unwrap(),
        }
    }
}

fn bind(options: &Options) -> (Socket, SocketAddr) {
    let socket = Socket::bind(&ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 0).into()), options).unwrap();
    let address = socket.tcp_address().unwrap();
    (socket, address)
}

/// Both ends of a connection: the dialed one, and the accepted one.
async fn connect(from: &Options, to: &Socket) -> (tokio::net::TcpStream, tokio::net::TcpStream) {
    let addresses = [to.tcp_address().unwrap()];
    let (dialed, accepted) = tokio::join!(dial_before(&addresses, from, None), to.accept());
    let (Stream::Tcp(accepted), _) = accepted.unwrap() else { panic!("not TCP") };
    (dialed.unwrap().0, accepted)
}

/// Every kernel has reno; where it is the default, it says nothing, but the other options do.
fn unusual() -> Tcp {
    let (keepalive, user_timeout) = (Some(Duration::from_secs(20)), Some(Duration::from_millis(4321)));
    Tcp { keepalive, user_timeout, congestion: Some("reno".to_owned()), ..Tcp::default() }
}

fn found_of_unusual() -> Found {
    Found { no_delay: true, keepalive: Some((20, 5)), user_timeout_ms: 4321, congestion: "reno".to_owned() }
}

#[tokio::test]
async fn accepted_connections_inherit_the_options_of_the_listener_and_dialed_ones_are_given_theirs() {
    for multipath in [false, true] {
        let asked = Tcp { multipath, ..unusual() };
        let (listen, missing) = Options::of(&asked, Role::Listen);
        // Linux 6.18 has no user timeout for multipath sockets.
        let lacks = |option| missing.iter().any(|missing| missing.option == option);
        assert!(multipath || missing.is_empty(), "{missing:?}");
        let user_timeout_ms = if lacks("user_timeout") { 0 } else { 4321 };
        let (dial, _) = Options::of(&asked, Role::Connect);
        let (listener, _) = bind(&listen);
        let (dialed, accepted) = connect(&dial, &listener).await;
        for end in [Found::on(&accepted), Found::on(&dialed)] {
            let expected = Found { user_timeout_ms, ..found_of_unusual() };
            assert_eq!(end, expected, "multipath {multipath}, {missing:?}");
        }
    }
}

#[tokio::test]
async fn without_a_word_small_writes_are_not_delayed_and_dead_peers_are_noticed() {
    let (listener, _) = bind(&Options::default());
    let (dialed, accepted) = connect(&Options::default(), &listener).await;
    for found in [Found::on(&dialed), Found::on(&accepted)] {
        assert!(found.no_delay);
        assert_eq!((found.keepalive, found.user_timeout_ms), (Some((60, 15)), 0));
    }
}

/// The last segment of TCP's handshake goes out with the first bytes: until then the server knows of nobody.
#[tokio::test]
async fn who_speaks_first_speaks_with_the_last_segment_of_the_handshake() {
    let server = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    server.set_nonblocking(true).unwrap();
    let (address, options) = ([server.local_addr().unwrap()], Options::default());
    let silent = dial_before(&address, &options, None).await.unwrap();
    assert!(server.accept().is_ok(), "who may stay silent is announced at once");
    drop(silent);

    let speaking = options.speaking_first();
    let mut held = false;
    // The kernel waits some 40 ms for the bytes; a machine that is out of breath may look later than that.
    for _ in 0..20 {
        let (dialed, _) = dial_before(&address, &speaking, None).await.unwrap();
        held |= server.accept().is_err();
        assert_eq!(dialed.try_write(b"hello").unwrap(), 5);
        if held {
            break;
        }
    }
    assert!(held, "the server is told before anything is said");
    assert!(server.accept().is_ok(), "the bytes bring the connection");
}

#[tokio::test]
async fn options_of_a_listener_change_while_it_listens() {
    let (listener, _) = bind(&Options::of(&unusual(), Role::Listen).0);
    listener.set(&Options::of(&Tcp { keepalive: None, ..Tcp::default() }, Role::Listen).0).unwrap();
    let (_, accepted) = connect(&Options::default(), &listener).await;
    let found = Found::on(&accepted);
    assert!(found.no_delay);
    assert_eq!((found.keepalive, found.user_timeout_ms), (None, 0));
}

/// Where the kernel speaks it, both ends do; where it does not, that is told and the connection is one of TCP.
#[tokio::test]
async fn multipath_is_spoken_or_said_to_be_missing() {
    let asked = Tcp { multipath: true, ..Tcp::default() };
    let (options, missing) = Options::of(&asked, Role::Connect);
    let (listener, _) = bind(&Options::of(&asked, Role::Listen).0);
    let (dialed, accepted) = connect(&options, &listener).await;
    let expected = if missing.is_empty() { Protocol::MPTCP } else { Protocol::TCP };
    for end in [SockRef::from(&dialed), SockRef::from(&accepted)] {
        assert_eq!(end.protocol().unwrap(), Some(expected), "{missing:?}");
    }
    // A client that knows only TCP is served all the same.
    let (dialed, _accepted) = connect(&Options::default(), &listener).await;
    assert_eq!(SockRef::from(&dialed).protocol().unwrap(), Some(Protocol::TCP));
}

#[tokio::test]
async fn what_the_kernel_does_not_have_is_told_and_left_out() {
    let asked = Tcp { congestion: Some("nobody_wrote_it".to_owned()), ..unusual() };
    for role in [Role::Listen, Role::Connect] {
        let (options, missing) = Options::of(&asked, role);
        let [missing] = &missing[..] else { panic!("{missing:?}") };
        assert_eq!(missing.option, "congestion");
        assert!(missing.why.contains("nobody_wrote_it") && missing.why.contains("this kernel has:"), "{missing:?}");
        let (listener, _) = bind(&options);
        let (dialed, _accepted) = connect(&options, &listener).await;
        assert_eq!(Found::on(&dialed).keepalive, Some((20, 5)));
    }
}

/// By the kernel's own word on the sockets of the running program.
#[test]
fn a_reload_changes_the_options_of_a_listener_that_stays() {
    let scene = Scene::new("");
    let sections = |tcp: &str| scene.upstream.clone() + &listener("echo", 0, "echo") + tcp;
    let egret = Egret::start(&sections(""));
    let address = egret.address("echo");
    let timer = || {
        let mut client = plain::connect(address);
        assert!(echoes(&mut client), "{}", egret.log_text());
        let (server, client) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
        run(Command::new("ss").args(["-Htno", "src"]).arg(server.to_string()).arg("dst").arg(client.to_string()))
    };
    // Probes after a minute: less than that is left, and more than half of it.
    let before = timer();
    assert!(before.contains("timer:(keepalive,59sec") || before.contains("timer:(keepalive,1min"), "{before}");
    egret.rewrite(&sections("tcp = { keepalive = \"20s\" }\n"));
    assert!(egret.reload(), "{}", egret.log_text());
    let after = timer();
    assert!(after.contains("timer:(keepalive,19sec") || after.contains("timer:(keepalive,20sec"), "{after}");
}

/// The second connection of either side carries its first bytes in its first packet.
#[test]
fn fast_open_saves_a_round_trip_on_both_sides() {
    let pki = Pki::new();
    // Clients, and every listener that is not asked: openssl cannot be told.
    let namespace = Arc::new(Namespace::with("tcp_fastopen", "1027"));
    let server = OpensslServer::start_as(namespace.guarded("openssl"), &pki, &pki.server(&[HOST]), &[]);
    let sections = format!(
        "{}[upstreams.www]\nservers = [\"{}\"]\ntls = {{ trust = \"internal\", server_name = {HOST:?} }}\n\
         tcp = {{ fast_open = true }}\n{}tcp = {{ fast_open = true }}\n",
        roots("internal", &pki.root()),
        server.address,
        listener("www", 0, "www"),
    );
    let egret =
        Egret::start_with(Settings { namespace: Some(Arc::clone(&namespace)), ..Settings::default() }, &sections);
    let url = format!("http://{}/", egret.address("www"));
    for _ in 0..3 {
        run(namespace.guarded("curl").args(["--silent", "--fail", "--tcp-fastopen", "--max-time", "20", &url]));
    }
    let counters = run(namespace.guarded("cat").arg("/proc/net/netstat"));
    let (sent, taken) = (counter(&counters, "TCPFastOpenActive"), counter(&counters, "TCPFastOpenPassive"));
    // All of six but the first: the server's cookie is good for every port of its address.
    assert_eq!((sent, taken), (5, 5), "{}", egret.log_text());
    assert!(!egret.log_text().contains("this kernel does not have it"), "{}", egret.log_text());
}

/// A field of /proc/net/netstat: a line of names, a line of values.
fn counter(text: &str, name: &str) -> u64 {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let pair = lines.windows(2).find_map(|pair| Some((pair[0].iter().position(|field| *field == name)?, &pair[1])));
    let (at, values) = pair.unwrap_or_else(|| panic!("no {name}"));
    values[at].parse().unwrap()
}

#[test]
fn threads_run_where_they_are_told_and_one_worker_is_the_main_thread() {
    let scene = Scene::new("");
    let rest = scene.upstream + &listener("echo", 0, "echo");
    let egret = Egret::start(&format!("[runtime]\nworkers = 1\naffinity = [0]\n{rest}"));
    assert!(echoes(&mut plain::connect(egret.address("echo"))), "{}", egret.log_text());
    assert_eq!(field(&egret, "Cpus_allowed_list:"), "0");
    let workers = |egret: &Egret| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", field(egret, "Pid:"))).unwrap();
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
        names.filter(|name| name.starts_with("tokio-rt-worker") || name.starts_with("tokio-runtime-w")).count()
    };
    let one = workers(&egret);
    let three = Egret::start(&format!("[runtime]\nworkers = 3\n{rest}"));
    assert!(echoes(&mut plain::connect(three.address("echo"))), "{}", three.log_text());
    // Threads that may block have the same name; they come and go.
    assert!(workers(&three) >= 3, "{one} threads with one worker, {} with three", workers(&three));
}

fn field(egret: &Egret, name: &str) -> String {
    let status = egret.proc("status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{status}"));
    line.trim().to_owned()
}
