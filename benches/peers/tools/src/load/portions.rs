//! Work in portions of a known size, for a proxy whose instructions are counted: each line on stdin is a number of
//! units, and `done` on stdout answers it when they are done.

use std::io::{self, BufRead};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::streams;
use crate::arguments::Arguments;
use crate::wire::Task;

/// A unit of bulk.
const MIB: usize = 1 << 20;

/// One kind of work, with the stream that it needs.
enum Portions {
    /// A unit is a connection, to one of the ports from that of an address on after the other.
    Connect {
        to: SocketAddr,
        ports: u16,
        next: u16,
    },
    /// A unit is a round trip.
    Ping(TcpStream),
    /// A unit is one MiB to the origin, or from it.
    Up(TcpStream),
    Down(TcpStream),
}

/// Serves the lines until stdin ends. `ready` says that the stream is open.
pub async fn run(to: SocketAddr, arguments: &Arguments) -> Result<()> {
    let ports = arguments.get_or("ports", 1)?;
    let mut portions = Portions::open(to, ports, &arguments.get::<String>("of")?).await?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let units: usize = line.trim().parse().with_context(|| format!("{line:?} is not a number of units"))?;
        for _ in 0..units {
            portions.unit().await?;
        }
        println!("done");
    }
    Ok(())
}

impl Portions {
    async fn open(to: SocketAddr, ports: u16, kind: &str) -> Result<Self> {
        Ok(match kind {
            "connect" => Self::Connect { to, ports, next: 0 },
            "ping" => Self::Ping(streams::start(to, Task::Echo).await?),
            "up" => Self::Up(streams::start(to, Task::Sink).await?),
            "down" => Self::Down(streams::start(to, Task::Source).await?),
            _ => bail!("--of cannot be {kind}"),
        })
    }

    async fn unit(&mut self) -> Result<()> {
        match self {
            Self::Connect { to, ports, next } => {
                let port = to.port() + *next;
                *next = (*next + 1) % *ports;
                streams::ask(SocketAddr::new(to.ip(), port)).await.map(drop)
            }
            Self::Ping(stream) => streams::round_trip(stream).await,
            Self::Up(stream) => Ok(stream.write_all(&vec![b'u'; MIB]).await?),
            Self::Down(stream) => {
                let mut taken = vec![0; MIB];
                stream.read_exact(&mut taken).await?;
                ensure!(taken.iter().all(|byte| *byte == b'd'), "other bytes than the origin's");
                Ok(())
            }
        }
    }
}
