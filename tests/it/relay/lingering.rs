//! After the end of a stream, whoever decided it: each side gets what was read for it before the reset.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use egret::net::abort_on_close;
use egret::pipeline::relay::{Ended, Outcome};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::passing;
use super::stage::{Setup, Stage, VERSIONS, counted_to, send_all, within};

/// More than the receiving socket takes while nobody reads, less than the sending one holds.
const TAIL: usize = 300_000;
const LIMIT: Duration = Duration::from_millis(200);
/// A receive buffer that keeps the rest in the sender's.
const LITTLE: usize = 32 * 1024;

fn reads_late(socket: &TcpStream) {
    SockRef::from(socket).set_recv_buffer_size(LITTLE).unwrap();
}

/// The server's end, with TLS or without.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// A running stream of either mechanism.
struct Running {
    client: TcpStream,
    server: Box<dyn Socket>,
    force: oneshot::Sender<()>,
    relay: JoinHandle<Outcome>,
    counted: [Arc<AtomicU64>; 2],
}

impl Running {
    /// `late`: who reads late.
    async fn start(setup: Setup, passes: bool, late: Side) -> Self {
        if passes {
            let passing::Stage { client, server, relay, counted, force } = passing::start(setup).await;
            reads_late(if late == Side::Client { &client } else { &server });
            return Self { client, server: Box::new(server), force, relay, counted };
        }
        let Stage { client, server, relay, counted, force } = setup.start().await;
        reads_late(if late == Side::Client { &client } else { server.get_ref().0 });
        Self { client, server: Box::new(server), force, relay, counted }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// Reads in small pieces to the end; gives how many bytes came, and the error if the end was one.
async fn read_slowly(from: &mut (impl AsyncRead + Unpin + ?Sized)) -> (usize, Option<ErrorKind>) {
    let mut got = 0;
    let mut piece = [0; 4096];
    loop {
        match within(from.read(&mut piece)).await {
            Ok(0) => return (got, None),
            Ok(n) => got += n,
            Err(error) => return (got, Some(error.kind())),
        }
        tokio::task::yield_now().await;
    }
}

/// What ends a stream that could go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Idle,
    Lifetime,
    Drain,
}

impl Cut {
    const ALL: [Self; 3] = [Self::Idle, Self::Lifetime, Self::Drain];

    fn setup(self) -> Setup {
        let mut setup = Setup::new();
        match self {
            Self::Idle => setup.limits.idle = Some(LIMIT),
            Self::Lifetime => setup.limits.lifetime = Some(LIMIT * 2),
            Self::Drain => {}
        }
        setup
    }

    fn ended(self) -> Ended {
        match self {
            Self::Idle => Ended::Idle,
            Self::Lifetime => Ended::Lifetime,
            Self::Drain => Ended::Drained,
        }
    }
}

#[tokio::test]
async fn each_side_gets_what_was_read_before_egret_cuts() {
    for passes in [false, true] {
        for late in [Side::Client, Side::Server] {
            for cut in Cut::ALL {
                let Running { mut client, mut server, force, relay, counted } =
                    Running::start(cut.setup(), passes, late).await;
                let tail = vec![7; TAIL];
                let (sender, reader, count): (&mut dyn Socket, &mut dyn Socket, _) = match late {
                    Side::Client => (&mut server, &mut client, &counted[1]),
                    Side::Server => (&mut client, &mut server, &counted[0]),
                };
                sender.write_all(&tail).await.unwrap();
                sender.flush().await.unwrap();
                counted_to(count, TAIL).await;
                let waits = if cut == Cut::Drain { force.send(()).err().map(|()| unreachable!()) } else { Some(force) };
                // The cut has to come while nobody reads.
                tokio::time::sleep(LIMIT * 3).await;
                let read = read_slowly(reader).await;
                assert_eq!(read, (TAIL, Some(ErrorKind::ConnectionReset)), "{cut:?}, passes: {passes}");
                assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, cut.ended());
                drop(waits);
            }
        }
    }
}

#[tokio::test]
async fn client_gets_what_came_before_the_servers_end_however_it_ends() {
    for version in VERSIONS {
        for end in ["fin", "alert", "garbage"] {
            for length in [1, TAIL, 3_000_000] {
                let Stage { mut client, mut server, relay, counted, .. } =
                    Setup { version, ..Setup::new() }.start().await;
                reads_late(&client);
                let serve = tokio::spawn(async move {
                    server.write_all(&vec![7; length]).await.unwrap();
                    server.flush().await.unwrap();
                    let (mut tcp, mut session) = server.into_inner();
                    match end {
                        "fin" => tcp.shutdown().await.unwrap(),
                        "garbage" => tcp.write_all(&[[23, 3, 3, 0, 40].as_slice(), &[7; 40]].concat()).await.unwrap(),
                        _ => {
                            // A record that does not decrypt makes rustls's server send the alert.
                            let record = [[23, 3, 3, 0, 40].as_slice(), &[0; 40]].concat();
                            session.read_tls(&mut &record[..]).unwrap();
                            session.process_new_packets().unwrap_err();
                            send_all(&mut tcp, &mut session).await;
                        }
                    }
                    tcp
                });
                // The end has to come while nobody reads.
                tokio::time::sleep(LIMIT).await;
                let read = read_slowly(&mut client).await;
                assert_eq!(read, (length, Some(ErrorKind::ConnectionReset)), "{end}");
                let _tcp = within(serve).await.unwrap();
                let ended = Stage::<()>::outcome(relay, &counted).await.ended.reason();
                let wanted = match end {
                    "fin" => "upstream_truncated",
                    "alert" => "upstream_alert",
                    _ => "upstream_tls_error",
                };
                assert_eq!(ended, wanted);
            }
        }
    }
}

/// A client that closes with bytes unread resets, and may have said all it had to say.
#[tokio::test]
async fn server_gets_what_came_before_the_clients_reset() {
    for passes in [false, true] {
        let Running { mut client, mut server, relay, counted, force } =
            Running::start(Setup::new(), passes, Side::Server).await;
        client.write_all(&vec![7; TAIL]).await.unwrap();
        counted_to(&counted[0], TAIL).await;
        abort_on_close(&client);
        drop(client);
        // The reset has to come while nobody reads.
        tokio::time::sleep(LIMIT).await;
        let read = read_slowly(&mut server).await;
        assert_eq!(read, (TAIL, Some(ErrorKind::ConnectionReset)), "passes: {passes}");
        assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::DownstreamReset);
        drop(force);
    }
}

/// A Unix socket knows neither resets nor acknowledgements: what it was given arrives.
#[tokio::test]
async fn unix_client_gets_what_was_read_before_egret_cuts() {
    let Stage { mut client, mut server, relay, counted, force } = Setup::new().start_unix().await;
    let serve = tokio::spawn(async move {
        // Until the stream is cut.
        while server.write_all(&[7; 65_536]).await.is_ok() {}
    });
    let stalled = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(LIMIT).await;
            let now = counted[1].load(Ordering::Relaxed);
            if now > 0 && now == before {
                return now;
            }
            before = now;
        }
    };
    let before = within(stalled).await;
    force.send(()).unwrap();
    let (got, _) = read_slowly(&mut client).await;
    within(serve).await.unwrap();
    let outcome = Stage::<()>::outcome(relay, &counted).await;
    assert_eq!((outcome.ended, outcome.received), (Ended::Drained, got as u64));
    assert!(outcome.received > before, "what was read and had not been written is missing");
}

/// Nothing is left undelivered for ever: a peer that takes nothing holds no stream.
#[tokio::test]
async fn peer_that_takes_nothing_is_reset_within_the_bound() {
    let Stage { client, mut server, relay, counted, force } = Setup::new().start().await;
    reads_late(&client);
    server.write_all(&vec![7; TAIL]).await.unwrap();
    counted_to(&counted[1], TAIL).await;
    force.send(()).unwrap();
    assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::Drained);
    drop(client);
}
