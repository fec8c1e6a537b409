//! Kinds of work.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::PATIENCE;
use super::window::Window;
use crate::wire::{MESSAGE, Task, discard};

/// Streams that are being opened at the same time.
const OPENING: usize = 32;

pub async fn start(to: SocketAddr, task: Task) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&task.opening()).await?;
    Ok(stream)
}

/// Bulk towards the origin.
pub async fn upload(to: SocketAddr, count: usize, window: &Rc<Window>) -> Result<()> {
    for _ in 0..count {
        let (mut stream, window) = (start(to, Task::Sink).await?, Rc::clone(window));
        spawn_local(async move {
            let chunk = vec![b'u'; 256 << 10];
            loop {
                match stream.write(&chunk).await {
                    Ok(length) => window.moved(length),
                    Err(error) => return window.failed(&error.into()),
                }
            }
        });
    }
    Ok(())
}

/// Bulk from the origin.
pub async fn download(to: SocketAddr, count: usize, window: &Rc<Window>) -> Result<()> {
    for _ in 0..count {
        let (stream, window) = (start(to, Task::Source).await?, Rc::clone(window));
        spawn_local(async move {
            loop {
                match discard(&stream).await.context("the download ended") {
                    Ok(length @ 1..) => window.moved(length),
                    Ok(_) => return window.failed(&anyhow::anyhow!("the download ended")),
                    Err(error) => return window.failed(&error),
                }
            }
        });
    }
    Ok(())
}

/// One connection: connect, ask, read the answer, close. Returns the time to the answer's end.
pub async fn ask(to: SocketAddr) -> Result<Duration> {
    let began = Instant::now();
    let answer = async {
        let mut stream = start(to, Task::Answer).await?;
        let mut answer = [0; MESSAGE];
        stream.read_exact(&mut answer).await.context("no answer")?;
        ensure!(answer == [b'A'; MESSAGE], "a wrong answer");
        Ok(())
    };
    timeout(PATIENCE, answer).await.context("no answer in time")??;
    Ok(began.elapsed())
}

/// `count` clients, each with one connection after the other, to one of the `ports` from that of `to` on after the other.
pub fn connect_again_and_again(to: SocketAddr, ports: u16, count: usize, window: &Rc<Window>) {
    let next = Rc::new(Cell::new(0));
    for _ in 0..count {
        let (window, next) = (Rc::clone(window), Rc::clone(&next));
        spawn_local(async move {
            loop {
                let began = Instant::now();
                let port = to.port() + next.replace((next.get() + 1) % ports);
                match ask(SocketAddr::new(to.ip(), port)).await {
                    Ok(latency) => window.answered(began, latency),
                    Err(error) => {
                        window.failed(&error);
                        sleep(Duration::from_millis(5)).await; // a broken proxy must not make this loop spin
                    }
                }
            }
        });
    }
}

pub async fn round_trip(stream: &mut TcpStream) -> Result<()> {
    let mut message = [b'p'; MESSAGE];
    stream.write_all(&message).await?;
    stream.read_exact(&mut message).await?;
    Ok(())
}

/// Opens `count` streams to the echo; a round trip proves that each reaches the origin.
pub async fn open(to: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    let mut opening = JoinSet::new();
    while streams.len() < count {
        while opening.len() < OPENING && opening.len() + streams.len() < count {
            opening.spawn(timeout(PATIENCE, async move {
                let mut stream = start(to, Task::Echo).await?;
                round_trip(&mut stream).await?;
                Result::<_>::Ok(stream)
            }));
        }
        if let Some(opened) = opening.join_next().await {
            streams.push(opened?.context("a stream did not open in time")??);
        }
    }
    Ok(streams)
}

/// Small messages there and back on `count` streams, the next when the last has returned.
pub async fn ping(to: SocketAddr, count: usize, window: &Rc<Window>) -> Result<()> {
    for mut stream in open(to, count).await? {
        let window = Rc::clone(window);
        spawn_local(async move {
            loop {
                let began = Instant::now();
                match round_trip(&mut stream).await {
                    Ok(()) => window.answered(began, began.elapsed()),
                    Err(error) => return window.failed(&error),
                }
            }
        });
    }
    Ok(())
}

/// Bytes that are compared: more than all buffers on the way hold.
const CHECKED: usize = 4 << 20;

/// Sends bytes without a period to the echo, and compares what comes back.
pub async fn check(to: SocketAddr) -> Result<()> {
    let sent: Vec<u8> = (0..CHECKED as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let (mut reader, mut writer) = start(to, Task::Echo).await?.into_split();
    let mut returned = vec![0; CHECKED];
    let both = async { tokio::try_join!(writer.write_all(&sent), reader.read_exact(&mut returned)) };
    timeout(PATIENCE, both).await.context("the echo did not end in time")??;
    ensure!(returned == sent, "the echo differs from what was sent");
    Ok(())
}
