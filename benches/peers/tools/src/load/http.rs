//! wrk does the work. It tells only what it did from its first to its last moment, so the account covers just that,
//! the opening of its connections included.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::window::Account;
use crate::arguments::Arguments;

/// Runs wrk for `--seconds` and prints its account and what it said.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (url, seconds): (String, f64) = (arguments.get("url")?, arguments.get("seconds")?);
    let account = Account::new(arguments)?;
    let before = account.sample(0);
    let wrk = Command::new("/usr/bin/wrk")
        .args(["--threads", "1", "--connections", "64", "--latency", "--duration"])
        .arg(format!("{}s", seconds.ceil()))
        .arg(&url)
        .output()
        .context("wrk does not start")?;
    let said = String::from_utf8_lossy(&wrk.stdout);
    ensure!(wrk.status.success() && !said.contains("Socket errors") && !said.contains("Non-2xx"), "wrk: {said}");
    let word = |at: usize, line: &str| line.split_whitespace().nth(at).map(str::to_owned);
    let find = |what: &str, at| said.lines().find(|line| line.contains(what)).and_then(|line| word(at, line));
    let requests = find(" requests in ", 0).context("wrk tells no requests")?.parse()?;
    let latency = |percent| find(percent, 1).and_then(|text| duration(&text)).map(|time| time.as_secs_f64() * 1e6);
    let [p50, p99] = [latency("50%"), latency("99%")];
    let mut figures = before.until(&account.sample(requests));
    figures["p50_us"] = json!(p50);
    figures["p99_us"] = json!(p99);
    println!("{figures}");
    Ok(())
}

/// wrk writes 12.34us, 1.23ms, 1.23s.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    let value: f64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(value * seconds))
}
