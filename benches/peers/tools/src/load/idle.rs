//! Streams that do nothing: what a proxy holds for each.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::sleep;

use super::streams;
use crate::account;
use crate::arguments::Arguments;

/// Time for a proxy to give back what it does not need for idle streams.
const SETTLE: Duration = Duration::from_secs(2);

/// Opens `--streams` streams and tells how much memory each has added.
pub async fn run(to: SocketAddr, arguments: &Arguments) -> Result<()> {
    let (proxy, count): (u32, usize) = (arguments.get("watch")?, arguments.get("streams")?);
    // What is allocated once, at the first stream, belongs to none of them.
    let mut held = streams::open(to, 1).await?;
    sleep(SETTLE).await;
    let base = account::pss_kib(proxy);
    held.extend(streams::open(to, count).await?);
    sleep(SETTLE).await;
    let before = account::cpu(proxy).total();
    sleep(SETTLE).await;
    let idle_cpu = (account::cpu(proxy).total() - before) / SETTLE.as_secs_f64();
    let full = account::pss_kib(proxy);
    // A stream that stands has nothing to read; one that was closed reads its end.
    let closed = held.iter().filter(|stream| stream.try_read(&mut [0]).is_ok()).count();
    let each = full.saturating_sub(base) as f64 / count as f64;
    println!(
        "{}",
        json!({ "kib_each": each, "base_kib": base, "streams": count, "failures": closed, "idle_cpu": idle_cpu })
    );
    Ok(())
}
