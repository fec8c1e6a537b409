//! What stands around the proxies when they are compared. `benches/peers/run` calls it:
//!
//! | word | what it does |
//! | --- | --- |
//! | `certificates` | writes a folder of throw-away certificates |
//! | `origin` | the server behind the proxies; records how each TLS connection came about |
//! | `load` | the client in front of them; accounts for their CPU time and memory as it works |
//! | `relay` | reference relays, plain and TLS |
//! | `limits` | the cryptography alone |
//! | `path` | a path with a round-trip time, over a TUN device |
//!
//! Everything but the path, which sleeps, has one thread; each role can be pinned to a processor.

mod account;
mod arguments;
mod certificates;
mod limits;
mod load;
mod origin;
mod path;
mod relay;
mod tls;
mod wire;

use anyhow::{Result, bail};
use tokio::task::LocalSet;

use crate::arguments::Arguments;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let role = words.next().unwrap_or_default();
    let arguments = Arguments::parse(words)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        match role.as_str() {
            "certificates" => certificates::write(&arguments),
            "origin" => origin::serve(&arguments).await,
            "load" => load::run(&arguments).await,
            "relay" => relay::serve(&arguments).await,
            "limits" => limits::print(&arguments),
            "path" => path::carry(&arguments),
            _ => bail!("usage: peers certificates|origin|load|relay|limits|path [--name value]..."),
        }
    })
}
