//! Stop accepting, let streams finish, then force.

use std::time::Duration;

use egret::drain::{self, Drained, Watch};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{timeout, timeout_at};

const LONG: Duration = Duration::from_secs(30);

/// Echoes until the client is done or the drain forces.
async fn stream(mut socket: DuplexStream, watch: Watch) {
    let mut bytes = [0; 64];
    loop {
        tokio::select! {
            read = socket.read(&mut bytes) => match read {
                Ok(n) if n > 0 => socket.write_all(&bytes[..n]).await.unwrap(),
                _ => return,
            },
            () = watch.forced() => return,
        }
    }
}

async fn echoes(client: &mut DuplexStream) {
    client.write_all(b"still here").await.unwrap();
    let mut echo = [0; 10];
    client.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"still here");
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_streams_then_forces() {
    let (drain, watch) = drain::channel();
    let (mut patient, served) = duplex(64);
    let patient_stream = tokio::spawn(stream(served, watch.clone()));
    let (mut stubborn, served) = duplex(64);
    let stubborn_stream = tokio::spawn(stream(served, watch.clone()));
    drop(watch);

    let mut draining = tokio::spawn(drain.drain(Duration::from_secs(20)));
    let still_waiting = timeout(Duration::from_secs(19), &mut draining).await;
    assert!(still_waiting.is_err(), "the drain did not wait: {still_waiting:?}");
    echoes(&mut patient).await;
    echoes(&mut stubborn).await;
    drop(patient);
    patient_stream.await.unwrap();

    assert_eq!(draining.await.unwrap(), Drained::Forced { held: 1 });
    stubborn_stream.await.unwrap();
    assert_eq!(stubborn.read(&mut [0; 1]).await.unwrap(), 0, "the forced stream is closed");
}

#[tokio::test(start_paused = true)]
async fn drain_ends_with_its_last_stream_and_not_at_the_deadline() {
    let (drain, watch) = drain::channel();
    let (client, served) = duplex(64);
    tokio::spawn(stream(served, watch));
    let asked = tokio::time::Instant::now();
    let draining = tokio::spawn(drain.drain(Duration::from_secs(3600)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(client);
    assert_eq!(draining.await.unwrap(), Drained::Finished);
    // By the paused clock, which no busy machine moves.
    assert_eq!(asked.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_streams_is_over_at_once() {
    let (drain, watch) = drain::channel();
    drop(watch);
    assert_eq!(drain.drain(Duration::ZERO).await, Drained::Finished);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ignores_the_end_cannot_hold_the_process() {
    let (drain, watch) = drain::channel();
    let _deaf = watch.clone();
    let _deaf_too = watch;
    assert_eq!(drain.drain(Duration::from_secs(1)).await, Drained::Stuck { held: 2 });
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_drain_does_not_hold_it_up() {
    let (drain, watch) = drain::channel();
    let (asked, forced) = (watch.draining(), watch.forced());
    drop(watch);
    assert_eq!(drain.drain(LONG).await, Drained::Finished);
    asked.await;
    assert!(timeout(LONG, forced).await.is_err(), "nothing was forced");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_drain_neither_stops_nor_forces() {
    let (drain, watch) = drain::channel();
    drop(drain);
    assert!(timeout(LONG, watch.draining()).await.is_err());
    assert!(timeout(LONG, watch.forced()).await.is_err());
    assert!(!watch.is_draining());

    let (drain, watch) = drain::channel();
    drain.stop();
    drop(drain);
    watch.draining().await;
    assert!(timeout(LONG, watch.forced()).await.is_err());
}

#[tokio::test]
async fn a_removed_listener_stops_accepting_while_its_streams_live_on() {
    let (process, process_watch) = drain::channel();
    let (removed, listener_watch) = drain::channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (mut socket, _) = accepted.unwrap();
                    let watch = process_watch.clone();
                    tokio::spawn(async move {
                        let (mut from, mut to) = socket.split();
                        tokio::select! {
                            copied = tokio::io::copy(&mut from, &mut to) => drop(copied),
                            () = watch.forced() => {}
                        }
                    });
                }
                () = listener_watch.draining() => return,
            }
        }
    });
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"a").await.unwrap();
    client.read_exact(&mut [0; 1]).await.unwrap();

    assert_eq!(removed.drain(LONG).await, Drained::Finished);
    accepting.await.unwrap();
    TcpStream::connect(address).await.unwrap_err();
    client.write_all(b"b").await.unwrap();
    client.read_exact(&mut [0; 1]).await.unwrap();

    assert_eq!(process.drain(Duration::ZERO).await, Drained::Forced { held: 1 });
    let end = timeout_at(tokio::time::Instant::now() + LONG, client.read(&mut [0; 1])).await.unwrap();
    assert!(!matches!(end, Ok(1)), "the stream is over: {end:?}");
}
