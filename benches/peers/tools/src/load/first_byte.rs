//! One new connection every so often, however long the last ones take: how long each waits for its first byte.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::streams::ask;
use super::window::Account;
use crate::arguments::Arguments;

/// Connects to `--to` every `--every` milliseconds, first for `--warmup`, then for `--seconds`, and prints the
/// figures of the latter, and the round-trip time of the way to `--behind`.
pub async fn run(to: SocketAddr, arguments: &Arguments) -> Result<()> {
    let account = Account::new(arguments)?;
    let every = Duration::from_millis(arguments.get("every")?);
    let count = |seconds: f64| (seconds / every.as_secs_f64()).ceil() as usize;
    let round_trip = round_trip(arguments.get("behind")?).await?;
    let mut warming = arrive(to, count(arguments.get("warmup")?), every).await;
    let before = account.sample(0);
    let arrived = arrive(to, count(arguments.get("seconds")?), every).await.join_all().await;
    let after = account.sample(arrived.len() as u64);
    while warming.join_next().await.is_some() {}
    let (mut micros, mut failures) = (Vec::new(), 0);
    for result in arrived {
        match result {
            Ok(latency) => micros.push(latency.as_secs_f64() * 1e6),
            Err(error) => {
                eprintln!("load: {error:#}");
                failures += 1;
            }
        }
    }
    micros.sort_unstable_by(f64::total_cmp);
    let mut figures = before.until(&after);
    for (name, part) in [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99)] {
        figures[name] = json!(micros.get((micros.len() as f64 * part) as usize));
    }
    figures["failures"] = json!(failures);
    figures["round_trip_us"] = json!(round_trip.as_secs_f64() * 1e6);
    println!("{figures}");
    Ok(())
}

/// Begins so many connections, and returns when the last has begun and its time has passed.
async fn arrive(to: SocketAddr, count: usize, every: Duration) -> JoinSet<Result<Duration>> {
    let (mut ticks, mut clients) = (interval(every), JoinSet::new());
    ticks.tick().await;
    for _ in 0..count {
        clients.spawn(ask(to));
        ticks.tick().await;
    }
    clients
}

/// Measurements of the round-trip time, of which the middle one counts.
const PROBES: usize = 11;

/// How long it takes to connect, which is one round trip.
async fn round_trip(behind: SocketAddr) -> Result<Duration> {
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let began = Instant::now();
        TcpStream::connect(behind).await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[PROBES / 2])
}
