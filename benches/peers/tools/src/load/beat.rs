//! Round trips at a steady rate, far below what the proxy can carry: what something that happens beside them adds.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;
use tokio::task::spawn_local;
use tokio::time::{Instant, interval, sleep_until};

use super::streams::{open, round_trip};
use crate::arguments::Arguments;

/// What was seen of the streams so far.
#[derive(Default)]
struct Seen {
    /// Begin, in seconds since 1970, and microseconds of each round trip.
    trips: Vec<(f64, f64)>,
    cut: u64,
}

/// Opens `--streams` streams and makes a round trip on each every `--every` milliseconds, evenly spread, for `--seconds`.
/// Prints `flowing` when all are open, and at the end every round trip, and how many streams were cut.
pub async fn run(to: SocketAddr, arguments: &Arguments) -> Result<()> {
    let count: usize = arguments.get("streams")?;
    let every = Duration::from_millis(arguments.get("every")?);
    let seconds = Duration::from_secs_f64(arguments.get("seconds")?);
    let seen = Rc::new(RefCell::new(Seen::default()));
    let streams = open(to, count).await?;
    let begin = Instant::now();
    println!("flowing");
    let beats: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(at, mut stream)| {
            let seen = Rc::clone(&seen);
            spawn_local(async move {
                sleep_until(begin + every.mul_f64(at as f64 / count as f64)).await;
                let mut ticks = interval(every);
                while begin.elapsed() < seconds {
                    ticks.tick().await;
                    let (at, began) = (now(), Instant::now());
                    match round_trip(&mut stream).await {
                        Ok(()) => seen.borrow_mut().trips.push((at, began.elapsed().as_secs_f64() * 1e6)),
                        Err(_) => return seen.borrow_mut().cut += 1,
                    }
                }
            })
        })
        .collect();
    for beat in beats {
        beat.await?;
    }
    let Seen { trips, cut } = seen.take();
    println!("{}", json!({ "trips": trips, "cut": cut }));
    Ok(())
}

/// On the clock that the observer of the proxy has as well.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
