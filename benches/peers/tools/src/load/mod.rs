//! The client in front of a proxy: plain TCP, one kind of work at a time. Prints one JSON object.
//!
//! It reads the proxy's account itself, in the same instants in which it reads its own count of work, so that
//! both cover the same window.

mod beat;
mod first_byte;
mod http;
mod idle;
mod portions;
mod streams;
mod window;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use window::Window;

/// How long anything that has to happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn run(arguments: &Arguments) -> Result<()> {
    let to: SocketAddr = arguments.get("to")?;
    let work: String = arguments.get("work")?;
    let count: usize = arguments.get_or("streams", 1)?;
    let window = Rc::new(Window::default());
    match work.as_str() {
        "check" => return streams::check(to).await,
        "ask" => return streams::ask(to).await.map(drop),
        "beat" => return beat::run(to, arguments).await,
        "first-byte" => return first_byte::run(to, arguments).await,
        "http" => return http::run(arguments),
        "idle" => return idle::run(to, arguments).await,
        "portions" => return portions::run(to, arguments).await,
        "up" => streams::upload(to, count, &window).await?,
        "down" => streams::download(to, count, &window).await?,
        "connect" => streams::connect_again_and_again(to, arguments.get_or("ports", 1)?, count, &window),
        "ping" => streams::ping(to, count, &window).await?,
        _ => bail!("--work cannot be {work}"),
    }
    window.measure(arguments).await
}
